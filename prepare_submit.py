"""Make a submission's zip and check it, or check a zip that already exists. All problems are reported at once.

    python prepare_submit.py . abc123             makes abc123.zip of this folder, and checks it
    python prepare_submit.py abc123.zip abc123    checks a zip

The exit status is 0 if the zip may be handed in (there may be warnings), 1 if it has errors, 2 if the arguments are
unusable.
"""

import argparse
import os
import shutil
import stat
import sys
import zipfile
from pathlib import Path

from errors import MinLlamaError, SubmissionError
from submission_check import Report, check_student_id, shown, verify_archive, warn_of_reports
from submission_rules import SUBMISSION, SubmissionRules
from utils import atomic_path


def make_archive(
    folder: str | os.PathLike[str],
    student_id: str,
    target: str | os.PathLike[str],
    rules: SubmissionRules = SUBMISSION,
) -> list[str]:
    """Pack the submission's files from `folder` into the zip `target`, and return their names.

    Only files at the root are looked at. The same files make the same bytes. Raises SubmissionError if the folder holds
    none of the files or one cannot be packed, UsageError if `student_id` cannot be one.
    """
    check_student_id(student_id)
    try:
        paths = sorted(path for path in Path(folder).iterdir() if rules.belongs(path.name, student_id))
        paths = [path for path in paths if path.is_file()]
        if not paths:
            raise SubmissionError(f"{shown(str(folder))} holds no file of a submission: name the folder of llama.py")
        with atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for path in paths:
                _pack(archive, path, f"{student_id}/{path.name}")
    except OSError as error:
        raise SubmissionError(f"cannot pack {shown(str(folder))}: {error}") from error
    return [path.name for path in paths]


def _pack(archive: zipfile.ZipFile, path: Path, name: str) -> None:
    """Add a file to the archive, with fixed time and permissions: the same files make the same bytes."""
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = 3  # Unix, on every system
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    entry.file_size = path.stat().st_size  # tells the zipfile module whether it needs the format for large files
    with path.open("rb") as source, archive.open(entry, "w") as packed:
        shutil.copyfileobj(source, packed)


def _prepare(path: Path, student_id: str) -> Report:
    """Make a folder's zip and check it, or check a zip."""
    check_student_id(student_id)
    name = f"{student_id}.zip"
    if path.is_dir():
        packed = make_archive(path, student_id, name)
        print(f"wrote {name} with {len(packed)} files")
        report = verify_archive(name, student_id)
        if f"{student_id}-report.pdf" not in packed:
            left_out = sorted(file.name for file in path.iterdir() if file.suffix.lower() == ".pdf")
            warn_of_reports(report, left_out, student_id)
        return report
    report = verify_archive(path, student_id)
    if path.name != name:
        report.warn(f"its own name is not {name}", "rename it")
    return report


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0 if the zip may be handed in, 1 if it has errors, 2 if the arguments are unusable."""
    parser = argparse.ArgumentParser(
        description="Make a submission's zip of a folder and check it, or check a zip.",
        epilog="example: python prepare_submit.py . abc123",
    )
    parser.add_argument("path", type=Path, metavar="DIR|FILE.zip", help="your folder, or the zip to check")
    parser.add_argument("id", metavar="ID", help="your student ID, in lower case")
    args = parser.parse_args(argv)
    try:
        report = _prepare(args.path, args.id)
    except MinLlamaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(report)
    return 1 if report.errors else 0


if __name__ == "__main__":
    sys.exit(main())
