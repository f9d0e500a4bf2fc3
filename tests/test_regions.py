"""The regions of the solution master: found, closed, and told with file and line when they are broken."""

import ast
from pathlib import Path

import pytest

from autograder.handout.regions import Region, close_regions, read_regions, secret_lines, survivors
from errors import HandoutError
from submission_rules import FILES

ROOT = Path(__file__).resolve().parent.parent
SOLUTIONS = sorted(set(FILES.values()))

ROPE = """\
def apply(x):
    \"\"\"Turn x.\"\"\"
    ### BEGIN SOLUTION rope
    angle = x + 1  # a comment

    return angle
    ### END SOLUTION
"""
CLASSIFIER = """\
class Zero:
    def forward(self, x):
        ### BEGIN SOLUTION zero_shot_head
        return x
        ### END SOLUTION


def embed(x):
\t### BEGIN SOLUTION embedding_head
\treturn x + 1
\t### END SOLUTION
"""


# --- the master ---


@pytest.mark.parametrize("file", SOLUTIONS)
def test_the_master_has_each_region_once_in_its_file(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    lines = text.splitlines()
    regions = read_regions(text, file)
    assert {region.name for region in regions} == {name for name, home in FILES.items() if home == file}
    for region in regions:
        assert lines[region.first - 1] == f"{region.indent}### BEGIN SOLUTION {region.name}"
        assert lines[region.last - 1] == f"{region.indent}### END SOLUTION"


@pytest.mark.parametrize("name", FILES)
def test_each_region_of_the_master_can_be_open_alone(name: str) -> None:
    text = (ROOT / FILES[name]).read_text(encoding="utf-8")
    (region,) = (region for region in read_regions(text, FILES[name]) if region.name == name)
    closed = close_regions(text, [name], "write it", FILES[name])
    ast.parse(closed)
    assert "SOLUTION" not in closed
    assert closed.count("raise NotImplementedError\n") == text.count("raise NotImplementedError\n") + 1
    kept = [line for line in text.splitlines() if "SOLUTION" not in line]
    assert len(closed.splitlines()) == len(kept) - (region.last - region.first - 1) + 2
    secret = secret_lines(text, [name], FILES[name])
    assert secret
    assert not survivors(closed.encode(), secret)
    assert set(survivors(text.encode(), secret)) == set(secret)


def test_other_files_have_no_regions() -> None:
    assert read_regions((ROOT / "config.py").read_text(encoding="utf-8"), "config.py") == []


# --- closing ---


def test_an_open_region_becomes_a_hint_and_an_error_with_its_indentation() -> None:
    assert read_regions(ROPE, "rope.py") == [Region("rope", 3, 7, "    ")]
    assert close_regions(ROPE, ["rope"], "turn\n  the pairs", "rope.py") == (
        'def apply(x):\n    """Turn x."""\n    # TODO (rope) turn the pairs\n    raise NotImplementedError\n'
    )


def test_a_given_region_keeps_its_code_and_loses_its_markers() -> None:
    assert close_regions(ROPE, ["layer"], "write it", "rope.py") == (
        'def apply(x):\n    """Turn x."""\n    angle = x + 1  # a comment\n\n    return angle\n'
    )


def test_one_of_two_regions_is_closed_tabs_and_all() -> None:
    closed = close_regions(CLASSIFIER, {"embedding_head"}, "write it", "classifier.py")
    assert closed == (
        "class Zero:\n    def forward(self, x):\n        return x\n\n\n"
        "def embed(x):\n\t# TODO (embedding_head) write it\n\traise NotImplementedError\n"
    )


# --- broken markers ---


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("rope.py", ROPE.replace("    ### END SOLUTION\n", ""), "rope.py:3: the region 'rope' has no end: put"),
        (
            "rope.py",
            ROPE.replace("    ### BEGIN SOLUTION rope\n", ""),
            "rope.py:6: this ends a region that was not begun: put `### BEGIN SOLUTION name` where it begins",
        ),
        (
            "classifier.py",
            CLASSIFIER.replace("        ### END SOLUTION\n", ""),
            "classifier.py:8: this begins inside the region 'zero_shot_head' of line 3: put `### END SOLUTION` where",
        ),
        (
            "rope.py",
            ROPE.replace("SOLUTION rope", "SOLUTION ropes"),
            "rope.py:3: no region is called 'ropes': choose from rmsnorm, attention, gqa, ",
        ),
        (
            "rope.py",
            ROPE + ROPE,
            "rope.py:10: the region 'rope' begins in line 3 already: join the two",
        ),
        (
            "rope.py",
            ROPE + ROPE.replace("rope", "layer"),
            "rope.py:10: the region 'layer' belongs in llama.py: move it there",
        ),
        (
            "classifier.py",
            CLASSIFIER.partition("\n\n\n")[0],
            "classifier.py:5: the file ends without the region 'embedding_head': put `### BEGIN SOLUTION emb",
        ),
        ("rope.py", "", "rope.py:1: the file ends without the region 'rope': put "),
        ("utils.py", ROPE, "utils.py:3: the region 'rope' belongs in rope.py: move it there"),
        *(
            (
                "rope.py",
                ROPE.replace(right, wrong),
                f"rope.py:{line}: this is no marker of a solution: write `### BEGIN SOLUTION name` or ",
            )
            for right, wrong, line in (
                ("### BEGIN SOLUTION rope", "## BEGIN SOLUTION rope", 3),
                ("### BEGIN SOLUTION rope", "### BEGIN SOLUTION", 3),
                ("### BEGIN SOLUTION rope", "### Begin solution rope", 3),
                ("### BEGIN SOLUTION rope", "### BEGIN SOLUTION rope, the pairs", 3),
                ("### END SOLUTION", "### END SOLUTION rope", 7),
                ("return angle\n    ### END SOLUTION", "return angle  ### END SOLUTION", 6),
            )
        ),
    ],
)
def test_broken_markers_are_told_with_file_and_line(file: str, text: str, message: str) -> None:
    with pytest.raises(HandoutError) as error:
        read_regions(text, file)
    assert str(error.value).startswith(message)
    with pytest.raises(HandoutError):
        close_regions(text, [], "write it", file)


