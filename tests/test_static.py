"""What a submission imports and uses, and the options of its run_llama.py: `pytest tests/test_static.py`."""

import ast
import tomllib
from pathlib import Path

import pytest

from autograder.editions import Static
from autograder.intake.run_options import CONTRACT, changed_options
from autograder.intake.static import StaticRules, analyse, shadowing
from autograder.result import Finding

ROOT = Path(__file__).resolve().parent.parent
RULES = StaticRules(
    imports=("torch", "numpy", "tqdm"),
    forbidden=(
        ("transformers", "the model is to be built"),
        ("torch.optim.AdamW", "the optimizer is to be written"),
        ("torch.nn.functional.scaled_dot_product_attention", "attention is to be written"),
        ("torch.*rms_norm*", "RMSNorm is to be written"),
        ("torch.nn.RMSNorm", "RMSNorm is to be written"),
        ("os.system", "a submission starts no programs"),
        ("ctypes", "a submission reaches for no memory"),
    ),
)


def findings(source: str, name: str = "lora.py", rules: StaticRules = RULES, **more: str) -> list[Finding]:
    """Return the findings in a submission of one file, or some."""
    files = {name: source} | {f"{stem}.py": text for stem, text in more.items()}
    return analyse({file: text.encode() for file, text in files.items()}, rules)


def flagged(source: str, name: str = "lora.py") -> list[str]:
    """Return what the flags in one file say."""
    return [finding.what for finding in findings(source, name) if finding.severity == "flag"]


# --- Forbidden names --------------------------------------------------------------------------------------------------

ADAMW = "uses torch.optim.AdamW: the optimizer is to be written"
SDPA = "uses torch.nn.functional.scaled_dot_product_attention: attention is to be written"
RMS = "uses torch.nn.RMSNorm: RMSNorm is to be written"
F_RMS = "uses torch.nn.functional.rms_norm: RMSNorm is to be written"
TRANSFORMERS = "uses transformers: the model is to be built"
SPELLINGS = [
    ("import torch\no = torch.optim.AdamW(p)", ADAMW),
    ("import torch.optim\no = torch.optim.AdamW(p)", ADAMW),
    ("import torch.optim as optim\no = optim.AdamW(p)", ADAMW),
    ("from torch import optim\no = optim.AdamW(p)", ADAMW),
    ("from torch import optim as t\no = t.AdamW(p)", ADAMW),
    ("from torch.optim import AdamW", ADAMW),
    ("from torch.optim import AdamW as A", ADAMW),
    ("from torch.optim import *\no = AdamW(p)", ADAMW),
    ("import torch\nclass Mine(torch.optim.AdamW):\n    pass", ADAMW),
    ("import torch\no = getattr(torch.optim, 'AdamW')(p)", ADAMW),
    ("import torch\no = getattr(torch.optim, 'Adam' + 'W')(p)", ADAMW),
    ("import torch\nw = 'W'\no = getattr(torch.optim, f'Adam{w}')(p)", ADAMW),
    ("import torch\nname = 'AdamW'\no = getattr(getattr(torch, 'optim'), name)(p)", ADAMW),
    ("import torch\no = vars(torch.optim)['AdamW'](p)", ADAMW),
    ("import torch\no = torch.optim.__dict__['AdamW'](p)", ADAMW),
    ("import sys\no = sys.modules['torch'].optim.AdamW(p)", ADAMW),
    ("import torch\nlib = torch.optim\nkind = lib.AdamW\nmake = kind", ADAMW),
    ("import torch\nif (lib := torch.optim):\n    lib.AdamW(p)", ADAMW),
    ("import torch\na, b = 1, torch.optim\nb.AdamW(p)", ADAMW),
    ("import torch\nlib: object = torch.optim\nlib.AdamW(p)", ADAMW),
    ("import torch\no = (torch.optim if fast else None).AdamW", ADAMW),
    ("import torch\no = (None or torch.optim).AdamW", ADAMW),
    ("import torch\nclass M:\n    def f(self):\n        self.lib = torch.optim\n        self.lib.AdamW(p)", ADAMW),
    ("import importlib\no = importlib.import_module('torch.optim').AdamW(p)", ADAMW),
    ("from importlib import import_module as load\no = load('torch').optim.AdamW(p)", ADAMW),
    ("o = __import__('torch').optim.AdamW(p)", ADAMW),
    ("import pkgutil\no = pkgutil.resolve_name('torch.optim:AdamW')", ADAMW),
    ("import operator, torch\no = operator.attrgetter('AdamW')(torch.optim)", ADAMW),
    ("def f():\n    from torch.optim import AdamW\n    return AdamW", ADAMW),
    ("import torch\ntry:\n    make = torch.optim.AdamW\nexcept AttributeError:\n    make = None", ADAMW),
    ("import torch.nn.functional as F\ny = F.scaled_dot_product_attention(q, k, v)", SDPA),
    ("from torch.nn import functional\ny = functional.scaled_dot_product_attention(q, k, v)", SDPA),
    ("from torch import nn\ny = nn.functional.scaled_dot_product_attention(q, k, v)", SDPA),
    ("import torch.nn.functional as F\nattend = F.scaled_dot_product_attention", SDPA),
    ("import torch\nnorm = torch.nn.RMSNorm(8)", RMS),
    ("from torch.nn import RMSNorm as Norm", RMS),
    ("import torch.nn as nn\nclass Norm(nn.RMSNorm):\n    pass", RMS),
    ("import torch.nn.functional as F\ny = F.rms_norm(x, (8,))", F_RMS),
    ("import torch\ny = torch.rms_norm(x, (8,))", "uses torch.rms_norm: RMSNorm is to be written"),
    ("import torch\ny = torch.ops.aten._fused_rms_norm(x)", "uses torch.ops.aten._fused_rms_norm: RMSNorm is to"),
    ("import transformers", TRANSFORMERS),
    ("import transformers.models.llama as m", TRANSFORMERS),
    ("from transformers import LlamaModel", TRANSFORMERS),
    ("from transformers.models.llama.modeling_llama import LlamaRMSNorm", TRANSFORMERS),
    ("import importlib\nm = importlib.import_module('transformers')", TRANSFORMERS),
    ("import importlib\nm = importlib.import_module(name='trans' 'formers')", TRANSFORMERS),
    ("m = __import__('transformers.models')", TRANSFORMERS),
    ("try:\n    import transformers\nexcept ImportError:\n    pass", TRANSFORMERS),
    ("import os\nos.system('pip install transformers')", "uses os.system: a submission starts no programs"),
    ("from os import system\nsystem('ls')", "uses os.system: a submission starts no programs"),
    ("import ctypes", "uses ctypes: a submission reaches for no memory"),
]


