"""Learn a tokenizer from text: the text as a file in, `tokenizer.model` or `tokenizer.json` out.

| kind     | pieces                                     | what has no piece   | by                        |
|----------|--------------------------------------------|---------------------|---------------------------|
| unigram  | parts of words, chosen by a language model | is spelt in bytes   | SentencePiece             |
| bpe      | parts of words, merged pair by pair        | is spelt in bytes   | SentencePiece             |
| word     | what stands between two spaces             | is lost, as unknown | SentencePiece             |
| char     | characters                                 | is lost, as unknown | SentencePiece             |
| byte-bpe | parts of words, merged from bytes          | there is nothing    | Hugging Face `tokenizers` |

SentencePiece: Kudo & Richardson 2018, arXiv 1808.06226; unigram: Kudo 2018, arXiv 1804.10959, section 3.2; bpe:
Sennrich et al. 2016, arXiv 1508.07909, section 3.2; of bytes: Radford et al. 2019 (GPT-2), section 2.2. The same text
and the same version of the package give the same file again.
"""

import errno
import io
import random
import re
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from errors import DataError, MissingDependency, TokenizerError, UsageError
from pretrain.corpus import read_all, read_documents
from tokenizer import SPACE, Tokenizer
from utils import atomic_path

KINDS = ("unigram", "bpe", "word", "char", "byte-bpe")
# The ids of the special pieces: Llama's, or MP-ACL's, which has a piece for padding.
IDS = {
    "llama": {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1},
    "mp-acl": {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3},
}
BYTES = 256  # so many pieces can spell any text
# The kinds whose unknown characters SentencePiece spells in bytes. It would do so for `word` as well, but spells the
# space in front of the word along, as U+2581, and decoding does not turn that back.
WITH_BYTES = ("unigram", "bpe")

# SentencePiece drops two kinds of lines without a word: those with this character in them, and long ones.
RESERVED = "\u2585"
LONGEST_LINE = 2**14  # bytes
LONGEST_PART = 2**10  # characters, of at most four bytes: longer lines are cut, which also bounds the memory
MOST_LINES = 2_000_000  # SentencePiece holds in memory what it learns from: of more lines, so many are drawn
LOOKED_AT = 2**22  # characters of the texts in which `without_piece` looks

END_OF_TEXT = "<|endoftext|>"  # the only special token of byte-bpe: it begins a text and ends it
# Where byte-bpe may not merge. What the alternatives match is GPT-4's rule (`cl100k_base` of OpenAI's tiktoken):
# English contractions; a word, with one sign or space before it; up to three digits; other signs, with the line breaks
# after them; line breaks; spaces, of which the last goes to the word behind it.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train(
    texts: Sequence[Path],
    kind: str,
    vocab_size: int,
    out: Path,
    *,
    ids: str = "llama",
    seed: int = 0,
    clean: bool = False,
) -> Tokenizer:
    """Learn `vocab_size` pieces from the documents of `texts`, write the tokenizer into the folder `out`, return it.

    `ids` places SentencePiece's special pieces (`llama` or `mp-acl`); `seed` draws lines if there are more of them than
    SentencePiece can hold; `clean` leaves out what `corpus.read_documents` does. Nothing is written after an error:
    UsageError for an option that is unknown or does not fit, DataError for a text that cannot be read, is empty, or has
    fewer pieces in it, TokenizerError if `out` cannot be written, MissingDependency if byte-bpe's package is missing.
    """
    _check_options(texts, kind, vocab_size, ids)
    path = out / ("tokenizer.json" if kind == "byte-bpe" else "tokenizer.model")
    _check_folder(out, path)
    names = ", ".join(map(str, texts))
    with _reading(texts, clean, f"learning {vocab_size:,} pieces") as documents:
        if kind == "byte-bpe":
            content, size = _by_tokenizers(documents, vocab_size)
        else:
            content, size = _by_sentencepiece(documents, names, kind, vocab_size, IDS[ids], seed)
    if size != vocab_size:
        raise _too_many(names, kind, vocab_size, size)
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        hint = "is the disk full?" if error.errno == errno.ENOSPC else "check the path and its permissions"
        raise TokenizerError(f"{path} cannot be written ({error.strerror}): {hint}") from error
    return Tokenizer(tokenizer_model=path)


