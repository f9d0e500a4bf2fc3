"""Every bug of `mutations/bugs.py` is one: it stays in its region, and the code then answers otherwise or raises.

The changed files are run under names of their own, so that no test's `llama` is replaced.
"""

import ast
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from autograder.mutations.bugs import BY_NAME, MUTATIONS, WHOLE, Mutation, apply_all, mutated
from config import ClassifierConfig
from errors import MinLlamaError
from submission_rules import FILES
from tests.tiny import WordTokenizer, padded, random_llama, random_tokens, save_llama, tiny_config

ROOT = Path(__file__).resolve().parent.parent
ROWS = ((5, 6, 7), (8, 9, 10, 11, 12, 13), (14,), (15, 16))
# `very` begins two labels, and the ids do not stand in the order of the labels.
LABEL_NAMES = ["very good", "bad", "very bad", "not so bad"]

Outputs = dict[str, torch.Tensor]
every_mutation = pytest.mark.parametrize("name", BY_NAME)


def module_of(text: str, file: str) -> ModuleType:
    """Run the text of a file as a module that nothing else imports."""
    module = ModuleType(f"changed_{file.removesuffix('.py')}")
    exec(compile(text, f"changed/{file}", "exec"), module.__dict__)
    return module


def draw(*shape: int, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def randomise(module: torch.nn.Module) -> None:
    """Give all parameters values that are large enough for every part to be seen."""
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters()):
            parameter.copy_((parameter.dim() == 1) + 0.3 * draw(*parameter.shape, seed=seed))


# --------------------------------------------------------------------- what each region does, on inputs drawn at random


def rmsnorm(llama: ModuleType, folder: Path) -> Outputs:
    norm = llama.RMSNorm(8, eps=1e-3)
    randomise(norm)
    x = draw(2, 5, 8, scale=0.1)
    x[0, 0] = 0.0
    return {"normalised": norm._norm(x), "forward": norm(x), "x afterwards": x}


def rope(rope: ModuleType, folder: Path) -> Outputs:
    query, key = draw(2, 5, 4, 8), draw(2, 5, 2, 8, seed=1)
    rotated = rope.apply_rotary_emb(query, key, head_dim=8, max_seq_len=16, theta=500.0)
    return {"query": rotated[0], "key": rotated[1], "query afterwards": query, "key afterwards": key}


def attention(llama: ModuleType, folder: Path) -> Outputs:
    outputs = {}
    for causal in (True, False):
        mixer = llama.Attention(tiny_config(causal=causal, dropout=0.5))
        for bias in (None, draw(4, 5, 5, seed=3)):
            mixer.attention_bias = bias
            for training in (True, False):
                torch.manual_seed(0)
                inputs = [draw(2, 4, 5, 8, seed=seed) for seed in range(3)]
                mixed = mixer.train(training).compute_query_key_value_scores(*inputs)
                outputs[f"causal={causal}, bias={bias is not None}, training={training}"] = mixed
    return outputs


def gqa(llama: ModuleType, folder: Path) -> Outputs:
    mixer = llama.Attention(tiny_config(dim=48, n_heads=6, n_kv_heads=2)).eval()
    randomise(mixer)
    return {"output": mixer(draw(2, 5, 48))}


def layer(llama: ModuleType, folder: Path) -> Outputs:
    one = llama.LlamaLayer(0, tiny_config()).eval()
    randomise(one)
    x = draw(2, 5, 32)
    with torch.no_grad():
        return {"output": one(x), "x afterwards": x}


def generate(llama: ModuleType, folder: Path) -> Outputs:
    model = llama.Llama(tiny_config())
    model.load_state_dict(random_llama().state_dict())
    outputs = {}
    for temperature in (0.0, 0.4):
        torch.manual_seed(0)
        outputs[f"temperature {temperature}"] = model.generate(random_tokens(3, 4), 8, temperature=temperature)
    return outputs


