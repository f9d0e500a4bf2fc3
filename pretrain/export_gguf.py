"""llama.cpp's GGUF (github.com/ggml-org/ggml, docs/gguf.md), in float32, written by the package `gguf`.

llama.cpp's Llama rotates adjacent pairs, as Meta's checkpoints do: the weights go in as they stand. Of its tokenizers
two give our ids: "llama" those of a SentencePiece bpe, and "gpt2" those of a byte-level BPE.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoint import Tensors
from config import LlamaConfig, feed_forward_width
from errors import CheckpointError, MissingDependency, TokenizerError
from pretrain.pieces import CONTROL, NORMAL, read_pieces
from tokenizer import Tokenizer
from utils import atomic_path

if TYPE_CHECKING:
    from gguf import GGUFWriter

NAMES = {"tok_embeddings": "token_embd", "norm": "output_norm", "output": "output"}
LAYER_NAMES = {
    "attention_norm": "attn_norm",
    "attention.compute_query": "attn_q",
    "attention.compute_key": "attn_k",
    "attention.compute_value": "attn_v",
    "attention.compute_output": "attn_output",
    "ffn_norm": "ffn_norm",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
}
# How a byte-level BPE cuts text before it merges, and llama.cpp's name for it. The first is that of our own byte-bpe,
# in two spellings, which differ for one letter only: `ſ` after an apostrophe is an `s` to the first. "dbrx" merges as
# we do, where "llama-bpe" with the same rule prefers whole tokens.
_WORDS = r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)" + _WORDS: "dbrx",
    "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])" + _WORDS: "dbrx",
}
# What else may stand in the model of a tokenizer.json without a change of ids.
PLAIN_BPE = {
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
}


def write(out: Path, config: LlamaConfig, tensors: Tensors, tokenizer: Tokenizer) -> None:
    """Write a model and its tokenizer to the file `out`.

    Raises TokenizerError for a tokenizer that llama.cpp does not have, CheckpointError if the file cannot be written,
    and MissingDependency without `gguf`.
    """
    try:
        import gguf
    except ImportError as error:
        raise MissingDependency("--format gguf", "gguf") from error
    try:
        with atomic_path(out) as temporary:
            writer = gguf.GGUFWriter(temporary, "llama")
            try:
                writer.add_name(out.stem)
                writer.add_file_type(gguf.LlamaFileType.ALL_F32)
                _add_sizes(writer, config)
                _add_tokenizer(writer, tokenizer)
                for name, tensor in tensors.items():
                    if not (config.tie_word_embeddings and name == "output.weight"):
                        writer.add_tensor(_their_name(name), tensor.contiguous().numpy())
                writer.write_header_to_file()
                writer.write_kv_data_to_file()
                writer.write_tensors_to_file()
            finally:
                writer.close()
    except OSError as error:
        raise CheckpointError(f"{out} cannot be written ({error.strerror}): check the disk.") from error


def _add_sizes(writer: "GGUFWriter", config: LlamaConfig) -> None:
    """Write the sizes of the model."""
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.dim)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.hidden_dim or feed_forward_width(config.dim, config.multiple_of))
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads or config.n_heads)
    writer.add_rope_dimension_count(config.dim // config.n_heads)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.layer_norm_eps)


def _their_name(name: str) -> str:
    """Translate the name of a tensor."""
    stem = name.removesuffix(".weight")
    if stem in NAMES:
        return f"{NAMES[stem]}.weight"
    _, layer_id, part = stem.split(".", 2)
    return f"blk.{layer_id}.{LAYER_NAMES[part]}.weight"


def _add_tokenizer(writer: "GGUFWriter", tokenizer: Tokenizer) -> None:
    """Write the tokenizer, and that a text begins with our first id."""
    if tokenizer.sp_model is None:
        _add_byte_bpe(writer, tokenizer)
    else:
        _add_sentencepiece(writer, tokenizer)
    writer.add_bos_token_id(tokenizer.bos_id)
    writer.add_eos_token_id(tokenizer.eos_id)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)


def _add_sentencepiece(writer: "GGUFWriter", tokenizer: Tokenizer) -> None:
    """Write a SentencePiece bpe, as llama.cpp's "llama"."""
    pieces = read_pieces(tokenizer)
    if pieces.kind != "bpe" or not pieces.byte_fallback:
        why = f"llama.cpp has no {pieces.kind} tokenizer that spells unknown characters as this one does"
        raise _refusal(tokenizer, why)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces.texts)
    writer.add_token_scores(pieces.scores)
    writer.add_token_types(pieces.types)  # the numbers are the same
    writer.add_unk_token_id(pieces.unknown_id)
    if (pad_id := tokenizer.sp_model.pad_id()) >= 0:
        writer.add_pad_token_id(pad_id)
    writer.add_add_space_prefix(pieces.space_in_front)


def _add_byte_bpe(writer: "GGUFWriter", tokenizer: Tokenizer) -> None:
    """Write a byte-level BPE, as llama.cpp's "gpt2"."""
    content = json.loads(tokenizer.path.read_text(encoding="utf-8"))
    model = content["model"]
    if model.get("type") != "BPE" or any(model.get(key, value) != value for key, value in PLAIN_BPE.items()):
        raise _refusal(tokenizer, f"its model is no plain BPE of bytes ({model.get('type')})")
    if content.get("normalizer"):
        raise _refusal(tokenizer, "it changes the text first (normalizer)")
    special = {token["id"]: token["content"] for token in content["added_tokens"]}
    if not all(token["special"] for token in content["added_tokens"]):
        raise _refusal(tokenizer, "it finds whole tokens in a text before it merges")
    texts = {i: text for text, i in model["vocab"].items()} | special
    if sorted(texts) != list(range(tokenizer.n_words)):
        raise _refusal(tokenizer, "it has ids without a token")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_split_name(tokenizer, content.get("pre_tokenizer")))
    writer.add_token_list([texts[i] for i in range(tokenizer.n_words)])
    writer.add_token_types([CONTROL if i in special else NORMAL for i in range(tokenizer.n_words)])
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]])


def _split_name(tokenizer: Tokenizer, splitter: Any) -> str:
    """Return llama.cpp's name for how text is cut before it is merged."""
    try:
        split, bytes_ = splitter["pretokenizers"]
        is_ours = (split["type"], split["behavior"], bytes_["type"]) == ("Split", "Isolated", "ByteLevel")
        if is_ours and not (split["invert"] or bytes_["add_prefix_space"] or bytes_["use_regex"]):
            return SPLITS[split["pattern"]["Regex"]]
    except (KeyError, TypeError, ValueError):
        pass  # another structure, or another rule
    raise _refusal(tokenizer, "llama.cpp has no name for how it cuts text into words")


def _refusal(tokenizer: Tokenizer, why: str) -> TokenizerError:
    """Return the error for a tokenizer that llama.cpp would use differently."""
    return TokenizerError(
        f"{tokenizer.path} cannot be exported for llama.cpp: {why}, so the ids would be others. "
        "Train one with --type bpe or byte-bpe"
    )
