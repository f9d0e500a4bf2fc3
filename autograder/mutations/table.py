"""Where does each bug of `bugs.py` fail, and is it named? Every one of them alone, through the hidden checks.

    python -m autograder mutations -o autograder/mutations/MUTATIONS.md

It takes some seconds a bug. The inputs are drawn from a fixed seed, so the table depends on the code alone.
"""

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autograder.checks.hidden import CHECKS
from autograder.editions import Edition
from autograder.grade import seed_for
from autograder.isolation.backends import Backend
from autograder.isolation.sandbox import open_sandbox
from autograder.judge import assert_master, judge_checks
from autograder.misconceptions import MISCONCEPTIONS
from autograder.mutations.bugs import BY_NAME, Mutation, mutated
from autograder.result import CheckResult
from errors import GraderError
from utils import write_text

ROOT = Path(__file__).resolve().parents[2]
SEED = "mutations"
WITH_LINE = re.compile(r" [(]([\w.]+[.]py):[0-9]+[)]$")  # ends the message of an error in the submission's own files
MALFORMED = re.compile(r": (wrong shape|wrong dtype|expected a tensor)")  # stands in the message on such an output

# The misconceptions that were added after a look at which bugs had no name.
LEARNT_FROM_BUGS = frozenset(
    {
        "rope.query_plus_sine",
        "rope.key_plus_sine",
        "rope.query_minus_cosine",
        "rope.key_minus_cosine",
        "rope.pairs_apart",
        "rope.query_pairs_apart",
        "gqa.values_from_repeated_keys",
        "gqa.positions_repeated",
        "adamw.whole_gradient_in_m",
        "adamw.whole_gradient_in_v",
        "adamw.nothing",
        "embedding_head.every_position",
        "zero_shot_head.labels_as_rows",
        "zero_shot_head.best_label",
    }
)


@dataclass(frozen=True)
class Outcome:
    """What the checks made of one bug; all are names of checks but `named` and `said`.

    `at_home` are the component checks of the bug's region that did not pass, `beyond` the integration checks that ran
    it and did not pass either. `skipped` are those that waited for a component. `strays` do not run the region at all,
    and yet did not pass. `named` are the misconceptions that were told. `error` is the first error whose file and line
    the student reads, `malformed` the first message on an output of a wrong shape or dtype, or on none at all.
    """

    mutation: Mutation
    at_home: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    error: str = ""
    malformed: str = ""

    @property
    def failed(self) -> tuple[str, ...]:
        """The checks that ran the bug and did not pass."""
        return self.at_home + self.beyond

    @property
    def told_by(self) -> str:
        """What tells the student most: "name", "error", "malformed", or "difference", which says the least."""
        return "name" if self.named else "error" if self.error else "malformed" if self.malformed else "difference"

    @property
    def was_named_before(self) -> bool:
        """Whether a misconception names it that was there before anybody had looked at the bugs."""
        return not learnt_sentences().issuperset(self.named)

    @property
    def problems(self) -> list[str]:
        """What is not as it should be: a bug fails at a check of its region alone, and nowhere else."""
        problems = [] if self.at_home else [f"found by {', '.join(self.beyond) or 'no check'} only"]
        if self.at_home and self.beyond:
            problems.append(f"{', '.join(self.beyond)} should have been skipped")
        if self.strays:
            problems.append(f"{', '.join(self.strays)} did not pass")
        return problems


def try_mutation(mutation: Mutation, edition: Edition, backend: Backend | None, seed: str = SEED) -> Outcome:
    """Run an edition's checks on the master with one bug in it.

    Raises MinLlamaError if the sandbox cannot be used, and GraderError if a check failed by our own fault.
    """
    with tempfile.TemporaryDirectory(prefix="mutation-", ignore_cleanup_errors=True) as private:
        workspace = Path(private, "workspace")
        workspace.mkdir()
        for file in ROOT.glob("*.py"):
            shutil.copyfile(file, workspace / file.name)
        for name, text in mutated(ROOT, mutation).items():
            (workspace / name).write_text(text, encoding="utf-8")
        with open_sandbox(backend, workspace, edition.environment, edition.limits) as sandbox:
            timed = judge_checks(sandbox, edition, seed_for(seed, f"{mutation.region}: {mutation.name}"))
    return outcome_of(mutation, [entry.result for entry in timed])


def outcome_of(mutation: Mutation, results: Iterable[CheckResult]) -> Outcome:
    """Sort the results of a bug's checks. Raises GraderError if one of them failed by our own fault."""
    checks = {check.name: check for check in CHECKS}
    at_home: list[str] = []
    beyond: list[str] = []
    skipped: list[str] = []
    strays: list[str] = []
    named: dict[str, None] = {}
    messages: list[str] = []
    for result in results:
        if result.status == "grader_error":
            raise GraderError(f"{result.name}, with the bug '{mutation.name}': {result.message}")
        check = checks[result.name]
        if result.status == "pass":
            continue
        if mutation.region not in check.regions:
            strays.append(result.name)
        elif result.status == "skipped":
            skipped.append(result.name)
        else:
            (beyond if check.needs else at_home).append(result.name)
            named |= dict.fromkeys(result.misconceptions)
            messages.append(result.message)
    return Outcome(
        mutation,
        tuple(at_home),
        tuple(beyond),
        tuple(skipped),
        tuple(strays),
        named=tuple(named),
        error=next(filter(WITH_LINE.search, messages), ""),
        malformed=next(filter(MALFORMED.search, messages), ""),
    )


