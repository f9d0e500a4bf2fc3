"""Editions: every file in editions/ is valid, and a mistake in one is named with its file and key."""

from pathlib import Path

import pytest

from autograder.checks.hidden import CHECKS, Course, checks_for
from autograder.editions import EDITIONS, Edition, read_edition
from autograder.isolation.environment import build_environment
from autograder.options import DEFAULT_EDITION
from errors import UsageError
from submission_rules import FILES, SUBMISSION

NAMES = sorted(path.stem for path in EDITIONS.glob("*.toml"))
MINIMAL = (EDITIONS / "minllama.toml").read_text(encoding="utf-8")


def test_the_default_edition_is_there() -> None:
    assert DEFAULT_EDITION in NAMES
    assert {"minllama", "nlp244"} <= set(NAMES)


@pytest.fixture(params=NAMES)
def edition(request: pytest.FixtureRequest) -> Edition:
    return read_edition(request.param)


def test_edition_has_the_name_of_its_file(edition: Edition) -> None:
    assert read_edition(str(EDITIONS / f"{edition.name}.toml")) == edition


def test_every_check_of_an_edition_exists_and_has_points(edition: Edition) -> None:
    known = {check.name for check in checks_for(Course(edition.causal))}
    named = [entry.name for entry in edition.checks.run]
    assert set(named) <= known
    assert len(named) == len(set(named))
    assert sum(entry.points for entry in edition.checks.run) == 100
    assert {name for names in edition.checks.decided_by.values() for name in names} <= set(named)


def test_every_check_is_of_some_edition() -> None:
    named = {entry.name for name in NAMES for entry in read_edition(name).checks.run}
    assert {check.name for check in CHECKS} == named


def test_what_may_be_imported_can_be_imported(edition: Edition) -> None:
    assert set(edition.static.imports) <= build_environment(edition.environment).modules


def test_every_open_region_has_a_check_with_points(edition: Edition) -> None:
    regions = {check.name: check.regions for check in checks_for(Course(edition.causal))}
    graded = {region for entry in edition.checks.run if entry.points for region in regions[entry.name]}
    assert set(edition.handout.open) <= graded


def test_references_and_margins_are_of_files_that_exist(edition: Edition) -> None:
    outputs = {output.name for output in SUBMISSION.outputs}
    assert set(edition.margins) <= outputs
    for reference in edition.references:
        assert set(reference.accuracies) <= outputs
        lacking = set(edition.margins) - set(reference.accuracies)
        assert not lacking or "is not measured" in reference.source, f"{reference.checkpoint} lacks {lacking}"
    assert edition.reference(edition.checkpoint)


def test_published_numbers_are_those_of_the_course() -> None:
    course = read_edition("nlp244")
    reference = course.reference("stories42M")
    assert reference
    assert reference.accuracies == {
        "sst-dev-prompting-output.txt": 0.213,
        "sst-test-prompting-output.txt": 0.224,
        "cfimdb-dev-prompting-output.txt": 0.498,
        "sst-dev-finetuning-output.txt": 0.414,
        "sst-test-finetuning-output.txt": 0.418,
        "cfimdb-dev-finetuning-output.txt": 0.800,
    }
    assert {margin for name, margin in course.margins.items() if name.startswith("sst")} == {0.05}
    assert {margin for name, margin in course.margins.items() if name.startswith("cfimdb-dev")} == {0.15}
    assert not course.causal
    assert set(FILES) - set(course.handout.open) == {"gqa", "zero_shot_head"}


def test_rules_are_those_of_the_submission_with_the_editions_own(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(MINIMAL.replace("[files]", '[files]\nmax_bytes = 5\nexpected = ["notes.md"]'), encoding="utf-8")
    rules = read_edition(str(file)).rules()
    assert (rules.max_bytes, rules.expected, rules.required) == (5, ("notes.md",), SUBMISSION.required)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name = ", "is no TOML"),
        (f"pints = 3\n{MINIMAL}", "pints: Extra inputs are not permitted"),
        (MINIMAL.replace("[handout]", "[handout]\ncolour = 1"), "handout.colour: Extra inputs are not permitted"),
        (MINIMAL.replace('"rmsnorm"', '"rmsnrm"'), "handout: Value error, no solution region is called rmsnrm"),
        (MINIMAL.replace("causal = true", 'causal = "perhaps"'), "causal: Input should be a valid boolean"),
        ("\n".join(line for line in MINIMAL.splitlines() if not line.startswith("title")), "title: Field required"),
    ],
)
def test_a_mistake_is_named_with_file_and_key(text: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "course.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_edition(str(file))
    assert str(caught.value).startswith(str(file))
    assert complaint in str(caught.value)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "course.toml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is no TOML"):
        read_edition(str(file))


@pytest.mark.parametrize("name", ["nlp243", "../secret", "nowhere.toml", ""])
def test_an_unknown_edition_is_an_error_that_lists_the_known(name: str) -> None:
    with pytest.raises(UsageError, match="choose from minllama, nlp244"):
        read_edition(name)


def test_an_edition_that_extends_another_says_only_what_differs(tmp_path: Path) -> None:
    file = tmp_path / "course.toml"
    text = 'extends = "minllama"\nname = "course"\n[margins]\n"sst-dev-finetuning-output.txt" = 0.2\n'
    file.write_text(text, encoding="utf-8")
    ours, course = read_edition("minllama"), read_edition(str(file))
    assert (course.name, course.title) == ("course", ours.title)
    assert course.margins == ours.margins | {"sst-dev-finetuning-output.txt": 0.2}
    assert course.checks == ours.checks


def test_an_edition_that_extends_nothing_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "course.toml"
    for name in ("nowhere", "course"):
        file.write_text(f'extends = "{name}"\n', encoding="utf-8")
        with pytest.raises(UsageError, match=f"course.toml: extends: no edition is called '{name}'"):
            read_edition(str(file))


def test_lateness_costs_nothing_unless_an_edition_says_so(edition: Edition) -> None:
    assert not edition.late.costs


@pytest.mark.parametrize("name", ["minllama", "nlp244"])
def test_the_example_of_a_late_policy_is_one(name: str, tmp_path: Path) -> None:
    lines = (EDITIONS / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    start = lines.index("# [late]")
    example = [line.removeprefix("# ") for line in lines[start : start + 5]]
    file = tmp_path / "course.toml"
    file.write_text("\n".join([f'extends = "{name}"', *example]), encoding="utf-8")
    late = read_edition(str(file)).late
    assert (late.grace_days, late.kind, late.a_day, late.max_days) == (0.5, "thirds", 1, 5)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('kind = "thirds"\na_day = 0.5', "late: Value error, a_day is 0.5: a letter goes down by whole thirds"),
        ("a_day = 101", "late.a_day: Input should be less than or equal to 100"),
        ("grace_days = -1", "late.grace_days: Input should be greater than or equal to 0"),
        ("max_day = 1", "late.max_day: Extra inputs are not permitted"),
    ],
)
def test_a_mistake_in_a_late_policy_is_named(line: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "course.toml"
    file.write_text(f'extends = "minllama"\n[late]\n{line}\n', encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_edition(str(file))
    assert str(caught.value) == f"{file}: {complaint}"
