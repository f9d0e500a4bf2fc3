"""The instructor's commands.

python -m autograder doctor
python -m autograder handout --edition minllama -o build
python -m autograder grade abc123.zip --edition minllama -o out/abc123
python -m autograder reproduce abc123.zip RoPE --result out/abc123/result.json
python -m autograder batch submissions --edition minllama -o out      # and gradebook, diff, similarity: class_verbs.py
"""

import argparse
import io
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autograder.class_verbs import add_class_verbs
from autograder.options import BACKENDS, ROOT, Verbs, edition_option, grading_options, sandbox_option, verb
from errors import UsageError, exit_status

if TYPE_CHECKING:
    from autograder.result import CheckResult

VISIBILITIES = ("visible", "after_due_date", "after_published", "hidden")
UNGRADED = 3  # the exit status if the grader itself failed: there is no score


def main(argv: list[str] | None = None) -> int:
    """Run one of the verbs; return its status: 2 after an error that says what to do, 130 after ctrl-C."""
    args = build_parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that knows ASCII alone still gets the rest
    run: Callable[[argparse.Namespace], int] = args.run
    return exit_status(lambda: run(args))


def build_parser() -> argparse.ArgumentParser:
    """Describe the verbs. What they need is imported when they run, so that --help does not wait for it."""
    parser = argparse.ArgumentParser(
        prog="python -m autograder",
        description="How is it graded? Ask doctor first, make a handout, then grade, or batch for a whole class.",
        epilog="example: python -m autograder grade abc123.zip -o out/abc123",
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for add in (
        *(_add_doctor, _add_handout, _add_start, _add_checks, _add_grade, _add_reproduce),
        *(add_class_verbs, _add_gradescope, _add_sanity_data, _add_mutations, _add_measure_text),
    ):
        add(verbs)
    return parser


# --- doctor, handout, start, checks ---


def _add_doctor(verbs: Verbs) -> None:
    parser = verb(verbs, "doctor", _doctor, "Say what this machine lacks for grading, and the remedy.", "doctor")
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="where results will be written, to ask its disk")


def _doctor(args: argparse.Namespace) -> int:
    from autograder import doctor

    return doctor.run(sys.stdout, args.out)


def _add_handout(verbs: Verbs) -> None:
    text = "Make the students' zip from the master, and verify it."
    parser = verb(verbs, "handout", _handout, text, "handout --edition nlp244 -o build")
    edition_option(parser)
    parser.add_argument("-o", "--out", type=Path, default=Path("build"), metavar="DIR", help="default: %(default)s")


def _handout(args: argparse.Namespace) -> int:
    from autograder.editions import read_edition
    from autograder.handout.make import run_handout

    return run_handout(read_edition(args.edition), args.out)


def _add_start(verbs: Verbs) -> None:
    text = "Make a workspace with the gaps open, to work through the assignment alone."
    parser = verb(verbs, "start", _start, text, "start build/start")
    edition_option(parser)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path("build/start"), metavar="DIR", help="default: %(default)s"
    )


def _start(args: argparse.Namespace) -> int:
    from autograder.editions import read_edition
    from autograder.handout.make import run_start

    return run_start(read_edition(args.edition), args.folder)


def _add_checks(verbs: Verbs) -> None:
    parser = verb(verbs, "checks", _checks, "List an edition's checks, their points and what they say.", "checks")
    edition_option(parser)


def _checks(args: argparse.Namespace) -> int:
    from autograder.checks.hidden import CHECKS
    from autograder.editions import read_edition

    edition = read_edition(args.edition)
    checks = {check.name: check for check in CHECKS}
    width = max(len(entry.name) for entry in edition.checks.run)
    for entry in edition.checks.run:
        check = checks.get(entry.name)
        if check is None:
            raise UsageError(f"edition {edition.name}: no check is called '{entry.name}'")
        print(f"{entry.points:>4g}  {entry.name:<{width}}  {check.region:<15} {check.sentence}")
    print(f"{sum(entry.points for entry in edition.checks.run):>4g}  points in all")
    return 0


# --- grade, reproduce, gradescope ---


def _submission_options(parser: argparse.ArgumentParser) -> None:
    """Add what every command has that runs a submission."""
    parser.add_argument("submission", type=Path, metavar="SUBMISSION", help="a zip, or a folder")
    edition_option(parser)
    parser.add_argument("--id", metavar="ID", help="whose it is; by default the name of the zip or folder")
    sandbox_option(parser)


def _add_grade(verbs: Verbs) -> None:
    text = "Grade one submission: format, static analysis, hidden checks, outputs, letter, report."
    parser = verb(verbs, "grade", _grade, text, "grade abc123.zip -o out/abc123 --rerun generate")
    _submission_options(parser)
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="folder of the results")
    grading_options(parser)
    parser.add_argument(
        "--deadline", type=float, default=math.inf, metavar="SECONDS", help="begin no further check after that"
    )


def _grade(args: argparse.Namespace) -> int:
    from autograder.editions import read_edition
    from autograder.grade import Options, grade_submission

    options = Options(
        student_id=args.id,
        backend=args.sandbox,
        seed=args.seed,
        checkpoint=args.checkpoint,
        data=args.data,
        rerun=args.rerun,
        rerun_arguments=tuple(args.rerun_arguments),
        deadline=args.deadline,
    )
    result = grade_submission(args.submission, read_edition(args.edition), args.out, options)
    _print_checks(result.checks)
    for reason in result.grade.reasons:
        print(f"- {reason}")
    for doubt in result.grade.to_confirm:
        print(f"- to confirm: {doubt}")
    print(f"{result.submission}: {result.grade.letter}, {result.points:g} of {result.max_points:g} points")
    print(f"wrote {args.out / 'result.json'} and {args.out / 'report.html'} ({result.sandbox})")
    return UNGRADED if any(check.status == "grader_error" for check in result.checks) else 0


