"""Text to token ids and back, by SentencePiece (Kudo & Richardson 2018, arXiv 1808.06226) or by bytes.

Three kinds of files are read: SentencePiece's own `.model`; llama2.c's `tokenizer.bin`, which is turned into the
former, so that one code path encodes; and Hugging Face's `tokenizer.json`, for which the package `tokenizers` is
needed. To write llama2.c's:

    python tokenizer.py -t tokenizer.model
"""

import argparse
import json
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
TOKENIZER_CONFIG = "tokenizer_config.json"  # says which tokens of a tokenizer.json begin and end a text
# The names that a checkpoint's own tokenizer has, beside it or in its folder.
TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json", "tok*.model", "tok*.bin")
# What a `tokenizer.json` calls the beginning and the end of a sequence, if no `tokenizer_config.json` says it: Llama 2,
# Llama 3, and GPT-2 with all that followed it, where one token parts the texts. Likewise for padding.
BEGIN_AND_END = (("<s>", "</s>"), ("<|begin_of_text|>", "<|end_of_text|>"), ("<|endoftext|>", "<|endoftext|>"))
PADDING = ("<|padding|>", "<|finetune_right_pad_id|>", "<pad>", "[PAD]")


class Tokenizer:
    """A tokenizer of either kind: `encode` and `decode`, with `n_words`, `bos_id`, `eos_id` and `pad_id`.

    Text is text: the name of a special token in it, as `</s>` or `<|endoftext|>`, is encoded as any other characters,
    and comes back. `decode(encode(s)) == s` for every valid Unicode string `s`, if the tokenizer is a byte-level one
    with a token for each byte. With SentencePiece and byte fallback two characters are lost: its own sign for a space,
    U+2581, becomes one, and where the byte 0 stands in for padding, it is no text.
    """

    def __init__(self, max_len: int | None = None, tokenizer_model: str | os.PathLike[str] | None = None) -> None:
        """Read `tokenizer_model` (by default `tokenizer.model`, here); `encode` returns at most `max_len` ids.

        Of a folder, the tokenizer in it is read. Raises TokenizerError if the file cannot be read, MissingDependency
        if a package is needed for that, and ValueError if `max_len` leaves no room for a token.
        """
        if max_len is not None and max_len < 1:
            raise ValueError(f"max_len must be at least 1, got {max_len}")
        self.max_len = max_len
        self.path = _tokenizer_in(Path(tokenizer_model or "tokenizer.model"))
        self._backend = _Json(self.path) if self.path.suffix == ".json" else _SentencePiece(self.path)
        self.sp_model = self._backend.sp_model  # SentencePiece's processor; None for a tokenizer.json
        self.n_words: int = self._backend.n_words
        self.bos_id: int = self._backend.bos_id
        self.eos_id: int = self._backend.eos_id
        self.pad_id = self._find_pad_id()

    def encode(self, s: str, bos: bool, eos: bool) -> list[int]:
        """Return the ids of `s`, with the beginning and the end of sequence around it if asked for.

        With a `max_len`, the end of the text is cut so that all ids, those two included, are at most that many.
        """
        ids = self._backend.encode(s)
        if self.max_len is not None:
            ids = ids[: max(self.max_len - bos - eos, 0)]
        return ([self.bos_id] * bos + ids + [self.eos_id] * eos)[: self.max_len]  # max_len 1 holds only one of them

    def decode(self, ids: list[int]) -> str:
        """Return the text of `ids`; beginning, end and padding of a sequence are no text, nor is any special token."""
        return self._backend.decode([i for i in ids if i != self.pad_id])

    def _find_pad_id(self) -> int:
        """Return the id that fills short rows: what the file has for it, else the end of sequence."""
        return self.eos_id if self._backend.pad_id is None else self._backend.pad_id

    def export(self, path: str | os.PathLike[str]) -> None:
        """Write llama2.c's `tokenizer.bin`: the longest piece's length, then score, length and bytes of each piece.

        Raises TokenizerError for a tokenizer that llama2.c cannot use: it merges pairs of pieces, and takes the ids of
        Llama's special pieces for granted.
        """
        self._check_exportable()
        pieces = [self._exported_piece(i) for i in range(self.n_words)]
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            file.write(struct.pack("<I", max(map(len, pieces))))
            for i, piece in enumerate(pieces):
                file.write(struct.pack("<fI", self.sp_model.get_score(i), len(piece)) + piece)

    def _check_exportable(self) -> None:
        """Raise TokenizerError if the ids that llama2.c makes with the export would be others."""
        if self.sp_model is None:
            reason = "it merges bytes by rules, and llama2.c's tokenizer.bin holds pieces of SentencePiece with scores"
        elif (kind := _kind_of(self.sp_model)) != "BPE":
            reason = f"llama2.c merges pairs of pieces (bpe), and its kind is {kind.lower()}"
        elif (self.sp_model.unk_id(), self.bos_id, self.eos_id) != (0, 1, 2):
            reason = "llama2.c takes 0, 1 and 2 for unknown, begin and end, and its special pieces have other ids"
        else:
            return
        raise TokenizerError(f"{self.path} cannot be exported for llama2.c: {reason}. Train one with --type bpe")

    def _exported_piece(self, i: int) -> bytes:
        """Return a piece as llama2.c prints it: with plain spaces, and line breaks around begin and end."""
        piece: str = self.sp_model.id_to_piece(i)
        if i in (self.bos_id, self.eos_id):
            piece = f"\n{piece}\n"
        return piece.replace(SPACE, " ").encode("utf-8")


