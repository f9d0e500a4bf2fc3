"""Which course is this? An edition is one TOML file in `editions/`: files, checks, references, rubric, limits.

    edition = read_edition("minllama")      # or the path of a TOML file

Unknown keys are errors. How to write a new one: autograder/README.md.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from autograder.toml_file import Table, read_toml, validated
from errors import UsageError
from submission_rules import FILES, SUBMISSION, OutputFile, SubmissionRules

ROOT = Path(__file__).resolve().parent.parent
EDITIONS = ROOT / "editions"

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]


class Files(Table):
    """What belongs in a submission, and whose copy of a file runs in the sandbox."""

    required: tuple[str, ...] = SUBMISSION.required
    expected: tuple[str, ...] = SUBMISSION.expected
    optional: tuple[str, ...] = SUBMISSION.optional
    patterns: tuple[str, ...] = SUBMISSION.patterns
    max_bytes: int = Field(default=SUBMISSION.max_bytes, gt=0)
    # The submission's files that run; all others that are given are the master's.
    own: tuple[str, ...] = ("run_llama.py", "llama.py", "rope.py", "optimizer.py", "classifier.py")
    # "always": given files are the master's; "missing": the submission's win, the master's fill what is not there.
    pristine: Literal["always", "missing"] = "always"


class Handout(Table):
    """What the students' zip is made of."""

    open: tuple[str, ...]  # the solution regions that students write
    hint: str = "write this part: its docstring says what it computes"

    @model_validator(mode="after")
    def _regions_exist(self) -> "Handout":
        if unknown := sorted(set(self.open) - set(FILES)):
            raise ValueError(f"no solution region is called {', '.join(unknown)}: choose from {', '.join(FILES)}")
        return self


class Forbidden(Table):
    """Names that no file of the student may use, and why.

    They are dotted, such as torch.optim.AdamW, cover what lies below them, and may hold `*`. The first that fits a use
    names the finding.
    """

    names: tuple[str, ...]
    why: str


class Static(Table):
    """What may be imported and used. A finding is a flag for a person to judge, not a verdict."""

    imports: tuple[str, ...]  # top-level modules beside the standard library and the submission's own files
    forbidden: tuple[Forbidden, ...] = ()


class PointsOf(Table):
    """The points of one check."""

    name: str
    points: float = Field(ge=0.0)
    letter: bool = True  # whether the letter needs it, too; a check without points never does


class Checks(Table):
    """Which hidden checks are run, and what they are worth."""

    run: tuple[PointsOf, ...]
    # A region whose deciding checks pass loses no points: its other findings are notes. With this, integration checks
    # run even where a component check failed.
    decided_by: dict[str, tuple[str, ...]] = Field(default={})
    # Checks that are skipped since another one failed are worth this share of their points.
    skipped_share: Share = 0.0


class Reference(Table):
    """What is known of the assignment's results with one checkpoint."""

    checkpoint: str  # as in run-info.json: the name of the file or folder without its ending
    source: str  # who measured it, how
    accuracies: dict[str, float] = Field(default={})  # output file -> accuracy
    # A generated text is coherent if it costs the reference model at most so many nats a token, by temperature.
    coherent_nats: dict[Literal["0", "1"], Positive] = Field(default={})


class Rubric(Table):
    """Letters, and the sentence that justifies each."""

    a_plus: str
    a: str
    a_minus: str
    b_plus: str
    b_or_below: str
    third_down: str


class Late(Table):
    """What lateness costs, for each day begun after the due date, grace and extensions. By default nothing."""

    grace_days: float = Field(default=0.0, ge=0.0, le=365.0)
    kind: Literal["percent", "thirds"] = "percent"  # of the maximum, off the points; or thirds of a letter
    a_day: float = Field(default=0.0, ge=0.0, le=100.0)
    max_days: float | None = Field(default=None, ge=0.0, le=365.0)  # later than that, nothing is accepted

    @model_validator(mode="after")
    def _thirds_are_whole(self) -> "Late":
        if self.kind == "thirds" and self.a_day != int(self.a_day):
            raise ValueError(f"a_day is {self.a_day}: a letter goes down by whole thirds")
        return self

    @property
    def costs(self) -> bool:
        """Whether anybody loses anything by being late."""
        return self.a_day > 0 or self.max_days is not None


class Limits(Table):
    """What a submission may use in the sandbox."""

    memory_mb: Positive = 3000.0
    processes: int = Field(default=64, gt=0)
    file_mb: Positive = 64.0  # of all files that it writes, in checks
    output_kb: Positive = 64.0  # of what it prints and is kept
    rerun_memory_mb: Positive = 6000.0
    rerun_file_mb: Positive = 2000.0


class Edition(Table):
    """One course: all that the grader is told."""

    name: str
    title: str
    id_name: str = "student ID"
    causal: bool = True
    reproduce_2024: bool = False
    checkpoint: str = "stories42M"  # whose results the outputs are compared with; --checkpoint names another
    files: Files = Files()
    handout: Handout
    environment: tuple[str, ...]  # distributions that the sandbox sees, with what they need
    static: Static
    checks: Checks
    references: tuple[Reference, ...] = ()
    margins: dict[str, Positive] = Field(default={})  # output file -> how far below the reference an accuracy may lie
    rubric: Rubric
    late: Late = Late()
    limits: Limits = Limits()

    def rules(self) -> SubmissionRules:
        """Return the rules of the format, as `prepare_submit.py` uses them."""
        files = self.files
        return replace(
            SUBMISSION,
            required=files.required,
            expected=files.expected,
            optional=files.optional,
            patterns=files.patterns,
            max_bytes=files.max_bytes,
        )

    def reference(self, checkpoint: str) -> Reference | None:
        """Return what is known of a checkpoint's results, or None."""
        return next((entry for entry in self.references if entry.checkpoint == checkpoint), None)

    def output(self, name: str) -> OutputFile:
        """Return the rules of an output file."""
        return next(output for output in SUBMISSION.outputs if output.name == name)


def read_edition(name: str) -> Edition:
    """Return the edition of this name in `editions/`, or the one in the file of this path.

    Raises UsageError, which names the file and the key, for an unknown edition and for a file that breaks the schema.
    """
    path = Path(name) if name.endswith(".toml") else EDITIONS / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in EDITIONS.glob("*.toml")))
        raise UsageError(f"no edition is called '{name}': choose from {known}, or name a .toml file")
    return validated(Edition, _content(path), path)


def _content(path: Path) -> dict[str, Any]:
    """Return what a file says. With `extends`, it says the rest as another edition of its folder, or of ours, does.

    Tables are laid over those of the other edition key by key; lists are replaced.
    """
    content = read_toml(path)
    name = content.pop("extends", None)
    if name is None:
        return content
    candidates = [folder / f"{name}.toml" for folder in (path.parent, EDITIONS)]
    base = next((file for file in candidates if file.is_file() and file != path), None)
    if base is None:
        raise UsageError(f"{path}: extends: no edition is called '{name}'")
    merged = _content(base)
    for key, value in content.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merged[key] | value if both else value
    return merged