def adamw(optimizer: ModuleType, folder: Path) -> Outputs:
    parameters = [torch.nn.Parameter(draw(4, seed=seed)) for seed in range(4)]
    groups: list[dict[str, Any]] = [
        {"params": parameters[:2], "weight_decay": 0.5},
        {"params": parameters[2:], "lr": 0.02, "betas": (0.7, 0.8), "correct_bias": False},
    ]
    stepper = optimizer.AdamW(groups, lr=0.1)
    for step in range(4):
        for seed, parameter in enumerate(parameters):
            # gradients of the size of eps show where it stands; one that is zero, that it is there
            parameter.grad = draw(4, seed=10 * step + seed) * torch.tensor([1.0, 1e-2, 1e-6, 1e-4])
        stepper.step()
    return {f"parameter {i}": parameter.detach() for i, parameter in enumerate(parameters)}


def embedding_head(classifier: ModuleType, folder: Path) -> Outputs:
    weights = save_llama(folder / "weights.pt", random_llama())
    torch.manual_seed(0)
    model = classifier.LlamaEmbeddingClassifier(ClassifierConfig(3, str(weights), hidden_dropout_prob=0.5))
    outputs = {"in training": model.train()(padded(ROWS)), "in evaluation": model.eval()(padded(ROWS, width=8))}
    F.nll_loss(model(padded(ROWS)), torch.tensor([0, 1, 2, 0])).backward()  # type: ignore[no-untyped-call]
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: out.detach() for name, out in outputs.items()} | gradients


def zero_shot_head(classifier: ModuleType, folder: Path) -> Outputs:
    weights = save_llama(folder / "weights.pt", random_llama())
    config = ClassifierConfig(len(LABEL_NAMES), str(weights))
    model = classifier.LlamaZeroShotClassifier(config, WordTokenizer(), LABEL_NAMES)
    return {"log-likelihoods": model(padded(ROWS))}


PROBES: dict[str, Callable[[ModuleType, Path], Outputs]] = {
    probe.__name__: probe
    for probe in (rmsnorm, rope, attention, gqa, layer, generate, adamw, embedding_head, zero_shot_head)
}


def outputs_of(region: str, text: str, folder: Path) -> Outputs:
    """Return what a region's function gives in a file with this text."""
    torch.manual_seed(0)
    return PROBES[region](module_of(text, FILES[region]), folder)


def differs(one: Outputs, other: Outputs) -> bool:
    """Say whether two results differ by more than the tolerances of the checks."""
    if one.keys() != other.keys():
        return True
    for name, expected in one.items():
        found = other[name]
        if not isinstance(found, torch.Tensor) or found.shape != expected.shape or found.dtype != expected.dtype:
            return True
        if not torch.allclose(found, expected, atol=1e-5, rtol=1e-3):
            return True
    return False


@pytest.fixture(scope="module")
def masters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outputs]:
    """Return what each region of the master gives."""
    folder = tmp_path_factory.mktemp("master")
    return {region: outputs_of(region, read(file), folder) for region, file in FILES.items()}


