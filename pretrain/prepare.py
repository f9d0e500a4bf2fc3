"""From text files to token shards, in one pass over each and with several processes.

    python -m pretrain prepare stories.txt --tokenizer DIR --out DATA

What is written is the same whatever the number of processes. Whether a document is kept for validation is decided by
its text alone (its SHA-256): a text that occurs twice is never both learnt and asked for, and a corpus that grows
keeps its split. `manifest.json` is written last: a folder in which that was not reached counts as unprepared, and is
prepared anew by the same command. What was prepared already, from the same input, is left as it is; of other input it
is never overwritten.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

from errors import DataError, UsageError
from pretrain.corpus import MARKER, read_all
from pretrain.encoding import DocumentEncoder, EncodedBatch, encoded
from pretrain.shards import (
    FORMAT,
    MANIFEST,
    SHARD_TOKENS,
    SPLITS,
    TOKENIZERS,
    Manifest,
    Settings,
    Source,
    Split,
    SplitWriter,
    TokenizerFile,
    check_contents,
    id_dtype,
    parse_manifest,
    read_manifest,
)
from tokenizer import TOKENIZER_CONFIG, Tokenizer
from utils import atomic_path, sha256_of, write_text

ALONE = 2**22  # bytes of text files below which more processes take longer to start than they save
UNFINISHED = ".preparing"  # is in the folder while it is written to: what it leaves there then is its own
LEFT_OVER = re.compile(rf"({'|'.join(SPLITS)})-[0-9]{{5,}}(\.starts)?\.bin|\.manifest\.json\..*\.tmp")


def prepare(
    texts: Sequence[Path],
    tokenizer: Path,
    out: Path,
    *,
    validation: float = 0.01,
    jobs: int | None = None,
    shard_tokens: int = SHARD_TOKENS,
    clean: bool = False,
) -> Manifest:
    """Encode text files with a tokenizer (a file, or a folder with one) and write them as shards to the folder `out`.

    About the share `validation` of the documents is kept for validation. A shard has at most `shard_tokens` tokens,
    unless one document has more. `jobs` is the number of processes: by default that of the cores, and one for a small
    corpus. `clean` leaves out documents as `corpus.read_documents` says.
    If `out` holds what would be written already, it is only checked. Raises UsageError if it holds anything else, or
    for options that make no sense; TokenizerError for a tokenizer that cannot be read; and DataError for text that
    cannot be read, for too few documents to have some in each split, and if the files cannot be written. An error
    while it writes leaves no shards in `out`.
    """
    _check_options(texts, out, validation, jobs, shard_tokens)
    encoder = DocumentEncoder(tokenizer, validation).tokenizer  # refused here, not in each of the processes
    files = _tokenizer_files(encoder)
    wanted = Manifest(
        format=FORMAT,
        dtype=id_dtype(encoder.n_words).name,
        tokenizer=_describe(encoder, files),
        settings=Settings(float(validation), shard_tokens, clean),
        sources=tuple(_source(path) for path in texts),
        splits={},
    )
    with _writing(out):
        done = _earlier(out, wanted, files)
    if done is not None:
        return done
    try:
        with _writing(out):
            out.mkdir(parents=True, exist_ok=True)
            (out / UNFINISHED).touch()
            _remove_shards(out)
        splits = _write_shards(texts, encoder.path, out, wanted.settings, jobs)
        manifest = replace(wanted, splits=splits)
        with _writing(out):
            for name, content in files.items():
                with atomic_path(out / name) as temporary:
                    temporary.write_bytes(content)
            write_text(out / MANIFEST, json.dumps(asdict(manifest), indent=1) + "\n")
            (out / UNFINISHED).unlink()
    except BaseException:
        with suppress(OSError):  # the first error is the one to tell
            _remove_shards(out)
            (out / UNFINISHED).unlink(missing_ok=True)
        raise
    return manifest


def _check_options(texts: Sequence[Path], out: Path, validation: float, jobs: int | None, shard_tokens: int) -> None:
    """Raise UsageError for options that make no sense."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is no folder: name another with --out")
    if not texts:
        raise UsageError("no text files to prepare: name at least one")
    if not 0 < validation < 1:
        raise UsageError(
            f"the share kept for validation must lie between 0 and 1, got {validation}: change --validation"
        )
    if jobs is not None and jobs < 1:
        raise UsageError(f"the number of processes must be at least 1, got {jobs}: change --jobs")
    if shard_tokens < 1:
        raise UsageError(f"a shard must have room for at least 1 token, got {shard_tokens}")


def _tokenizer_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """Return what the folder of shards gets of a tokenizer: the name and the content of each file."""
    path = tokenizer.path
    if path.suffix == ".bin":  # llama2.c's goes in as the SentencePiece model that it becomes when it is read
        return {"tokenizer.model": tokenizer.sp_model.serialized_model_proto()}
    if path.suffix != ".json":
        return {"tokenizer.model": path.read_bytes()}
    files = {"tokenizer.json": path.read_bytes()}
    config = path.with_name(TOKENIZER_CONFIG)
    return files | ({TOKENIZER_CONFIG: config.read_bytes()} if config.is_file() else {})