def find_tokenizer(checkpoint: str | os.PathLike[str], vocab_size: int) -> Tokenizer:
    """Return the tokenizer that lies beside a checkpoint, or in one that is a folder, and has its vocabulary size.

    Raises TokenizerError if there is none, and MissingDependency if the one there needs a package to be read.
    """
    path = Path(checkpoint)
    folder, where = (path, "in") if path.is_dir() else (path.parent, "beside")
    sizes, missing = [], None
    for candidate in _candidates(folder):
        try:
            tokenizer = Tokenizer(tokenizer_model=candidate)
        except TokenizerError as error:
            sizes.append(str(error))
            continue
        except MissingDependency as error:  # another file may do without
            missing = missing or error
            continue
        if tokenizer.n_words == vocab_size:
            return tokenizer
        sizes.append(f"{candidate.name} has {tokenizer.n_words}")
    if missing:
        raise missing
    found = f" ({'; '.join(sizes)})" if sizes else ""
    raise TokenizerError(
        f"no tokenizer with {vocab_size} pieces lies {where} {checkpoint}{found}: "
        "put the checkpoint's tokenizer there, or name it with --tokenizer"
    )


def check_vocabulary(tokenizer: Tokenizer, vocab_size: int, checkpoint: str | os.PathLike[str]) -> None:
    """Raise TokenizerError if a named tokenizer does not have as many pieces as the checkpoint has embeddings."""
    if tokenizer.n_words != vocab_size:
        raise TokenizerError(
            f"{tokenizer.path} has {tokenizer.n_words} pieces, but {checkpoint} was trained with {vocab_size}: "
            "its text would be garbage. Use the checkpoint's own tokenizer"
        )


def _candidates(folder: Path) -> list[Path]:
    """Return the files in a folder that have a tokenizer's name, the likeliest first."""
    return list(dict.fromkeys(path for name in TOKENIZER_FILES for path in sorted(folder.glob(name))))


def _tokenizer_in(path: Path) -> Path:
    """Return the tokenizer in a folder, or `path` itself if it is none. Raises TokenizerError for a folder without."""
    if not path.is_dir():
        return path
    for candidate in _candidates(path):
        return candidate
    raise TokenizerError(f"{path} holds no tokenizer ({', '.join(TOKENIZER_FILES)}): name another folder, or a file")


def _read(path: Path) -> bytes:
    """Return the content of a file."""
    if not path.is_file():
        raise TokenizerError(f"{path} does not exist. Fetch it with `./setup.sh`, or name another with --tokenizer")
    try:
        return path.read_bytes()
    except OSError as error:
        raise TokenizerError(f"{path} cannot be read ({error.strerror}): check its permissions") from error


# ------------------------------------------------------------------------------------- tokenizer.model, tokenizer.bin


class _SentencePiece:
    """SentencePiece's processor for a `.model` or a llama2.c `.bin`."""

    def __init__(self, path: Path) -> None:
        from sentencepiece import SentencePieceProcessor

        model = _read(path)
        if path.suffix == ".bin":
            model = _model_from_bin(path, model)
        self.sp_model: Any = SentencePieceProcessor()
        try:
            self.sp_model.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise TokenizerError(f"{path} is no SentencePiece model ({len(model):,} bytes): fetch it again") from error
        self.n_words: int = self.sp_model.vocab_size()
        self.bos_id: int = self.sp_model.bos_id()
        self.eos_id: int = self.sp_model.eos_id()
        own: int = self.sp_model.pad_id()
        byte: int = self.sp_model.piece_to_id(PADDING_PIECE)  # the unknown id, if there is no such piece
        stand_in = byte if byte != self.sp_model.unk_id() else None
        self.pad_id = own if own >= 0 else stand_in

    def encode(self, s: str) -> list[int]:
        ids: list[int] = self.sp_model.encode(s)
        return ids

    def decode(self, ids: list[int]) -> str:
        text: str = self.sp_model.decode(ids)
        return text


