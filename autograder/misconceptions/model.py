"""Wrong variants of `RMSNorm._norm` and of `LlamaLayer.forward`."""

import torch
from torch import Tensor, nn

from autograder.misconceptions.base import Catalogue
from llama import LlamaLayer, RMSNorm

RMSNORM = Catalogue("rmsnorm", "llama.RMSNorm._norm")


def _mean_square(x: Tensor) -> Tensor:
    """Return the mean square of each vector. Shapes: (..., dim) -> (..., 1)."""
    return x.pow(2).mean(dim=-1, keepdim=True)


@RMSNORM.add("RMSNorm without the square root: it divides by the mean square")
def _no_root(self: RMSNorm, x: Tensor) -> Tensor:
    return x / (_mean_square(x) + self.eps)


@RMSNORM.add("RMSNorm that multiplies by the root mean square instead of dividing by it")
def _multiplied(self: RMSNorm, x: Tensor) -> Tensor:
    return x * torch.sqrt(_mean_square(x) + self.eps)


@RMSNORM.add("RMSNorm with eps outside the root")
def _eps_outside(self: RMSNorm, x: Tensor) -> Tensor:
    return x / (torch.sqrt(_mean_square(x)) + self.eps)


@RMSNORM.add("RMSNorm without eps")
def _no_eps(self: RMSNorm, x: Tensor) -> Tensor:
    return x / torch.sqrt(_mean_square(x))


@RMSNORM.add("RMSNorm with a fixed eps of 1e-6 instead of self.eps")
def _fixed_eps(self: RMSNorm, x: Tensor) -> Tensor:
    return x * torch.rsqrt(_mean_square(x) + 1e-6)


@RMSNORM.add("LayerNorm: the mean is subtracted first")
def _layer_norm(self: RMSNorm, x: Tensor) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred * torch.rsqrt(_mean_square(centred) + self.eps)


@RMSNORM.add("RMSNorm that divides by the standard deviation instead of the root mean square")
def _deviation(self: RMSNorm, x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.var(dim=-1, keepdim=True, unbiased=False) + self.eps)


@RMSNORM.add("RMSNorm with the sum of the squares instead of their mean")
def _sum_of_squares(self: RMSNorm, x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).sum(dim=-1, keepdim=True) + self.eps)


@RMSNORM.add("RMSNorm that divides the sum of the squares by dim - 1")
def _one_less(self: RMSNorm, x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).sum(dim=-1, keepdim=True) / (x.shape[-1] - 1) + self.eps)


@RMSNORM.add("RMSNorm with the mean of the absolute values instead of the root mean square")
def _mean_absolute(self: RMSNorm, x: Tensor) -> Tensor:
    return x / (x.abs().mean(dim=-1, keepdim=True) + self.eps)


@RMSNORM.add("RMSNorm with the square of the mean instead of the mean of the squares")
def _square_of_mean(self: RMSNorm, x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.mean(dim=-1, keepdim=True).pow(2) + self.eps)


@RMSNORM.add("RMSNorm with the mean over the positions instead of the last dimension")
def _over_positions(self: RMSNorm, x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(dim=-2, keepdim=True) + self.eps)


@RMSNORM.add("RMSNorm with one mean over the whole tensor instead of one a vector")
def _over_everything(self: RMSNorm, x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean() + self.eps)


@RMSNORM.add("RMSNorm whose _norm applies the weight, which forward applies again")
def _weighted(self: RMSNorm, x: Tensor) -> Tensor:
    return x * torch.rsqrt(_mean_square(x) + self.eps) * self.weight


LAYER = Catalogue("layer", "llama.LlamaLayer.forward")


def _run(module: nn.Module, x: Tensor) -> Tensor:
    """Call a part of a layer."""
    out: Tensor = module(x)
    return out