# --- secret lines ---

SECRET = """\
def apply(query, key):
    longest = query.mean(dim=-1)[0].sum()
    ### BEGIN SOLUTION rope
    short = 1
    # a comment that is long enough to be secret
    longest = query.mean(dim=-1)[0].sum()
    turned = query * key.transpose(0, 1)  # why it is so
    exactly_25_characters = 1
    exactly_26_characters = 12
    x = 1  # short code, long comment
    total = compute_something(query,  # the first
        the_second_argument_of_it, key)
    ### END SOLUTION
    return turned
"""


def test_a_line_is_secret_if_it_is_long_and_code_and_nowhere_else() -> None:
    assert secret_lines(SECRET, ["rope"], "rope.py") == {
        "turned = query * key.transpose(0, 1) # why it is so": 7,
        "turned = query * key.transpose(0, 1)": 7,
        "exactly_26_characters = 12": 9,
        "x = 1 # short code, long comment": 10,
        "total = compute_something(query, # the first": 11,
        "total = compute_something(query,": 11,
        "the_second_argument_of_it, key)": 12,
    }


def test_nothing_of_a_given_region_is_secret() -> None:
    assert secret_lines(SECRET, ["layer", "gqa"], "rope.py") == {}


@pytest.mark.parametrize(
    "content",
    [
        "turned = query * key.transpose(0, 1)",
        "Write `turned = query * key.transpose(0, 1)`, and you are done.",
        "turned  =  query * \n\tkey.transpose(0, 1)",
        '"turned = query * key.transpose(0, 1)  # or so"',
    ],
)
def test_a_secret_line_is_found_however_it_is_laid_out(content: str) -> None:
    secret = secret_lines(SECRET, ["rope"], "rope.py")
    assert survivors(content.encode(), secret) == ["turned = query * key.transpose(0, 1)"]
    assert survivors(content.replace("turned", "t").encode(), secret) == []