@pytest.mark.parametrize(("source", "what"), SPELLINGS, ids=[source.replace("\n", "; ") for source, _ in SPELLINGS])
def test_each_spelling_of_a_forbidden_name_is_one_flag(source: str, what: str) -> None:
    flags = flagged(source)
    assert len(flags) == 1
    assert flags[0].startswith(what)


@pytest.mark.parametrize(
    "source",
    [
        "from optimizer import AdamW\no = AdamW(p)",  # the student's own
        "class AdamW:\n    pass\no = AdamW(p)",
        "from torch.optim import *\nclass AdamW(Optimizer):\n    pass\no = AdamW(p)",
        "from torch.optim import Optimizer\nimport torch\ns = torch.optim.lr_scheduler.StepLR(o, 1)",
        "import torch.nn.functional as F\ny = F.softmax(F.silu(x), -1)",
        "class M:\n    def f(self):\n        return self.rms_norm(self.AdamW)",
        "import torch\nx = 'torch.optim.AdamW'  # torch.optim.AdamW",
        "import os\nos.system_like = 1",
        "getattr(torch.optim, 'AdamW')",  # nobody imported torch: it is a name of its own
        "x = f(g)(h)['k'].m\nx[0] = y = {}",
    ],
)
def test_what_only_looks_forbidden_is_no_finding(source: str) -> None:
    assert findings(source) == []


def test_a_flag_names_file_line_and_reason_and_the_other_lines() -> None:
    source = "import torch\n\n" + "a = torch.optim.AdamW\n" * 9
    (finding,) = findings(source)
    assert (finding.stage, finding.severity, finding.file, finding.line) == ("static", "flag", "lora.py", 3)
    # `a` is what was assigned to it, but only where it is used: here nowhere
    assert finding.what == f"{ADAMW} (also lines 4, 5, 6, 7, 8, 9 and 2 more)"
    assert "a person decides" in finding.mend