def without_piece(texts: Sequence[Path], tokenizer: Tokenizer, kind: str, *, clean: bool = False) -> int:
    """Return how many different characters or words (by `kind`, char or word) at the beginning of `texts` are unknown.

    There are such where the vocabulary is smaller than what the texts need; the rarest are left out.
    """
    model = tokenizer.sp_model
    seen, read = set[str](), 0
    for document in chain.from_iterable(read_documents(path, clean=clean) for path in texts):
        if kind == "char":
            seen.update(document.replace(" ", SPACE))
        else:
            seen.update(SPACE + word for line in document.split("\n") for word in line.split(" ") if word)
        read += len(document)
        if read >= LOOKED_AT:
            break
    return sum(model.piece_to_id(piece) == model.unk_id() for piece in seen)


def smallest(kind: str, ids: str = "llama") -> int:
    """Return the smallest vocabulary that a kind can have: its special pieces, its bytes, and one piece learnt."""
    if kind == "byte-bpe":
        return 1 + BYTES
    special = sum(i >= 0 for i in IDS[ids].values())
    return special + (BYTES if kind in WITH_BYTES else 0) + 1


def _check_options(texts: Sequence[Path], kind: str, vocab_size: int, ids: str) -> None:
    """Raise UsageError for options that no text can make work."""
    if not texts:
        raise UsageError("no text to learn from: name at least one file")
    if kind not in KINDS:
        raise UsageError(f"unknown --type '{kind}': choose one of {', '.join(KINDS)}")
    if ids not in IDS:
        raise UsageError(f"unknown --ids '{ids}': choose one of {', '.join(IDS)}")
    if kind == "byte-bpe" and ids != "llama":
        raise UsageError(f"--ids {ids} places SentencePiece's pieces, and byte-bpe has none of them: leave it out")
    if vocab_size < smallest(kind, ids):
        raise UsageError(f"--vocab-size {vocab_size} is too small for {kind}: it needs at least {smallest(kind, ids)}")