def learnt_sentences() -> set[str]:
    """Return the sentences of the misconceptions that were added after a look at the bugs."""
    return {entry.sentence for entry in MISCONCEPTIONS if entry.name in LEARNT_FROM_BUGS}


def render(outcomes: Sequence[Outcome], edition: str) -> str:
    """Return the figures and the table as Markdown."""
    lines = [
        "# What the hidden checks say to bugs",
        "",
        "Generated by `autograder/mutations/table.py`: each bug of `bugs.py` alone in the master, graded under the "
        f"edition {edition}.",
        "The bugs were written without looking at the list of misconceptions. Some were added later, after a look at",
        "the bugs: the share that was named before is the one to expect of mistakes that nobody thought of.",
        "",
        "| figure | |",
        "|---|---|",
        *(f"| {name} | {figure} |" for name, figure in figures(outcomes)),
        "",
        *[f"Not as it should be: {problem}." for problem in problems(outcomes)],
        *([""] if problems(outcomes) else []),
        "| part | bug | fails first at | what the student reads beyond the difference in numbers |",
        "|---|---|---|---|",
    ]
    for outcome in outcomes:
        first = next(iter(outcome.failed), "nothing")
        cells = (outcome.mutation.region, outcome.mutation.what, first, told(outcome))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def figures(outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    """Return what is counted, each figure with its name."""
    by = Counter(outcome.told_by for outcome in outcomes)
    answering = len(outcomes) - sum(bool(outcome.error) and not outcome.named for outcome in outcomes)
    total = len(outcomes)
    return [
        ("bugs", f"{total}"),
        ("caught by a component check of their own part", _share(sum(bool(one.at_home) for one in outcomes), total)),
        ("named by a misconception", _share(by["name"], total)),
        ("... of those that raise no error", _share(by["name"], answering)),
        ("told by an error with its file and line", _share(by["error"], total)),
        ("named, or told by such an error", _share(by["name"] + by["error"], total)),
        ("told by an output of a wrong shape, or by none at all", _share(by["malformed"], total)),
        ("told by the difference in numbers only", _share(by["difference"], total)),
        (
            "held out: named before any misconception was added after a look at the bugs",
            _share(sum(outcome.was_named_before for outcome in outcomes), total),
        ),
        ("component checks of other parts that did not pass", f"{sum(len(outcome.strays) for outcome in outcomes)}"),
        (
            "integration checks that were skipped, instead of failing a second time",
            f"{sum(len(outcome.skipped) for outcome in outcomes)}",
        ),
    ]


def _share(part: int, whole: int) -> str:
    """Return a number of bugs, and which share that is."""
    return f"{part} of {whole} ({part / whole if whole else 0:.0%})"


def problems(outcomes: Iterable[Outcome]) -> list[str]:
    """Return what is not as it should be, bug by bug."""
    return [f"{outcome.mutation.what}: {problem}" for outcome in outcomes for problem in outcome.problems]


def told(outcome: Outcome) -> str:
    """Return what the student is told beyond the difference in numbers; line numbers change with every edit."""
    if outcome.named:
        return "; ".join(f"this equals {sentence}" for sentence in outcome.named)
    message = WITH_LINE.sub(r" (\1)", outcome.error) or outcome.malformed
    return f"`{message.replace('`', chr(39))}`" if message else "nothing"


def run_mutations(edition: Edition, backend: Backend | None, target: Path | None, names: Sequence[str] = ()) -> int:
    """Try every bug (or those whose names in `BY_NAME` begin with one of `names`), a line each, and write the table.

    `target` is a Markdown file; without one, the table is printed. The status is 1 if a bug is noticed by no component
    check of its part, or by one of another part. Raises MinLlamaError as `try_mutation` does.
    """
    assert_master()
    outcomes = []
    for name, mutation in BY_NAME.items():
        if names and not name.startswith(tuple(names)):
            continue
        outcome = try_mutation(mutation, edition, backend)
        outcomes.append(outcome)
        print(f"{name}: {', '.join(outcome.failed) or 'not noticed'}: {told(outcome)}", flush=True)
    table = render(outcomes, edition.name)
    if target:
        write_text(target, table)
        print(f"Wrote {target}.", *(f"{name}: {figure}" for name, figure in figures(outcomes)), sep="\n")
    else:
        print(table, end="")
    return 1 if any(outcome.problems for outcome in outcomes) else 0