def test_a_use_through_an_alias_is_found_where_it_happens() -> None:
    (finding,) = findings("from torch.optim import AdamW as A\n\n\no = A(p)\n")
    assert finding.line == 1
    assert finding.what.endswith("(also line 4)")


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import torch\nf = getattr(torch.optim, input())", "takes a name from torch.optim that is made while it runs"),
        ("import importlib\nimportlib.import_module(name())", "imports a module whose name is made while it runs"),
        ("__import__(''.join(x))", "imports a module whose name is made while it runs"),
        ("eval('torch' + '.optim')", "runs code that is given as text"),
        ("import builtins\nbuiltins.exec(x)", "runs code that is given as text"),
    ],
)
def test_what_cannot_be_told_without_running_it_is_a_note(source: str, what: str) -> None:
    (finding,) = findings(source)
    assert (finding.severity, finding.what) == ("note", what)


@pytest.mark.parametrize(
    "source", ["model.eval()", "import torch\nt = torch.compile(m)", "import re\nre.compile('x')", "getattr(x, name)"]
)
def test_ordinary_calls_of_such_names_are_no_notes(source: str) -> None:
    assert findings(source) == []


# --- Imports ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "import torch.nn as nn",
        "import numpy as np, tqdm",
        "import json, urllib.request, subprocess",  # the standard library, unless the edition forbids it
        "import mine",
        "from llama import Llama",  # given by the hand-out, whether handed in or not
        "from sentiment_data import collate",
        "from . import other",
        "from __future__ import annotations",
    ],
)
def test_libraries_of_the_course_and_own_files_may_be_imported(source: str) -> None:
    assert findings(source, mine="x = 1\n") == []


@pytest.mark.parametrize(
    "source",
    [
        "import einops",
        "import einops.layers.torch as e",
        "from einops import rearrange",
        "def f():\n    import einops",
        "import importlib\nimportlib.import_module('einops.layers')",
        "__import__('einops')",
    ],
)
def test_other_libraries_are_a_flag_each(source: str) -> None:
    (finding,) = findings(source)
    assert (finding.severity, finding.what) == ("flag", "imports einops, which the course does not install")
    assert finding.mend == "use the standard library, numpy, torch, tqdm and files of your own"


def test_a_file_that_shadows_a_library_makes_that_library_no_file_of_ones_own() -> None:
    found = findings("import einops", einops="x = 1\n", rules=StaticRules(imports=()))
    assert found == []  # einops.py is an ordinary file: nothing of that name is installed
    found = analyse({"lora.py": b"import einops", "einops.py": b"x = 1\n"}, RULES, modules=["einops"])
    assert [(finding.file, finding.what.split(",")[0]) for finding in found] == [
        ("einops.py", "it has the name of a library"),
        ("lora.py", "imports einops"),
    ]


# --- Shadowing --------------------------------------------------------------------------------------------------------


def test_names_that_shadow_are_libraries_the_standard_library_and_hooks() -> None:
    shadows = {
        *("torch.py", "numpy.py", "json.py", "sitecustomize.py", "usercustomize.py", "conftest.py", "x.pth"),
        *("torch.so", "torch.cpython-311-x86_64-linux-gnu.so", "torch.pyc", "random.pyd"),
    }
    harmless = {"llama.py", "lora.py", "torch.txt", "torch.json", "Torch.py", "test.py", "torch.py.txt", "torchy.py"}
    assert shadowing(shadows | harmless, ["torch", "numpy"]) == shadows
    assert shadowing(["torch.py", "json.py"], []) == {"json.py"}


def test_each_file_that_shadows_is_a_flag() -> None:
    (finding,) = findings("x = 1\n", name="torch.py")
    assert (finding.severity, finding.file) == ("flag", "torch.py")
    assert finding.what == "it has the name of a library, or of a file that Python loads by itself: it is left out"


# --- The master -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "editions").glob("*.toml")), ids=lambda path: path.stem)
def test_the_master_has_no_findings_under_an_edition(path: Path) -> None:
    static = Static.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))["static"])
    forbidden = tuple((name, entry.why) for entry in static.forbidden for name in entry.names)
    rules = StaticRules(static.imports, forbidden)
    master = {path.name: path.read_bytes() for path in ROOT.glob("*.py")}
    assert analyse(master, rules) == []
    changed = {name: data + b"\nX = 1\n" for name, data in master.items()}  # so that they are looked at
    assert analyse(changed, rules) == []
    own = {f"my_{name}": master[name] for name in ("llama.py", "rope.py", "optimizer.py", "classifier.py")}
    assert analyse(own, rules) == []  # without the excuse that the master does it too


