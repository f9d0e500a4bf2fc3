"""Text to token ids and back, by SentencePiece (Kudo & Richardson 2018, arXiv 1808.06226).

Two kinds of files are read: SentencePiece's own `.model`, and llama2.c's `tokenizer.bin`, which is turned into the
former, so that one code path encodes. To write the latter:

    python tokenizer.py -t tokenizer.model
"""

import argparse
import math
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from errors import MinLlamaError, MissingDependency, TokenizerError
from utils import atomic_path

SPACE = "\u2581"  # how SentencePiece writes a space inside a piece
PADDING_PIECE = "<0x00>"  # Llama's vocabulary has no padding: the byte 0, which no text holds, stands in
# The names that a checkpoint's own tokenizer has, beside it.
TOKENIZER_FILES = ("tokenizer.model", "tok*.model", "tok*.bin")


class Tokenizer:
    """A SentencePiece tokenizer: `encode` and `decode`, with `n_words`, `bos_id`, `eos_id` and `pad_id`."""

    def __init__(self, max_len: int | None = None, tokenizer_model: str | os.PathLike[str] | None = None) -> None:
        """Read `tokenizer_model` (by default `tokenizer.model`, here); `encode` returns at most `max_len` ids.

        Raises TokenizerError if the file cannot be read, and ValueError if `max_len` leaves no room for a token.
        """
        if max_len is not None and max_len < 1:
            raise ValueError(f"max_len must be at least 1, got {max_len}")
        self.max_len = max_len
        self.path = Path(tokenizer_model or "tokenizer.model")
        self.sp_model = _load(self.path)
        self.n_words: int = self.sp_model.vocab_size()
        self.bos_id: int = self.sp_model.bos_id()
        self.eos_id: int = self.sp_model.eos_id()
        self.pad_id = self._find_pad_id()

    def encode(self, s: str, bos: bool, eos: bool) -> list[int]:
        """Return the ids of `s`, with the beginning and the end of sequence around it if asked for.

        With a `max_len`, the end of the text is cut so that all ids, those two included, are at most that many.
        """
        ids: list[int] = self.sp_model.encode(s)
        if self.max_len is not None:
            ids = ids[: max(self.max_len - bos - eos, 0)]
        return ([self.bos_id] * bos + ids + [self.eos_id] * eos)[: self.max_len]  # max_len 1 holds only one of them

    def decode(self, ids: list[int]) -> str:
        """Return the text of `ids`; beginning, end and padding of a sequence are no text."""
        text: str = self.sp_model.decode([i for i in ids if i != self.pad_id])
        return text

    def _find_pad_id(self) -> int:
        """Return the id that fills short rows: the model's own, else that of the byte 0, else the end of sequence."""
        own: int = self.sp_model.pad_id()
        byte: int = self.sp_model.piece_to_id(PADDING_PIECE)  # the unknown id, if there is no such piece
        if own >= 0:
            return own
        return byte if byte != self.sp_model.unk_id() else self.eos_id

    def export(self, path: str | os.PathLike[str]) -> None:
        """Write llama2.c's `tokenizer.bin`: the longest piece's length, then score, length and bytes of each piece."""
        pieces = [self._exported_piece(i) for i in range(self.n_words)]
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            file.write(struct.pack("<I", max(map(len, pieces))))
            for i, piece in enumerate(pieces):
                file.write(struct.pack("<fI", self.sp_model.get_score(i), len(piece)) + piece)

    def _exported_piece(self, i: int) -> bytes:
        """Return a piece as llama2.c prints it: with plain spaces, and line breaks around begin and end."""
        piece: str = self.sp_model.id_to_piece(i)
        if i in (self.bos_id, self.eos_id):
            piece = f"\n{piece}\n"
        return piece.replace(SPACE, " ").encode("utf-8")


def find_tokenizer(checkpoint: str | os.PathLike[str], vocab_size: int) -> Tokenizer:
    """Return the tokenizer that lies beside a checkpoint and has its vocabulary size.

    Raises TokenizerError if there is none.
    """
    folder = Path(checkpoint).parent
    candidates = list(dict.fromkeys(path for name in TOKENIZER_FILES for path in sorted(folder.glob(name))))
    sizes = []
    for path in candidates:
        try:
            tokenizer = Tokenizer(tokenizer_model=path)
        except TokenizerError:
            sizes.append(f"{path.name} is damaged")
            continue
        if tokenizer.n_words == vocab_size:
            return tokenizer
        sizes.append(f"{path.name} has {tokenizer.n_words}")
    found = f" ({'; '.join(sizes)})" if sizes else ""
    raise TokenizerError(
        f"no tokenizer with {vocab_size} pieces lies beside {checkpoint}{found}: "
        "put the checkpoint's tokenizer there, or name it with --tokenizer"
    )