@LAYER.add("a layer in post-norm form: each norm comes after the addition")
def _post_norm(self: LlamaLayer, x: Tensor) -> Tensor:
    h = _run(self.attention_norm, x + _run(self.attention, x))
    return _run(self.ffn_norm, h + _run(self.feed_forward, h))


@LAYER.add("a layer that normalises what attention and feed-forward return instead of what they get")
def _norm_of_result(self: LlamaLayer, x: Tensor) -> Tensor:
    h = x + _run(self.attention_norm, _run(self.attention, x))
    return h + _run(self.ffn_norm, _run(self.feed_forward, h))


@LAYER.add("a layer without its norms")
def _no_norms(self: LlamaLayer, x: Tensor) -> Tensor:
    h = x + _run(self.attention, x)
    return h + _run(self.feed_forward, h)


@LAYER.add("a layer without attention_norm")
def _no_attention_norm(self: LlamaLayer, x: Tensor) -> Tensor:
    h = x + _run(self.attention, x)
    return h + _run(self.feed_forward, _run(self.ffn_norm, h))


@LAYER.add("a layer without ffn_norm")
def _no_ffn_norm(self: LlamaLayer, x: Tensor) -> Tensor:
    h = x + _run(self.attention, _run(self.attention_norm, x))
    return h + _run(self.feed_forward, h)


@LAYER.add("a layer whose two norms are swapped")
def _swapped_norms(self: LlamaLayer, x: Tensor) -> Tensor:
    h = x + _run(self.attention, _run(self.ffn_norm, x))
    return h + _run(self.feed_forward, _run(self.attention_norm, h))


@LAYER.add("a layer that uses attention_norm twice")
def _same_norm(self: LlamaLayer, x: Tensor) -> Tensor:
    h = x + _run(self.attention, _run(self.attention_norm, x))
    return h + _run(self.feed_forward, _run(self.attention_norm, h))


@LAYER.add("a layer without residual connections")
def _no_residuals(self: LlamaLayer, x: Tensor) -> Tensor:
    h = _run(self.attention, _run(self.attention_norm, x))
    return _run(self.feed_forward, _run(self.ffn_norm, h))


@LAYER.add("a layer without the residual connection around attention")
def _no_attention_residual(self: LlamaLayer, x: Tensor) -> Tensor:
    h = _run(self.attention, _run(self.attention_norm, x))
    return h + _run(self.feed_forward, _run(self.ffn_norm, h))


@LAYER.add("a layer without the residual connection around the feed-forward part")
def _no_ffn_residual(self: LlamaLayer, x: Tensor) -> Tensor:
    h = x + _run(self.attention, _run(self.attention_norm, x))
    return _run(self.feed_forward, _run(self.ffn_norm, h))


@LAYER.add("a layer that adds the normalised input instead of the input itself")
def _residual_of_norm(self: LlamaLayer, x: Tensor) -> Tensor:
    x = _run(self.attention_norm, x)
    h = _run(self.ffn_norm, x + _run(self.attention, x))
    return h + _run(self.feed_forward, h)


@LAYER.add("a layer whose feed-forward part runs beside attention, on the layer's input")
def _parallel(self: LlamaLayer, x: Tensor) -> Tensor:
    attended = _run(self.attention, _run(self.attention_norm, x))
    return x + attended + _run(self.feed_forward, _run(self.ffn_norm, x))


@LAYER.add("a layer that adds its input instead of attention's sum to the feed-forward part's result")
def _residual_of_input(self: LlamaLayer, x: Tensor) -> Tensor:
    h = x + _run(self.attention, _run(self.attention_norm, x))
    return x + _run(self.feed_forward, _run(self.ffn_norm, h))


@LAYER.add("a layer whose feed-forward part comes before attention")
def _ffn_first(self: LlamaLayer, x: Tensor) -> Tensor:
    h = x + _run(self.feed_forward, _run(self.ffn_norm, x))
    return h + _run(self.attention, _run(self.attention_norm, h))