def test_what_the_master_does_in_the_same_file_is_no_finding() -> None:
    rules = StaticRules(imports=("torch",), forbidden=(("torch.optim.Optimizer", "no"),))
    source = (ROOT / "optimizer.py").read_text() + "\nX = 1\n"
    assert findings(source, name="optimizer.py", rules=rules) == []
    assert len(findings(source, name="my_optimizer.py", rules=rules)) == 1


def test_a_given_file_is_not_looked_at_and_a_changed_one_is() -> None:
    source = (ROOT / "utils.py").read_text()
    strict = StaticRules(imports=())
    assert findings(source, name="utils.py", rules=strict) == []
    assert findings(source.replace("\n", "\r\n"), name="utils.py", rules=strict) == []
    (finding,) = findings(source + "import einops\n", name="utils.py", rules=strict)
    assert finding.line == source.count("\n") + 1


# --- Hostile source ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "x = " + "-" * 100_000 + "1",
        "x = " + "(" * 150 + ")" * 150,
        "x = a" + ".b" * 100_000,
        "x = 1" + " + 1" * 60_000,
        "x = " + "lambda: " * 20_000 + "1",
        "x = f" + "()" * 50_000,
        "x = f" + "[0]" * 50_000,
    ],
    ids=["minus", "brackets", "attributes", "sum", "lambda", "calls", "subscripts"],
)
def test_deeply_nested_source_does_not_end_in_a_traceback(source: str) -> None:
    for finding in findings("import torch\n" + source):
        assert finding.severity == "flag"
        assert "too deeply nested to be looked into" in finding.what


def test_source_that_is_too_deep_for_python_is_a_flag() -> None:
    (finding,) = findings("x = " + "-" * 100_000 + "1")
    assert finding.what.startswith("it is too deeply nested to be looked into")


def test_source_above_the_limit_is_a_flag() -> None:
    (finding,) = findings("x = 1\n" * 100_000)
    assert finding.what == "it is too long to be looked into"


@pytest.mark.parametrize("data", [b"def f(:\n", b"a\0b", b"# coding: none\n", b"\xff\xfe"])
def test_what_is_no_python_is_left_to_the_format_stage(data: bytes) -> None:
    assert analyse({"lora.py": data}, RULES) == []


def test_a_file_has_a_limited_number_of_findings() -> None:
    found = findings("".join(f"import library{n}\n" for n in range(5000)))
    assert len(found) == 41
    assert found[-1].what == "4960 more findings are not listed"


def test_names_in_findings_are_safe_to_print() -> None:
    (finding,) = findings("__import__('\\x1b[2J\\ud800')")
    assert finding.what.isascii()
    assert finding.what.isprintable()


def test_aliases_of_aliases_of_themselves_end() -> None:
    lines = ["import torch as a0"] + [f"a{n} = a{n}.x = a{n - 1}.y = a{(n * 7) % 300}" for n in range(1, 300)]
    assert findings("\n".join(lines)) == []


# --- The options of run_llama.py --------------------------------------------------------------------------------------

MASTER = (ROOT / "run_llama.py").read_text(encoding="utf-8")
ORIGINAL_STYLE = "import argparse\ndef get_args():\n\tparser = argparse.ArgumentParser()\n" + "".join(
    f"\tparser.add_argument({flag!r}, action='store_true')\n"
    if flag == "--use_gpu"
    else f"\tparser.add_argument({flag!r}, type={type(values[0]).__name__}, default={values[0]!r})\n"
    if values[0] is not None
    else f"\tparser.add_argument({flag!r}, type=int)\n"
    for flag, values in CONTRACT.items()
)
END = "\targs = parser.parse_args()\n\treturn args\n"


def options(source: str) -> list[tuple[str, str]]:
    """Return severity and text of the findings in a `run_llama.py`."""
    found = changed_options("run_llama.py", ast.parse(source), ast.parse(MASTER))
    assert all(finding.file == "run_llama.py" and finding.line > 0 and finding.mend for finding in found)
    return [(finding.severity, finding.what) for finding in found]


def replaced(old: str, new: str, source: str = MASTER) -> str:
    """Return the source with one place changed."""
    assert source.count(old) == 1
    return source.replace(old, new)


