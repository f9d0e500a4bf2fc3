"""The instructor's commands for a whole class.

python -m autograder batch submissions --edition minllama -o out      # again after an interruption: it goes on
python -m autograder gradebook out --class class.toml                 # after a decision, without grading anything
python -m autograder diff out-before out
python -m autograder similarity submissions -o out --archive last-year
python -m autograder simulate 30 --seed 1 -o build/class
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from autograder.options import Verbs, edition_option, grading_options, positive, sandbox_option, verb

if TYPE_CHECKING:
    from autograder.batch.folder import ClassFolder
    from autograder.editions import Edition

# What the verb gradebook writes into OUT; canvas.csv only for a class with a roster and a column of Canvas.
TABLES = ("grades.csv", "canvas.csv", "unmatched.csv", "review.toml", "feedback.zip", "index.html")
LAYOUTS = ("plain", "canvas", "gradescope")


def add_class_verbs(verbs: Verbs) -> None:
    """Add the verbs."""
    for add in (_add_batch, _add_gradebook, _add_diff, _add_similarity, _add_simulate, _add_truth):
        add(verbs)


# --- batch, gradebook, diff ---


def _class_options(parser: argparse.ArgumentParser) -> None:
    """Add what the tables of a class depend on beside its results."""
    parser.add_argument(
        "--class",
        dest="class_file",
        type=Path,
        metavar="FILE",
        help="due date, roster, extensions, groups; remembered in OUT; at first: class.toml there, if there is one",
    )


def _add_batch(verbs: Verbs) -> None:
    text = "Grade every submission of a folder, or of a zip from Canvas or Gradescope. Interrupted, it goes on."
    parser = verb(verbs, "batch", _batch, text, "batch submissions --edition minllama -o out --jobs 4")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="zips and folders of a class, or a platform's zip")
    edition_option(parser)
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="folder of the results, private")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=positive, metavar="N", help="submissions at a time; default: one a processor")
    where.add_argument("--dask", metavar="ADDRESS", help="of the scheduler of a cluster, such as tcp://127.0.0.1:8786")
    parser.add_argument(
        "--regrade",
        action="append",
        default=[],
        metavar="NAME|CHECK",
        help="grade this submission again, or those that did not pass this check; may be repeated",
    )
    sandbox_option(parser)
    grading_options(parser)
    _class_options(parser)


def _batch(args: argparse.Namespace) -> int:
    from autograder.batch.run import BatchOptions, run_batch
    from autograder.editions import read_edition
    from autograder.gradebook.book import check_class

    edition = read_edition(args.edition)
    check_class(args.out, args.class_file, edition)  # now, rather than after hours
    print(class_sentence(args.out, args.class_file, edition))
    options = BatchOptions(
        jobs=args.jobs,
        dask=args.dask,
        regrade=tuple(args.regrade),
        backend=args.sandbox,
        seed=args.seed,
        checkpoint=args.checkpoint,
        data=args.data,
        rerun=args.rerun,
        rerun_arguments=tuple(args.rerun_arguments),
    )
    return run_batch(args.folder, args.edition, args.out, options, lambda folder: write_tables(folder, args.class_file))


def class_sentence(out: Path, class_file: Path | None, edition: "Edition") -> str:
    """Return which class file is used, as a sentence: grades depend on it. Raises UsageError if it is gone."""
    from autograder.gradebook.course import find_class

    if path := find_class(class_file, out):
        return f"class: {path}"
    late = f"; edition {edition.name} takes something off for lateness, but no due date is known"
    return f"class: no file, so no due date and no roster{late if edition.late.costs else ''}"


def write_tables(folder: "ClassFolder", class_file: Path | None = None) -> None:
    """Write the gradebook and the dashboard from what is graded so far. Raises UsageError for a broken file of a TA."""
    from autograder.dashboard.make import write_dashboard
    from autograder.gradebook.book import make_gradebook

    write_dashboard(folder, make_gradebook(folder, class_file))


def _add_gradebook(verbs: Verbs) -> None:
    text = "Make the tables and the dashboard again, after decisions, overrides or extensions. Nothing is graded."
    parser = verb(verbs, "gradebook", _gradebook, text, "gradebook out --class class.toml")
    parser.add_argument("out", type=Path, metavar="OUT", help="where a class was graded")
    _class_options(parser)
    parser.add_argument(
        "--anonymous", action="store_true", help="write tables without names and IDs, into OUT/anonymous"
    )


def _gradebook(args: argparse.Namespace) -> int:
    from autograder.batch.folder import ClassFolder
    from autograder.dashboard.make import write_dashboard
    from autograder.editions import read_edition
    from autograder.gradebook.book import make_gradebook

    folder = ClassFolder(args.out)
    print(class_sentence(args.out, args.class_file, read_edition(folder.read_entries()[1])))
    if args.anonymous:
        grades = make_gradebook(folder, args.class_file, anonymous=True)
        write_dashboard(ClassFolder(args.out / "anonymous"), grades, private=False)
        print(f"wrote grades.csv and index.html into {args.out / 'anonymous'}")
        return 0
    write_tables(folder, args.class_file)
    print(f"wrote into {args.out}: {', '.join(name for name in TABLES if (args.out / name).exists())}")
    return 0


def _add_diff(verbs: Verbs) -> None:
    text = "Say whose grade changes between two gradings of a class, and why."
    parser = verb(verbs, "diff", _diff, text, "diff out-before out")
    parser.add_argument("one", type=Path, metavar="OUT1")
    parser.add_argument("two", type=Path, metavar="OUT2")


def _diff(args: argparse.Namespace) -> int:
    from autograder.gradebook.differences import differences

    print(differences(args.one, args.two))
    return 0


# --- similarity ---


def _add_similarity(verbs: Verbs) -> None:
    text = "Rank pairs of submissions by how alike their code is. It accuses nobody: a person compares."
    parser = verb(verbs, "similarity", _similarity, text, "similarity submissions -o out --archive last-year")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="as for batch")
    edition_option(parser)
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="where the class was graded")
    parser.add_argument("--archive", type=Path, nargs="+", default=[], metavar="OLD", help="classes of past years")
    _class_options(parser)
    parser.add_argument("--most", type=positive, default=50, metavar="N", help="pairs to show (default: %(default)s)")


def _similarity(args: argparse.Namespace) -> int:
    from autograder.batch.folder import ClassFolder
    from autograder.editions import read_edition
    from autograder.similarity.run import run_similarity

    status = run_similarity(args.folder, args.out, read_edition(args.edition), args.archive, args.most)
    folder = ClassFolder(args.out)
    if (args.out / "class.json").exists():  # the dashboard shows the pairs
        print(class_sentence(args.out, args.class_file, read_edition(folder.read_entries()[1])))
        write_tables(folder, args.class_file)
    return status


# --- simulate ---


def _add_simulate(verbs: Verbs) -> None:
    text = "Make a class of synthetic submissions; what each of them must get is written beside the folder."
    parser = verb(verbs, "simulate", _simulate, text, "simulate 30 --seed 1 -o build/class")
    parser.add_argument("count", type=positive, metavar="N", help="how many submissions")
    parser.add_argument("--seed", default="0", metavar="S", help="the same seed makes the same bytes")
    edition_option(parser)
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument("--layout", choices=LAYOUTS, default="plain", help="as a platform exports (default: plain)")


def _simulate(args: argparse.Namespace) -> int:
    from autograder.simulate.make import simulate

    simulate(args.count, args.seed, args.out, args.edition, args.layout)
    print(f"wrote {args.count} submissions into {args.out}, and what each must get into {args.out}.truth.json")
    return 0


def _add_truth(verbs: Verbs) -> None:
    text = "Compare the grades of a simulated class with what it must get; status 1 if one differs."
    parser = verb(verbs, "truth", _truth, text, "truth build/class out")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="that simulate has made")
    parser.add_argument("out", type=Path, metavar="OUT", help="where batch has graded it")


def _truth(args: argparse.Namespace) -> int:
    from autograder.simulate.truth import compare_with_truth

    wrong = compare_with_truth(args.folder, args.out)
    for sentence in wrong:
        print(sentence)
    print(f"{len(wrong)} grades differ from the truth" if wrong else "every grade equals the truth")
    return 1 if wrong else 0
