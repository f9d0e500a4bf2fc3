"""What a SentencePiece model holds, for those who store it in another form."""

from dataclasses import dataclass

from errors import MissingDependency, TokenizerError
from tokenizer import Tokenizer

# SentencePiece's types of pieces; GGUF has the same numbers.
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
BYTE_PIECES = tuple(f"<0x{byte:02X}>" for byte in range(256))


@dataclass(frozen=True)
class Pieces:
    """The pieces of a SentencePiece model, by id, and how it cuts text into them."""

    kind: str  # "unigram", "bpe", "word" or "char"
    texts: list[str]  # a space is written U+2581
    scores: list[float]
    types: list[int]
    unknown_id: int
    space_in_front: bool  # a text is cut as if a space stood before it
    byte_fallback: bool  # characters without a piece are spelt in bytes

    @property
    def normal(self) -> list[int]:
        """The ids of the pieces that text is cut into, bytes excluded."""
        return [i for i, kind in enumerate(self.types) if kind == NORMAL]


def read_pieces(tokenizer: Tokenizer) -> Pieces:
    """Return the pieces of a SentencePiece tokenizer.

    Raises TokenizerError if the model changes text before it cuts it, or has pieces of kinds that other programs treat
    otherwise, and MissingDependency without protobuf.
    """
    try:
        from sentencepiece import sentencepiece_model_pb2 as model_pb2
    except ImportError as error:
        raise MissingDependency(f"exporting {tokenizer.path.name}", "protobuf") from error
    model = model_pb2.ModelProto.FromString(tokenizer.sp_model.serialized_model_proto())
    trainer, normaliser = model.trainer_spec, model.normalizer_spec
    if normaliser.precompiled_charsmap or normaliser.remove_extra_whitespaces or not normaliser.escape_whitespaces:
        raise _refusal(tokenizer, f"it changes the text first (normalisation '{normaliser.name}')")
    if trainer.treat_whitespace_as_suffix:
        raise _refusal(tokenizer, "it puts the space behind a word")
    types = [piece.type for piece in model.pieces]
    if others := [
        model.pieces[i].piece for i, kind in enumerate(types) if kind not in (NORMAL, UNKNOWN, CONTROL, BYTE)
    ]:
        raise _refusal(tokenizer, f"it has pieces of the user's own, as {others[0]!r}")
    return Pieces(
        kind=model_pb2.TrainerSpec.ModelType.Name(trainer.model_type).lower(),
        texts=[piece.piece for piece in model.pieces],
        scores=[piece.score for piece in model.pieces],
        types=types,
        unknown_id=tokenizer.sp_model.unk_id(),
        space_in_front=normaliser.add_dummy_prefix,
        byte_fallback=trainer.byte_fallback and types.count(BYTE) == len(BYTE_PIECES),
    )


def merges_of(pieces: Pieces) -> list[tuple[str, str]]:
    """Return which pairs of pieces are merged, the first ones first, as a BPE without scores needs it.

    SentencePiece merges the pair whose union has the highest score, wherever the union is a piece.
    """
    own = {pieces.texts[i] for i in pieces.normal}
    ids = {text: i for i, text in enumerate(pieces.texts)}
    merges: list[tuple[str, str]] = []
    for i in sorted(pieces.normal, key=lambda i: -pieces.scores[i]):
        text = pieces.texts[i]
        pairs = [(text[:at], text[at:]) for at in range(1, len(text))]
        merges += sorted(
            (pair for pair in pairs if own.issuperset(pair)), key=lambda pair: (ids[pair[0]], ids[pair[1]])
        )
    return merges


def _refusal(tokenizer: Tokenizer, why: str) -> TokenizerError:
    """Return the error for a model that others would use differently."""
    return TokenizerError(
        f"{tokenizer.path} cannot be exported: {why}, and other programs would give other ids. "
        "Train one with `python -m pretrain train-tokenizer`"
    )