def test_the_master_and_the_original_keep_the_options() -> None:
    assert options(MASTER) == []
    assert options(ORIGINAL_STYLE + END) == []


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("default=2e-5", "default=1e-3", "the default of --lr is 0.001, not 2e-05"),
        ("default=2e-5, help", "help", "the default of --lr is None, not 2e-05"),
        ("default=2e-5", "default=-2e-5", "the default of --lr is -2e-05, not 2e-05"),
        ("default=2e-5", "default='fast'", "the default of --lr is fast, not 2e-05"),
        ("default=1337", "default=0x" + "f" * 5000, "the default of --seed is a huge number, not 1337"),
        ('default="generate"', 'default="prompt"', "the default of --option is prompt, not generate"),
        (
            'add("--use_gpu", action="store_true"',
            'add("--use_gpu", action="store_false"',
            "the default of --use_gpu is",
        ),
        ("default=MAX_NEW_TOKENS", "default=50", "the default of --max_new_tokens is 50, not 75"),
        ("MAX_NEW_TOKENS = 75", "MAX_NEW_TOKENS = 76", "the default of --max_new_tokens is 76, not 75"),
        ('"--lr", type', '"--lr", required=True, type', "--lr has become required"),
        ("    return parser\n", '    add("--rank", required=True)\n    return parser\n', "--rank is new, and required"),
        ("    return parser\n", '    add("where")\n    return parser\n', "where is new, and required"),
        ("    return parser\n", '    add("where", nargs="+")\n    return parser\n', "where is new, and required"),
        ("    return parser\n", "    parser.set_defaults(lr=1.0)\n    return parser\n", "the default of --lr is 1.0"),
        (
            "    return parser\n",
            "    g = parser.add_mutually_exclusive_group(required=True)\n    return parser\n",
            "one of a group of new options is required",
        ),
        (
            "        check_options(args)\n",
            "        args.epochs = 10\n",
            "sets args.epochs to 10, whatever was asked for",
        ),
        ('    add("--lr", type=positive, default=2e-5, help="learning rate")\n', "", "--lr is gone"),
    ],
)
def test_each_change_of_an_option_is_one_flag(old: str, new: str, what: str) -> None:
    ((severity, text),) = options(replaced(old, new))
    assert severity == "flag"
    assert text.startswith(what)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("\tparser.add_argument('--rank', type=int, required=True)\n", "--rank is new, and required"),
        ("\tparser.set_defaults(**{'lr': 1})\n", None),
        ("\tparser.add_argument('-r', '--rank', type=int, default=compute())\n", None),
        ("\tparser.add_argument('where', nargs='?')\n", None),
        ("\tparser.add_argument('--flag', action=argparse.BooleanOptionalAction, default=True)\n", None),
    ],
)
def test_own_options_may_be_added_if_they_have_a_default(line: str, what: str | None) -> None:
    assert options(ORIGINAL_STYLE + line + END) == ([("flag", what)] if what else [])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("default=2e-05", "default=0.00002"),
        ("default=2e-05", "default='2e-5'"),
        ("default=8)", "default=8.0)"),
        ("default='data/cfimdb-dev.txt'", "default=Path('data/cfimdb-dev.txt')"),
        ("action='store_true'", "action='store_true', default=False"),
        ("'--lr', type", "'-l', '--lr', type"),
        ("default='stories42M.pt'", "default=None"),
    ],
)
def test_other_spellings_of_a_default_are_right(old: str, new: str) -> None:
    assert options(replaced(old, new, ORIGINAL_STYLE) + END) == []


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("default=2e-05", "default=2 * 1e-5", "the default of --lr cannot be told from the source: 2 * 1e-05"),
        ("default=2e-05", "default=LR", "the default of --lr cannot be told from the source: LR"),
        ("'--lr', type=float, default=2e-05", "*lr_option()", "adds an option that cannot be told from the source"),
        ("type=float, default=2e-05", "**words", "adds an option that cannot be told from the source"),
        ("type=float, default=2e-05", "default=2e-5, required=STRICT", "whether --lr is required cannot be told"),
    ],
)
def test_what_cannot_be_told_of_an_option_is_a_note(old: str, new: str, what: str) -> None:
    ((severity, text),) = options(replaced(old, new, ORIGINAL_STYLE) + END)
    assert severity == "note"
    assert text.startswith(what)


def test_a_program_without_options_is_a_note() -> None:
    ((severity, text),) = options("import click\n")
    assert severity == "note"
    assert text.startswith("its options cannot be told from its source")


def test_changed_options_are_part_of_the_analysis() -> None:
    (finding,) = findings(replaced("default=2e-5", "default=1e-3"), name="run_llama.py", rules=StaticRules(()))
    assert finding.line == MASTER[: MASTER.index("default=2e-5")].count("\n") + 1
    (other,) = findings(replaced("default=2e-5", "default=1e-3"), name="other.py")
    assert "inference" in other.what  # the folder behind --fast, which is no part of the hand-out: no word of options
