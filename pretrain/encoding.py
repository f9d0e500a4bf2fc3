"""From documents to token ids, with several processes: the order of the documents is kept, and memory is bounded."""

import hashlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from errors import MissingDependency, TokenizerError, UsageError
from pretrain.shards import Ids, id_dtype
from tokenizer import Tokenizer

PIECE = 2**14  # characters that a tokenizer is given at once
BATCH = 2**18  # characters that a process is given at once, unless one document has more
IN_FLIGHT = 2**27  # characters that all processes have been given and not answered, unless one document has more


@dataclass(frozen=True)
class EncodedBatch:
    """Some documents in their order: all their ids, one after the other, and a list entry for each document."""

    ids: Ids
    lengths: list[int]  # tokens
    text_bytes: list[int]  # in UTF-8
    held_out: list[bool]  # is it kept for validation?


class DocumentEncoder:
    """Turns documents into the ids that stand in the shards."""

    def __init__(self, tokenizer: Path, validation: float = 0.01) -> None:
        """Read a tokenizer; `validation` is the share of documents to be kept.

        Raises TokenizerError if it cannot be read, or has no end token.
        """
        self.tokenizer = Tokenizer(tokenizer_model=tokenizer)
        if self.tokenizer.eos_id < 0:
            raise TokenizerError(f"{self.tokenizer.path} has no token that ends a text: use one that has")
        self.validation = validation
        self.dtype = id_dtype(self.tokenizer.n_words)
        self._encode_rest = _continuation(self.tokenizer)

    def encode(self, text: str) -> Ids:
        """Return the ids of a document, shape (tokens,): begin token, unless it is the end token too; text; end token.

        A long text is encoded a piece at a time, cut before a space where there is one, so that the memory for it is
        bounded. It is decoded to the same text as if it had been encoded at once.
        """
        return np.concatenate([np.array(ids, dtype=self.dtype) for ids in self._parts(text)])

    def _parts(self, text: str) -> Iterator[list[int]]:
        """Yield the ids of a document in one part, or in several if it is long."""
        tokenizer, encode_rest = self.tokenizer, self._encode_rest
        bos = tokenizer.eos_id != tokenizer.bos_id >= 0
        if len(text) <= PIECE or encode_rest is None:
            yield tokenizer.encode(text, bos=bos, eos=True)
            return
        first, *rest = _pieces(text)
        yield tokenizer.encode(first, bos=bos, eos=False)
        yield from map(encode_rest, rest)
        yield [tokenizer.eos_id]

    def encode_batch(self, documents: Sequence[str]) -> EncodedBatch:
        """Encode some documents, and decide of each whether it is kept for validation."""
        contents = [document.encode("utf-8") for document in documents]
        ids = [self.encode(document) for document in documents]
        return EncodedBatch(
            np.concatenate(ids),
            lengths=[len(row) for row in ids],
            text_bytes=[len(content) for content in contents],
            held_out=[is_held_out(content, self.validation) for content in contents],
        )


def is_held_out(content: bytes, share: float) -> bool:
    """Say whether a document, given in UTF-8, is among the `share` of all that are kept for validation."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") / 2**64 < share


def _continuation(tokenizer: Tokenizer) -> Callable[[str], list[int]] | None:
    """Return what encodes the rest of a text whose beginning is encoded already; None if there is no such thing.

    SentencePiece puts a space before every text that it is given, and this must not happen in the middle of one.
    """
    if tokenizer.sp_model is not None:
        return _sentencepiece_continuation(tokenizer.sp_model.serialized_model_proto())

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, bos=False, eos=False)

    adds_nothing = all(tokenizer.decode(encode("a") + encode(rest)) == "a" + rest for rest in ("a", " a"))
    return encode if adds_nothing else None


def _sentencepiece_continuation(content: bytes) -> Callable[[str], list[int]] | None:
    """Return the encoder of a SentencePiece model without its space, None if the model meddles with others as well."""
    from sentencepiece import SentencePieceProcessor

    try:
        from sentencepiece import sentencepiece_model_pb2 as model_pb2
    except ImportError as error:
        raise MissingDependency("preparing a corpus with SentencePiece", "protobuf") from error
    model = model_pb2.ModelProto.FromString(content)
    if model.normalizer_spec.remove_extra_whitespaces or model.trainer_spec.treat_whitespace_as_suffix:
        return None
    model.normalizer_spec.add_dummy_prefix = False
    encode: Callable[[str], list[int]] = SentencePieceProcessor(model_proto=model.SerializeToString()).encode
    return encode


def _pieces(text: str) -> Iterator[str]:
    """Cut a text into pieces of at most PIECE characters, if possible before a space: most words begin with one."""
    start = 0
    while len(text) - start > PIECE:
        space = text.rfind(" ", start + PIECE // 2, start + PIECE)
        end = space if space > start else start + PIECE
        yield text[start:end]
        start = end
    yield text[start:]


# ---------------------------------------------------------------------------------------------------- processes


def encoded(documents: Iterable[str], tokenizer: Path, validation: float, jobs: int) -> Generator[EncodedBatch]:
    """Encode documents in their order, with `jobs` processes; close the generator to end them early.

    `validation` is the share of documents that is kept for that. What is in memory at any time is bounded: some batches
    for each process. Raises UsageError if one of the processes is killed.
    """
    batches = _batches(documents)
    if jobs == 1:
        yield from map(DocumentEncoder(tokenizer, validation).encode_batch, batches)
        return
    pool = ProcessPoolExecutor(
        jobs,
        mp_context=multiprocessing.get_context("spawn"),  # a fork would copy what other threads have locked
        initializer=_start_worker,
        initargs=(tokenizer, validation),
    )
    try:
        yield from _in_order(pool, batches, 2 * jobs)
    except BrokenProcessPool as error:
        raise UsageError("a process that encodes was ended, for want of memory perhaps: lower --jobs") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, batches: Iterable[list[str]], most: int) -> Iterator[EncodedBatch]:
    """Yield the encoded batches in their order, while at most so many are being worked on."""
    waiting: deque[tuple[Future[EncodedBatch], int]] = deque()
    for batch in batches:
        size = sum(map(len, batch))
        while waiting and (len(waiting) >= most or size + sum(other for _, other in waiting) > IN_FLIGHT):
            yield waiting.popleft()[0].result()
        waiting.append((pool.submit(_encode_in_worker, batch), size))
    while waiting:
        yield waiting.popleft()[0].result()


_worker: DocumentEncoder | None = None  # of this process, if it is one that encodes


def _start_worker(tokenizer: Path, validation: float) -> None:
    """Make a new process ready to encode."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is for the process that waits for this one
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    _worker = DocumentEncoder(tokenizer, validation)


def _leave_with_parent() -> None:
    """End this process when the one that started it is gone, be it killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _encode_in_worker(documents: list[str]) -> EncodedBatch:
    """Encode a batch, in a process that `_start_worker` made ready."""
    assert _worker is not None
    return _worker.encode_batch(documents)


def _batches(documents: Iterable[str]) -> Iterator[list[str]]:
    """Gather documents until they have BATCH characters."""
    batch, size = list[str](), 0
    for document in documents:
        batch.append(document)
        size += len(document)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