def _print_checks(checks: "Sequence[CheckResult]") -> None:
    """Print what did not pass: each outcome once, with the names of the checks that ended so."""
    names: dict[tuple[str, ...], list[str]] = {}
    for check in checks:
        if check.status != "pass":
            status: str = "note" if check.is_note else check.status
            names.setdefault((status, check.message, *check.misconceptions), []).append(check.name)
    for (status, message, *sentences), those in names.items():
        print(f"{status:<14}{', '.join(those)}: {message}")
        for sentence in sentences:
            print(f"{'':<14}this equals {sentence}")


def _add_reproduce(verbs: Verbs) -> None:
    text = "Run one check of a submission again; show its exact inputs and each difference."
    parser = verb(verbs, "reproduce", _reproduce, text, "reproduce abc123.zip RoPE --result out/abc123/result.json")
    _submission_options(parser)
    parser.add_argument("check", metavar="CHECK", help="its name: `python -m autograder checks` lists them")
    inputs = parser.add_mutually_exclusive_group(required=True)
    inputs.add_argument("--result", type=Path, metavar="FILE", help="the result.json whose inputs are wanted")
    inputs.add_argument("--seed", metavar="S", help="the secret that `grade` was given")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="write all tensors there, as .npz")


def _reproduce(args: argparse.Namespace) -> int:
    from autograder.editions import read_edition
    from autograder.grade import opened, seed_for
    from autograder.reproduce import reproduce
    from autograder.result import read_result

    edition = read_edition(args.edition)
    result = read_result(args.result) if args.result else None
    with opened(args.submission, edition, args.id, args.sandbox) as found:
        if result and result.submission_sha256 != found.intake.sha256:
            raise UsageError(f"{args.result} is of another submission than {args.submission}")
        seed = result.seed if result else seed_for(args.seed, found.intake.sha256)
        print(reproduce(found, args.check, edition, seed, args.out))
    return 0


def _add_gradescope(verbs: Verbs) -> None:
    text = "Build the zip that Gradescope takes as an autograder."
    parser = verb(verbs, "gradescope", _gradescope, text, "gradescope -o build/autograder.zip")
    edition_option(parser)
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="the zip")
    parser.add_argument(
        "--deadline",
        type=float,
        default=540.0,
        metavar="SECONDS",
        help="when to stop by ourselves: below the platform's own limit, which gives no points (default: %(default)g)",
    )
    parser.add_argument(
        "--visibility",
        choices=VISIBILITIES,
        default="visible",
        help="of the hidden checks; if one is not visible, students do not see their total (default: %(default)s)",
    )
    parser.add_argument("--sandbox", choices=BACKENDS[:2], default="uid", help="default: %(default)s")
    parser.add_argument("--checkpoint", metavar="NAME", help="weights that the outputs come from")


def _gradescope(args: argparse.Namespace) -> int:
    from autograder.gradescope.build import build_zip

    files = build_zip(
        args.edition,
        args.out,
        deadline=args.deadline,
        visibility=args.visibility,
        sandbox=args.sandbox,
        checkpoint=args.checkpoint,
    )
    print(f"wrote {args.out}: {len(files)} files, {args.out.stat().st_size / 1e6:.1f} MB")
    return 0


# --- what keeps the grader right ---


def _add_sanity_data(verbs: Verbs) -> None:
    text = "Make the tensors that the student's checks compare with, from the master and the misconceptions."
    parser = verb(verbs, "sanity-data", _sanity_data, text, "sanity-data --table    shows how far all lie apart")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: sanity_check.data at the root")
    parser.add_argument("--table", action="store_true", help="print distances; writes a file only if -o names one")
    parser.add_argument(
        "--weights", type=Path, default=ROOT / "weights", metavar="DIR", help="real weights; default: weights"
    )


def _sanity_data(args: argparse.Namespace) -> int:
    from autograder.checks import sanity_data

    output = args.output if args.output or args.table else ROOT / "sanity_check.data"
    references = sanity_data.build(args.weights if output else None)
    if args.table:
        print(sanity_data.table(references))
    if output:
        sanity_data.write(output, references)
        outputs = sum(len(reference.misconceptions) for reference in references.values())
        print(f"wrote {output}: {len(references)} checks, {outputs} outputs of misconceptions")
    return 0


def _add_mutations(verbs: Verbs) -> None:
    text = "Grade the master with one bug at a time, and write the table of what was noticed and named."
    parser = verb(verbs, "mutations", _mutations, text, "mutations -o autograder/mutations/MUTATIONS.md")
    edition_option(parser)
    parser.add_argument("--sandbox", choices=BACKENDS, default="none", help="default: %(default)s, the code is ours")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="the table; by default it is printed")


def _mutations(args: argparse.Namespace) -> int:
    from autograder.editions import read_edition
    from autograder.mutations.table import run_mutations

    return run_mutations(read_edition(args.edition), args.sandbox, args.out)


def _add_measure_text(verbs: Verbs) -> None:
    text = "Measure how much a coherent text may cost under some weights, for an edition's coherent_nats."
    parser = verb(verbs, "measure-text", _measure_text, text, "measure-text checkpoints/storybook")
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="a checkpoint: file or folder")
    parser.add_argument("--no-mask", action="store_true", help="as the editions of 2024 generate: nothing is masked")


def _measure_text(args: argparse.Namespace) -> int:
    from autograder.outputs.thresholds import measure

    print(measure(args.weights, causal=not args.no_mask).table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