def check_vocabulary(tokenizer: Tokenizer, vocab_size: int, checkpoint: str | os.PathLike[str]) -> None:
    """Raise TokenizerError if a named tokenizer does not have as many pieces as the checkpoint has embeddings."""
    if tokenizer.n_words != vocab_size:
        raise TokenizerError(
            f"{tokenizer.path} has {tokenizer.n_words} pieces, but {checkpoint} was trained with {vocab_size}: "
            "its text would be garbage. Use the checkpoint's own tokenizer"
        )


def _load(path: Path) -> Any:
    """Return SentencePiece's processor for a `.model` or a llama2.c `.bin`."""
    from sentencepiece import SentencePieceProcessor

    if not path.is_file():
        raise TokenizerError(f"{path} does not exist. Fetch it with `./setup.sh`, or name another with --tokenizer")
    try:
        model = path.read_bytes()
    except OSError as error:
        raise TokenizerError(f"{path} cannot be read ({error.strerror}): check its permissions") from error
    if path.suffix == ".bin":
        model = _model_from_bin(path, model)
    processor = SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model)
    except RuntimeError as error:
        raise TokenizerError(f"{path} is no SentencePiece model ({len(model):,} bytes): fetch it again") from error
    return processor


def _model_from_bin(path: Path, content: bytes) -> bytes:
    """Turn llama2.c's `tokenizer.bin` into the SentencePiece model that it was exported from, less what it left out."""
    try:
        from sentencepiece import sentencepiece_model_pb2 as model_pb2
    except ImportError as error:
        raise MissingDependency(f"reading {path.name}", "protobuf") from error
    model = model_pb2.ModelProto()
    for i, (piece, score) in enumerate(_read_pieces(path, content)):
        entry = model.pieces.add(score=score)
        entry.piece = piece.strip("\n") if i in (1, 2) else piece.replace(" ", SPACE)
        if i == 0:
            entry.type = model_pb2.ModelProto.SentencePiece.UNKNOWN
        elif i in (1, 2):
            entry.type = model_pb2.ModelProto.SentencePiece.CONTROL
        elif _is_byte(piece):
            entry.type = model_pb2.ModelProto.SentencePiece.BYTE
    # What Llama's own model says: byte-pair encoding, text taken as it is, one space put in front.
    model.trainer_spec.model_type = model_pb2.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.vocab_size = len(model.pieces)
    model.trainer_spec.pad_id = -1
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = True
    model.normalizer_spec.remove_extra_whitespaces = False
    serialised: bytes = model.SerializeToString()
    return serialised


def _read_pieces(path: Path, content: bytes) -> Iterable[tuple[str, float]]:
    """Yield each piece of llama2.c's `tokenizer.bin` and its score; raise TokenizerError where the file breaks off."""
    try:
        (longest,) = struct.unpack_from("<I", content)
        at = 4
        while at < len(content):
            score, length = struct.unpack_from("<fI", content, at)
            at += 8 + length
            if length > longest or at > len(content) or not math.isfinite(score):
                raise ValueError(f"a piece of {length} bytes ends at byte {at}")
            yield content[at - length : at].decode("utf-8"), score
    except (struct.error, ValueError) as error:  # UnicodeDecodeError is a ValueError
        raise TokenizerError(f"{path} is no llama2.c tokenizer, or damaged ({error}): fetch it again") from error


def _is_byte(piece: str) -> bool:
    """Say whether a piece stands for one byte, as `<0x0A>` does."""
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")


def main(argv: list[str] | None = None) -> int:
    """Export a SentencePiece model as llama2.c's `tokenizer.bin`, beside it."""
    parser = argparse.ArgumentParser(
        description="Write llama2.c's tokenizer.bin from a SentencePiece model.",
        epilog="example: python tokenizer.py -t tokenizer.model    writes tokenizer.bin beside it",
    )
    parser.add_argument(
        "-t", "--tokenizer-model", default="tokenizer.model", metavar="MODEL", help="default: %(default)s"
    )
    args = parser.parse_args(argv)
    target = Path(args.tokenizer_model).with_suffix(".bin")
    try:
        if target == Path(args.tokenizer_model):
            raise TokenizerError(f"{target} is an exported tokenizer already: name a .model file")
        Tokenizer(tokenizer_model=args.tokenizer_model).export(target)
    except MinLlamaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