def _describe(tokenizer: Tokenizer, files: dict[str, bytes]) -> TokenizerFile:
    """Return the manifest's entry for the tokenizer."""
    name, content = next(iter(files.items()))
    checksum = hashlib.sha256(content).hexdigest()
    return TokenizerFile(name, checksum, tokenizer.n_words, tokenizer.bos_id, tokenizer.eos_id)


def _source(path: Path) -> Source:
    """Return the manifest's entry for a text file."""
    if not path.is_file():
        raise DataError(f"{path}: {'no regular file' if path.exists() else 'no such file'}: check the path")
    try:
        return Source(path.name, sha256_of(path), path.stat().st_size)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): check its permissions") from error


def _earlier(out: Path, wanted: Manifest, files: dict[str, bytes]) -> Manifest | None:
    """Return the manifest of `out` if it holds already what is wanted, None if it is free to be written to.

    Raises UsageError if there is anything in the way: shards of other input, or another tokenizer.
    """
    if not (out / MANIFEST).exists():
        for name in (*TOKENIZERS, TOKENIZER_CONFIG):  # an earlier preparation cannot have left it: the manifest is next
            path = out / name
            if path.exists() and (not path.is_file() or path.read_bytes() != files.get(name)):
                raise UsageError(f"{path} is another tokenizer: name another folder with --out, or delete that file")
        if not (out / UNFINISHED).exists():
            _check_nothing_lost(out)
        return None
    found = parse_manifest(out)
    if replace(found, splits={}) != wanted:
        raise UsageError(
            f"{out} holds shards that were made from other texts, with another tokenizer, or with other options: "
            "name another folder with --out, or delete that one"
        )
    try:
        manifest = read_manifest(out)
        check_contents(out, manifest)
    except DataError:  # damaged since; it is made again
        return None
    if (out / UNFINISHED).exists():  # ended between its last two steps
        (out / UNFINISHED).unlink()
    return manifest


def _check_nothing_lost(out: Path) -> None:
    """Raise UsageError if there are files with the names of shards in `out`, which may be another program's."""
    for path in sorted(out.iterdir()) if out.is_dir() else ():
        if LEFT_OVER.fullmatch(path.name):
            raise UsageError(
                f"{path} was written by something else, or by a preparation that nobody knows of any more: name "
                "another folder with --out, or delete that file"
            )


def _remove_shards(out: Path) -> None:
    """Delete what a preparation writes, the manifest first: from then on the folder counts as unprepared."""
    (out / MANIFEST).unlink(missing_ok=True)
    for path in out.iterdir() if out.is_dir() else ():
        if LEFT_OVER.fullmatch(path.name):
            path.unlink()


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Turn a failure to write, such as a full disk, into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{out} cannot be written ({error.strerror or error}): make room, or name another folder with --out"
        ) from error


def _number_of_jobs(texts: Sequence[Path], jobs: int | None) -> int:
    """Return how many processes encode; where nobody said it, one a core that this process may use."""
    if jobs is not None:
        return jobs
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if sum(path.stat().st_size for path in texts) < ALONE else cores


# ---------------------------------------------------------------------------------------------------- writing


def _write_shards(
    texts: Sequence[Path], tokenizer: Path, out: Path, settings: Settings, jobs: int | None
) -> dict[str, Split]:
    """Encode all documents and write them to the shards of their splits; return what each split holds."""
    writers = {split: SplitWriter(out, split, settings.shard_tokens) for split in SPLITS}
    try:
        documents = read_all(texts, "prepare", clean=settings.clean)
        number_of_jobs = _number_of_jobs(texts, jobs)
        with closing(encoded(documents, tokenizer, settings.validation, number_of_jobs)) as batches:
            for batch in batches:
                with _writing(out):
                    _write_batch(writers, batch)
        _check_not_empty(texts, settings, {split: writer.documents for split, writer in writers.items()})
        with _writing(out):
            return {split: writer.finish() for split, writer in writers.items()}
    finally:
        for writer in writers.values():
            writer.close()


def _write_batch(writers: dict[str, SplitWriter], batch: EncodedBatch) -> None:
    """Give each document of a batch to the writer of its split."""
    start = 0
    for length, text_bytes, held_out in zip(batch.lengths, batch.text_bytes, batch.held_out, strict=True):
        writers["validation" if held_out else "train"].add(batch.ids[start : start + length], text_bytes)
        start += length


def _check_not_empty(texts: Sequence[Path], settings: Settings, documents: dict[str, int]) -> None:
    """Raise DataError if a split has no document, so that there is nothing to train on or nothing to judge by."""
    names, total = ", ".join(map(str, texts)), sum(documents.values())
    if not total:
        raise DataError(f"{names}: no document{' that --clean keeps' if settings.clean else ''}: a corpus needs text")
    for split, count in documents.items():
        if not count:
            raise DataError(
                f"{names}: no document out of {total} is left for {'training' if split == 'train' else 'validation'} "
                f"with --validation {settings.validation:g}: change that share, add text, or end each document with a "
                f"line `{MARKER}` if there should be more of them"
            )