def _kind_of(processor: Any) -> str:
    """Return the algorithm of a SentencePiece model: UNIGRAM, BPE, WORD or CHAR."""
    model_pb2 = _model_pb2("exporting a tokenizer")
    model = model_pb2.ModelProto.FromString(processor.serialized_model_proto())
    name: str = model_pb2.TrainerSpec.ModelType.Name(model.trainer_spec.model_type)
    return name


def _model_pb2(feature: str) -> Any:
    """Return the module that knows the layout of SentencePiece's files."""
    try:
        from sentencepiece import sentencepiece_model_pb2
    except ImportError as error:
        raise MissingDependency(feature, "protobuf") from error
    return sentencepiece_model_pb2


def _model_from_bin(path: Path, content: bytes) -> bytes:
    """Turn llama2.c's `tokenizer.bin` into the SentencePiece model that it was exported from, less what it left out."""
    model_pb2 = _model_pb2(f"reading {path.name}")
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


# ------------------------------------------------------------------------------------------------------ tokenizer.json


class _Json:
    """Hugging Face's tokenizer for a `tokenizer.json`, as byte-level ones are stored.

    Special tokens are only ever put in by their ids: their names in a text are text. The beginning, the end and the
    padding are those that a `tokenizer_config.json` beside it names, else the well-known ones. Where there is no token
    for the beginning, the end serves, as in GPT-2.
    """

    sp_model: Any = None

    def __init__(self, path: Path) -> None:
        try:
            from tokenizers import Tokenizer as JsonTokenizer
        except ImportError as error:
            raise MissingDependency(f"reading {path.name}", "tokenizers") from error
        content = _read(path)
        try:
            self.model: Any = JsonTokenizer.from_buffer(content)
        except Exception as error:  # the package raises nothing narrower
            raise TokenizerError(f"{path} is no tokenizer.json, or damaged ({error}): fetch it again") from error
        self.model.no_truncation()  # a file can ask for either, and text would be lost
        self.model.no_padding()
        self.model.encode_special_tokens = True  # as text, that is
        self.n_words: int = 1 + max(self.model.get_vocab().values(), default=-1)
        self.bos_id, self.eos_id, self.pad_id = self._find_ids(path)

    def encode(self, s: str) -> list[int]:
        ids: list[int] = self.model.encode(s, add_special_tokens=False).ids
        return ids

    def decode(self, ids: list[int]) -> str:
        text: str = self.model.decode(ids, skip_special_tokens=True)
        return text

    def _find_ids(self, path: Path) -> tuple[int, int, int | None]:
        """Return the ids of the beginning and the end of a sequence, and of padding if there is one."""
        special = {token.content: i for i, token in self.model.get_added_tokens_decoder().items() if token.special}
        known_begin, known_end = next((pair for pair in BEGIN_AND_END if special.keys() >= set(pair)), (None, None))
        known = {"bos_token": known_begin, "eos_token": known_end}
        known["pad_token"] = next((name for name in PADDING if name in special), None)
        config = path.with_name(TOKENIZER_CONFIG)
        names = known | (_named_tokens(config) if config.is_file() else {})
        ids: dict[str, int | None] = {}
        for role, name in names.items():
            ids[role] = None if name is None else self.model.token_to_id(name)
            if name is not None and ids[role] is None:
                raise TokenizerError(f"{config}: {role} is {name!r}, which {path.name} does not have: fetch both again")
        self.model.add_special_tokens([name for name in names.values() if name])  # if the file does not call them so
        begin, end = ids["bos_token"], ids["eos_token"]
        if end is None:
            raise TokenizerError(
                f"{path} has no token for the end of a sequence that is known here (such as <|endoftext|>): "
                f"name it as eos_token in a {config.name} beside it"
            )
        return end if begin is None else begin, end, ids["pad_token"]


def _named_tokens(config: Path) -> dict[str, str | None]:
    """Return what a `tokenizer_config.json` calls the special tokens, as far as it says so."""
    try:
        content = json.loads(_read(config))
        if not isinstance(content, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise TokenizerError(f"{config} is no JSON that describes a tokenizer ({error}): fetch it again") from error
    names: dict[str, str | None] = {}
    for role in ("bos_token", "eos_token", "pad_token"):
        token = content.get(role)
        name = token.get("content") if isinstance(token, dict) else token
        if name is not None and not isinstance(name, str):
            raise TokenizerError(f"{config}: {role} is {token!r}, and must be the text of a token: fetch it again")
        if role in content:
            names[role] = name
    return names


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