def _check_folder(out: Path, path: Path) -> None:
    """Raise UsageError if there would be two tokenizers in the folder, so that nobody knew which one is meant."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file: name a folder")
    for name in {"tokenizer.model", "tokenizer.json"} - {path.name}:
        if (out / name).exists():
            raise UsageError(f"--out {out} holds {name} already, of another kind: name another folder, or delete it")


def _too_many(names: str, kind: str, vocab_size: int, largest: int) -> DataError:
    """Return the error for a text that has fewer pieces in it than were asked for."""
    return DataError(
        f"{names}: too little text for --vocab-size {vocab_size} with --type {kind}: the largest that it allows is "
        f"{largest}. Take that or less, or more text"
    )


# ------------------------------------------------------------------------------------------------------- SentencePiece


def _by_sentencepiece(
    documents: Iterable[str], names: str, kind: str, vocab_size: int, ids: dict[str, int], seed: int
) -> tuple[bytes, int]:
    """Return the content of `tokenizer.model`, and how many pieces it has."""
    import sentencepiece

    model, failures = io.BytesIO(), list[BaseException]()
    options: dict[str, Any] = {"model_type": kind, "vocab_size": vocab_size, **ids}
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_watched(_drawn(_sentences(documents, kind), seed), failures),
            model_writer=model,
            byte_fallback=kind in WITH_BYTES,
            # Llama's own settings: the text as it is, one space in front, numbers digit by digit.
            normalization_rule_name="identity",
            add_dummy_prefix=True,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            # The rarest 0.005 % of the characters are left to the bytes; where there are none, each has its piece.
            character_coverage=0.99995 if kind in WITH_BYTES else 1.0,
            max_sentence_length=LONGEST_LINE,
            input_sentence_size=MOST_LINES,  # all that it is given
            num_threads=8,  # whatever the machine has: how the work is split decides how unigram's sums are rounded
            minloglevel=2,  # errors only; those come as exceptions as well
            **options,
        )
    except RuntimeError as error:
        if failures:
            raise failures[0] from None
        raise _explained(str(error), names, kind, vocab_size) from error
    content = model.getvalue()
    processor = sentencepiece.SentencePieceProcessor(model_proto=content)
    if kind == "char" and processor.piece_to_id(SPACE) == processor.unk_id():
        raise DataError(
            f"{names}: with --vocab-size {vocab_size}, more frequent characters leave no piece for the space, which "
            "char puts in front of every text as well: take more"
        )
    return content, processor.vocab_size()


def _watched(items: Iterable[str], failures: list[BaseException]) -> Iterator[str]:
    """Yield the items, and keep what stops them: C++ passes on the text of an exception only."""
    try:
        yield from items
    except GeneratorExit:
        raise
    except BaseException as error:
        failures.append(error)
        raise


def _sentences(documents: Iterable[str], kind: str) -> Iterator[str]:
    """Yield what SentencePiece learns from: the lines of each document. Only characters go over the end of a line."""
    for document in documents:
        for line in [document] if kind == "char" else document.split("\n"):
            for part in line.split(RESERVED):
                yield from _parts(part)


def _drawn(lines: Iterable[str], seed: int) -> Iterator[str]:
    """Yield the lines, or MOST_LINES of them, each as likely as any other (Vitter 1985, algorithm R)."""
    kept: list[str] = []
    random_below = random.Random(seed).randrange
    for i, line in enumerate(lines):
        if i < MOST_LINES:
            kept.append(line)
        elif (at := random_below(i + 1)) < MOST_LINES:
            kept[at] = line
    kept.reverse()
    while kept:  # what is handed over is let go of
        yield kept.pop()


def _parts(line: str) -> Iterator[str]:
    """Yield a line in parts that are short enough, cut at spaces, which SentencePiece puts in front of each again."""
    while len(line) > LONGEST_PART:
        space = line.rfind(" ", 1, LONGEST_PART)
        end = space if space > 0 else LONGEST_PART
        yield line[:end]
        line = line[end + (space > 0) :]
    yield line


def _explained(message: str, names: str, kind: str, vocab_size: int) -> DataError:
    """Return a sentence for what SentencePiece's C++ says when a text does not suit it."""
    if too_high := re.search(r"set it to a value <= (\d+)", message):
        return _too_many(names, kind, vocab_size, int(too_high[1]))
    if too_low := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return DataError(
            f"{names}: --vocab-size {vocab_size} is too small for {kind}: the characters of this text alone need "
            f"{too_low[1]}. Take more, or --type byte-bpe"
        )
    return DataError(f"{names}: SentencePiece cannot learn {kind} from this text ({message}): take more text")


# ---------------------------------------------------------------------------------------------------------- tokenizers


def _by_tokenizers(documents: Iterable[str], vocab_size: int) -> tuple[bytes, int]:
    """Return the content of `tokenizer.json`, and how many tokens it has."""
    try:
        from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
        from tokenizers import Tokenizer as JsonTokenizer
    except ImportError as error:
        raise MissingDependency("--type byte-bpe", "tokenizers") from error
    tokenizer = JsonTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,  # what occurs once is no part of a language
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),  # all bytes, seen or not
        show_progress=False,  # ours is shown
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer.to_str().encode("utf-8"), tokenizer.get_vocab_size()


# ------------------------------------------------------------------------------------------------------------ progress


@contextmanager
def _reading(texts: Sequence[Path], clean: bool, task: str) -> Iterator[Iterator[str]]:
    """Give the documents of all texts, with a bar while they are read, and then a clock until the block ends.

    Raises DataError if there are none.
    """
    with ExitStack() as stack:
        yield _documents(texts, clean, lambda: stack.enter_context(_clock(task)))


def _documents(texts: Sequence[Path], clean: bool, at_the_end: Callable[[], object]) -> Generator[str]:
    """Yield the documents of all texts, and call `at_the_end`."""
    empty = True
    for document in read_all(texts, "reading", clean=clean):
        empty = False
        yield document
    if empty:
        what = "document of printable ASCII (--clean leaves out all others)" if clean else "text"
        raise DataError(f"{', '.join(map(str, texts))}: no {what} to learn from: name a file that has some")
    at_the_end()


@contextmanager
def _clock(task: str) -> Iterator[None]:
    """Show how long a task has been going on, each second, where the output is a terminal."""
    done = threading.Event()
    with tqdm(bar_format="{desc}: {elapsed}", desc=task, disable=None, leave=False) as bar:

        def tick() -> None:
            while not done.wait(1):
                bar.refresh()

        thread = threading.Thread(target=tick, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
