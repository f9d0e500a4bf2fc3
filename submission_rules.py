"""What belongs in a submission, as data: files, sizes, and the command that makes each output."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

# The parts that a student writes -> the file that each stands in.
FILES = {
    **dict.fromkeys(("rmsnorm", "attention", "gqa", "layer", "generate"), "llama.py"),
    "rope": "rope.py",
    "adamw": "optimizer.py",
    **dict.fromkeys(("embedding_head", "zero_shot_head"), "classifier.py"),
}


@dataclass(frozen=True)
class OutputFile:
    """A file that the student's model writes: the command that makes it and, for predictions, what its rows are."""

    name: str
    command: str | None  # the reference command; None where the student's own program writes the file
    labels: int = 0  # valid labels are 0 to labels - 1; no labels: generated text
    rows: int = 0  # sentences in the published data file

    @property
    def mend(self) -> str:
        """Return what to do when the file is missing or broken."""
        return f"run `{self.command}`" if self.command else "write it again with your own program, or leave it out"


@dataclass(frozen=True)
class SubmissionRules:
    """What belongs in `ID.zip`. In names, `{id}` stands for the student's ID."""

    required: tuple[str, ...]  # an error if missing
    expected: tuple[str, ...]  # a warning if missing
    optional: tuple[str, ...]
    patterns: tuple[str, ...]  # the student's own files, at the root
    forbidden: tuple[tuple[str, tuple[str, ...]], ...]  # kind, and patterns of lower-case file and folder names
    outputs: tuple[OutputFile, ...]
    prompt: str  # generated texts begin with it
    max_bytes: int  # of the zip
    max_unpacked_bytes: int
    max_source_bytes: int  # of a Python file
    max_entries: int
    max_ratio: int  # unpacked to packed bytes, for entries above a megabyte

    def belongs(self, name: str, student_id: str) -> bool:
        """Say whether a file of this name at the root is part of the submission."""
        listed = (pattern.replace("{id}", student_id) for pattern in self.required + self.expected + self.optional)
        return name in listed or (not name.startswith(".") and _matches(name, self.patterns))

    def forbidden_kind(self, name: str) -> str | None:
        """Return what kind of forbidden thing a file or folder of this name is, or None."""
        return next((kind for kind, patterns in self.forbidden if _matches(name.lower(), patterns)), None)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    """Say whether a name fits one of the patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _reference_command(data_set: str, method: str, options: str) -> str:
    """Return the command that writes a data set's dev and test outputs of one method."""
    data = " ".join(f"--{split} data/{data_set}-{split}.txt" for split in ("train", "dev", "test"))
    out = " ".join(f"--{split}_out {data_set}-{split}-{method}-output.txt" for split in ("dev", "test"))
    return f"python run_llama.py {options} {data} --label-names data/{data_set}-label-mapping.json {out}"


def _prediction_files(method: str, options: dict[str, str]) -> tuple[OutputFile, ...]:
    """Return one method's output files; `options` holds what its command says for each data set."""
    sizes = {"sst": (5, {"dev": 1101, "test": 2210}), "cfimdb": (2, {"dev": 245, "test": 488})}
    return tuple(
        OutputFile(
            name=f"{data_set}-{split}-{method}-output.txt",
            command=_reference_command(data_set, method, options[data_set]) if options else None,
            labels=labels,
            rows=rows,
        )
        for data_set, (labels, splits) in sizes.items()
        for split, rows in splits.items()
    )


_GENERATED = tuple(
    OutputFile(f"generated-sentence-temp-{temperature}.txt", "python run_llama.py --option generate")
    for temperature in (0, 1)
)
_PREDICTED = _prediction_files(
    "prompting", dict.fromkeys(("sst", "cfimdb"), "--option prompt --batch_size 10")
) + _prediction_files(
    "finetuning",
    {
        "sst": "--option finetune --epochs 5 --lr 2e-5 --batch_size 80",
        "cfimdb": "--option finetune --epochs 5 --lr 2e-5 --batch_size 10",
    },
)
_ADVANCED = _prediction_files("advanced", {})

SUBMISSION = SubmissionRules(
    required=(
        *("run_llama.py", "llama.py", "optimizer.py", "classifier.py", "rope.py"),
        *(output.name for output in _GENERATED + _PREDICTED),
    ),
    expected=(
        *("base_llama.py", "config.py", "sanity_check.py", "tokenizer.py", "utils.py"),
        *("README.md", "structure.md", "sanity_check.data", "setup.sh"),
    ),
    optional=(*(output.name for output in _ADVANCED), "{id}-report.pdf", "run-info.json", "feedback.txt"),
    patterns=("*.py", "*.sh", "*.md", "*.txt", "*.log", "*.json"),
    forbidden=(
        ("weights", ("*.pt", "*.pth", "*.bin", "*.safetensors", "*.gguf", "*.model", "*.ckpt", "weights")),
        ("a data set", ("data",)),
        ("a virtual environment", (".venv", "venv", "env")),
        ("version control", (".git", ".hg", ".svn")),
        ("a cache", ("__pycache__", "*.pyc", ".*_cache", ".cache", ".hypothesis", ".ipynb_checkpoints")),
        ("an archive", ("*.zip", "*.tar", "*.gz", "*.tgz", "*.bz2", "*.xz", "*.zst", "*.7z", "*.rar", "*.whl")),
    ),
    outputs=_GENERATED + _PREDICTED + _ADVANCED,
    prompt=(
        "I have wanted to see this thriller for a while, and it didn't disappoint. "
        "Keanu Reeves, playing the hero John Wick, is"
    ),
    max_bytes=10_000_000,
    max_unpacked_bytes=50_000_000,
    max_source_bytes=500_000,
    max_entries=500,
    max_ratio=200,
)
