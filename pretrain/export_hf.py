"""A folder that Hugging Face's `transformers` reads: LlamaForCausalLM, and a tokenizer that gives the same ids.

transformers reads tokenizers as `tokenizer.json`, so a SentencePiece model is written as one. A text is text there as
here: the name of a special token in it is encoded as any other characters. The ids are the same for every text, with
one exception: where two ways to cut a text have equal scores in a unigram model, as `a` + `aa` and `aa` + `a`,
rounding decides, and the two libraries round differently.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from checkpoint import CONFIG_FILE, TOKENIZER_NAMES, WEIGHTS_FILE, Tensors
from config import LlamaConfig
from errors import CheckpointError, MissingDependency, TokenizerError
from hf_format import config_to, tensors_to
from pretrain.pieces import Pieces, merges_of, read_pieces
from safetensors_file import write_safetensors
from tokenizer import SPACE, TOKENIZER_CONFIG, Tokenizer
from utils import write_text

NEVER = -1e4  # the score of a piece that no text may be cut into, far below those that are learnt


def write(out: Path, config: LlamaConfig, tensors: Tensors, tokenizer: Tokenizer) -> None:
    """Write the folder `out`, which appears only when it is complete.

    Raises TokenizerError for a tokenizer that theirs cannot be, CheckpointError if the folder cannot be written, and
    MissingDependency without `tokenizers`.
    """
    theirs = _their_tokenizer(tokenizer)
    special = _special_tokens(tokenizer, theirs)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", ignore_cleanup_errors=True) as name:
            folder = Path(name, out.name)
            folder.mkdir()
            write_safetensors(folder / WEIGHTS_FILE, tensors_to(tensors, config), {"format": "pt"})
            write_text(folder / "tokenizer.json", theirs.to_str(pretty=True))
            _write_json(folder / TOKENIZER_CONFIG, _tokenizer_config(special, config))
            if tokenizer.sp_model is not None:
                (folder / TOKENIZER_NAMES[".model"]).write_bytes(tokenizer.sp_model.serialized_model_proto())
            ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
            if tokenizer.pad_id < config.vocab_size:
                ids["pad_token_id"] = tokenizer.pad_id
            _write_json(folder / "generation_config.json", ids)
            _write_json(folder / CONFIG_FILE, {**config_to(config), **ids, "dtype": "float32"})
            if out.is_dir():
                out.rmdir()  # it is empty
            folder.replace(out)
    except OSError as error:
        raise CheckpointError(f"{out} cannot be written ({error.strerror}): check the disk and the path.") from error


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _tokenizer_config(special: dict[str, str], config: LlamaConfig) -> dict[str, Any]:
    """Return what transformers has to know of a tokenizer besides tokenizer.json."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",  # take tokenizer.json as it is
        **special,
        "model_max_length": config.max_seq_len,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,  # a text that says `</s>` is text
    }


def _special_tokens(tokenizer: Tokenizer, theirs: Any) -> dict[str, str]:
    """Return the texts of the special tokens; padding only where it is a token of its own."""
    names = {"bos_token": theirs.id_to_token(tokenizer.bos_id), "eos_token": theirs.id_to_token(tokenizer.eos_id)}
    if tokenizer.sp_model is not None:
        names["unk_token"] = theirs.id_to_token(tokenizer.sp_model.unk_id())
        if (pad_id := tokenizer.sp_model.pad_id()) >= 0:
            names["pad_token"] = theirs.id_to_token(pad_id)
    elif tokenizer.pad_id != tokenizer.eos_id:
        names["pad_token"] = theirs.id_to_token(tokenizer.pad_id)
    return names


def _their_tokenizer(tokenizer: Tokenizer) -> Any:
    """Return a tokenizer of the package `tokenizers` with the same ids, which begins a text with our first id."""
    try:
        from tokenizers import Tokenizer as JsonTokenizer
        from tokenizers import processors
    except ImportError as error:
        raise MissingDependency("--format hf", "tokenizers") from error
    if tokenizer.sp_model is None:
        theirs = JsonTokenizer.from_file(str(tokenizer.path))
        theirs.no_truncation()
        theirs.no_padding()
    else:
        theirs = _from_pieces(tokenizer, read_pieces(tokenizer))
    begin = theirs.id_to_token(tokenizer.bos_id)
    theirs.post_processor = processors.TemplateProcessing(
        single=[begin, "$A"], pair=[begin, "$A", "$B"], special_tokens=[(begin, tokenizer.bos_id)]
    )
    return theirs


def _from_pieces(tokenizer: Tokenizer, pieces: Pieces) -> Any:
    """Return a tokenizer of theirs for a SentencePiece model."""
    from tokenizers import Tokenizer as JsonTokenizer
    from tokenizers import decoders, normalizers, pre_tokenizers

    theirs = JsonTokenizer(_model(tokenizer, pieces))
    prepend = [normalizers.Prepend(SPACE)] if pieces.space_in_front else []
    theirs.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if pieces.space_in_front else []
    theirs.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    if pieces.kind == "unigram" and not any("<" in pieces.texts[i][1:] for i in pieces.normal):
        # Their unigram would find `<s>` and `<0x41>` in a text; no piece of a text goes over the sign they begin with.
        theirs.pre_tokenizer = pre_tokenizers.Split("<", "isolated")
    sp_model = tokenizer.sp_model
    special = [i for i in range(len(pieces.texts)) if sp_model.is_control(i) or sp_model.is_unknown(i)]
    theirs.add_special_tokens([pieces.texts[i] for i in special])
    return theirs


def _model(tokenizer: Tokenizer, pieces: Pieces) -> Any:
    """Return the part that cuts text."""
    from tokenizers import models

    if pieces.kind == "unigram":
        learnt = set(pieces.normal)
        scored = [
            (text, score if i in learnt else NEVER)
            for i, (text, score) in enumerate(zip(pieces.texts, pieces.scores, strict=True))
        ]
        return models.Unigram(scored, unk_id=pieces.unknown_id, byte_fallback=pieces.byte_fallback)
    if pieces.kind not in ("bpe", "char"):
        raise TokenizerError(
            f"{tokenizer.path} cannot be exported for transformers: it cuts text into {pieces.kind}s, and several "
            "unknown ones in a row are one id here and several there. Train one with --type bpe, unigram or byte-bpe"
        )
    return models.BPE(
        vocab={text: i for i, text in enumerate(pieces.texts)},
        merges=merges_of(pieces) if pieces.kind == "bpe" else [],
        unk_token=pieces.texts[pieces.unknown_id],
        fuse_unk=True,
        byte_fallback=pieces.byte_fallback,
    )