def read(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


def around(text: str, region: str) -> tuple[str, str, str]:
    """Cut a file into what stands before a region, in it, and behind it."""
    before, begin, rest = text.partition(f"### BEGIN SOLUTION {region}\n")
    inside, end, behind = rest.partition("### END SOLUTION")
    assert begin and end
    return before, inside.rstrip(" "), behind


# --------------------------------------------------------------------------------------------------------- every bug


@every_mutation
def test_a_mutation_parses_and_changes_nothing_outside_its_region(name: str) -> None:
    mutation = BY_NAME[name]
    (file, text), *others = mutated(ROOT, mutation).items()
    assert file == FILES[mutation.region]
    assert not others
    ast.parse(text)
    before, inside, behind = around(text, mutation.region)
    master_before, master_inside, master_behind = around(read(file), mutation.region)
    assert (before, behind) == (master_before, master_behind)
    assert inside != master_inside
    assert not any(line != line.rstrip() for line in text.splitlines())


@every_mutation
def test_a_mutation_changes_what_the_code_does(name: str, masters: dict[str, Outputs], tmp_path: Path) -> None:
    region = BY_NAME[name].region
    text = mutated(ROOT, BY_NAME[name])[FILES[region]]
    try:
        outputs = outputs_of(region, text, tmp_path)
    except Warning:
        raise  # it is an error only under the tests' own filter
    except Exception as error:
        assert not isinstance(error, MinLlamaError), "the bug did not even run"
        return
    assert differs(masters[region], outputs)


@pytest.mark.parametrize("region", PROBES)
def test_the_master_itself_does_not_differ_from_run_to_run(
    region: str, masters: dict[str, Outputs], tmp_path: Path
) -> None:
    assert not differs(masters[region], outputs_of(region, read(FILES[region]), tmp_path))
    assert masters[region]


def test_there_are_many_of_each_kind() -> None:
    counts = Counter(mutation.region for mutation in MUTATIONS)
    assert counts.keys() == FILES.keys()
    assert min(counts.values()) >= 6
    assert len(MUTATIONS) >= 70


def test_every_mutation_has_a_name_of_its_own_and_a_phrase_that_says_what_is_wrong() -> None:
    assert len(BY_NAME) == len(MUTATIONS)
    edits = {(mutation.region, mutation.old, mutation.new) for mutation in MUTATIONS}
    assert len(edits) == len(MUTATIONS)
    for mutation in MUTATIONS:
        assert re.fullmatch(r"\S.{15,98}[^\s.]", mutation.what)
        assert mutation.name not in (other.what for other in MUTATIONS)


# ----------------------------------------------------------------------------------------------------- the machinery


def test_bugs_of_different_regions_go_together() -> None:
    chosen = [
        next(mutation for mutation in MUTATIONS if mutation.region == region)
        for region in ("gqa", "rmsnorm", "rope", "zero_shot_head", "embedding_head")
    ]
    files = apply_all(ROOT, chosen)
    assert sorted(files) == ["classifier.py", "llama.py", "rope.py"]
    for mutation in chosen:
        alone = mutated(ROOT, mutation)[FILES[mutation.region]]
        assert around(files[FILES[mutation.region]], mutation.region)[1] == around(alone, mutation.region)[1]


def test_no_bug_changes_no_file() -> None:
    assert apply_all(ROOT, ()) == {}


def test_two_bugs_in_one_region_are_an_error_that_names_both() -> None:
    with pytest.raises(MinLlamaError, match="'eps is left out' and 'no keepdim' both change the region rmsnorm"):
        apply_all(ROOT, (BY_NAME["rmsnorm: eps is left out"], BY_NAME["rmsnorm: no keepdim"]))


@pytest.mark.parametrize(("old", "times"), [("self.rms_eps", 0), ("x", 2)])
def test_a_snippet_that_does_not_stand_there_exactly_once_is_an_error(old: str, times: int) -> None:
    mutation = Mutation("lost", "rmsnorm", "a bug that fits another master", old, "y")
    with pytest.raises(MinLlamaError, match=rf"llama.py: .*'lost' looks for `{old}` .* stands {times} times"):
        mutated(ROOT, mutation)


def test_a_region_that_is_gone_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "rope.py").write_text("def apply_rotary_emb(): ...\n", encoding="utf-8")
    mutation = next(mutation for mutation in MUTATIONS if mutation.region == "rope")
    with pytest.raises(MinLlamaError, match=r"rope\.py:1: the file ends without the region 'rope'"):
        mutated(tmp_path, mutation)


def test_a_whole_region_is_replaced_at_its_own_indentation() -> None:
    mutation = replace(BY_NAME["rmsnorm: no keepdim"], old=WHOLE, new="\nif True:\n    return x\n")
    _, inside, _ = around(mutated(ROOT, mutation)["llama.py"], "rmsnorm")
    assert inside == "        if True:\n            return x\n"
