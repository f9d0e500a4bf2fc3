"""The model that a recipe asks for: the assignment's own Llama, with what training adds to it."""

import torch
import torch.nn.functional as F
from torch import nn

from llama import Llama, LlamaLayer
from pretrain.recipe import ModelRecipe


def build_model(recipe: ModelRecipe, vocab_size: int, pad_id: int) -> Llama:
    """Return a new Llama, initialised from PyTorch's random numbers as they stand."""
    model = Llama(recipe.config(vocab_size, pad_id))
    if recipe.initialisation == "xavier":
        _xavier(model)
    if recipe.distinct_layers is not None:
        share_layers(model, recipe.distinct_layers)
    _set_dropout(model, recipe)
    return model


def share_layers(model: Llama, distinct: int) -> None:
    """Let layer i be layer i modulo `distinct`: fewer weights, same depth (Lan et al. 2020, arXiv 1909.11942, 3.1)."""
    for i in range(distinct, len(model.layers)):
        model.layers[i] = model.layers[i % distinct]


def parameter_count(model: nn.Module) -> int:
    """Return the number of weights; those that are shared count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def flops_per_token(model: Llama) -> int:
    """Return the floating-point operations of a token's forward and backward pass (Chowdhery et al. 2022, appendix B).

    Six for each weight that is multiplied with, and 12 · dim · max_seq_len a layer for the scores and the mixing of
    attention. Looking up an embedding costs nothing; the output matrix counts, tied or not, and so does each use of a
    shared layer.
    """
    config = model.config
    in_layers = sum(parameter.numel() for layer in model.layers for parameter in layer.parameters())
    attention = 12 * config.n_layers * config.dim * config.max_seq_len
    return 6 * (in_layers + model.output.weight.numel()) + attention


def next_token_loss(
    model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, precision: torch.dtype
) -> torch.Tensor:
    """Return the mean cross-entropy in nats a token, with matrix products in `precision` and the loss in float32.

    Shapes: inputs and targets (bs, seqlen) -> ().
    """
    with torch.autocast(inputs.device.type, precision, enabled=precision != torch.float32):
        logits, _ = model(inputs, targets)  # (bs, seqlen, vocab_size)
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def _xavier(model: Llama) -> None:
    """Start every matrix from Glorot & Bengio's normal distribution (2010, equation 16)."""
    for parameter in model.parameters():
        if parameter.dim() >= 2:
            nn.init.xavier_normal_(parameter)


def _set_dropout(model: Llama, recipe: ModelRecipe) -> None:
    """Set each kind of dropout on its own: `LlamaConfig` has one for all."""
    model.dropout.p = recipe.dropout_embeddings
    for layer in model.layers:
        assert isinstance(layer, LlamaLayer)
        layer.attention.attn_dropout.p = recipe.dropout_attention
        layer.attention.resid_dropout.p = recipe.dropout_residual
        layer.feed_forward.dropout.p = recipe.dropout_residual


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, list[nn.Parameter] | float]]:
    """Part the weights into matrices, which decay, and vectors (the norms), which do not."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
