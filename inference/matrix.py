"""A weight matrix to multiply with: as it is, or in whole numbers of eight bits. Both are called as `F.linear` is."""

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Literal

import torch

from errors import UsageError

Quantization = Literal["int8"]
Matrix = Callable[[torch.Tensor], torch.Tensor]  # (rows, in) -> (rows, out)

# For so many rows the BLAS of PyTorch's CPU wheels (MKL) is faster with the weights on the left of the product.
FEW = range(8, 48)
KERNELS = ("fbgemm", "onednn", "qnnpack")  # PyTorch's kernels for int8, the fastest first


def make_matrix(weight: torch.Tensor, quantize: Quantization | None) -> Matrix:
    """Return the product with `weight`, of shape (out, in), quantised if asked for.

    Raises UsageError if this machine's PyTorch has no kernel for that.
    """
    return Dense(weight) if quantize is None else Int8(weight)


class Dense:
    """The product with a matrix of floating-point numbers."""

    def __init__(self, weight: torch.Tensor) -> None:
        """Keep `weight`, of shape (out, in); it is not copied."""
        self.weight = weight
        self._columns = weight.t()  # a view; F.linear would make one each time
        self._few = FEW if weight.device.type == "cpu" else range(0)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply. Shapes: (rows, in) -> (rows, out)."""
        if len(x) in self._few:
            return torch.mm(self.weight, x.t()).t()  # (out, rows) -> (rows, out)
        return torch.mm(x, self._columns)


class Int8:
    """The product with a matrix of whole numbers from -127 to 127, times a scale for each of its rows.

    What it is multiplied with is rounded to eight bits as well, by one scale for all of its rows, found each time
    (dynamic quantisation: Jacob et al. 2018, arXiv 1712.05877, section 2). On processors that add such products in
    sixteen bits, it is rounded to seven, as the sums would not fit.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        """Round `weight`, of shape (out, in). Raises UsageError if PyTorch has no kernel for int8 on this machine."""
        if weight.device.type != "cpu":
            where = f"int8 is for the CPU, but the model is on {weight.device.type}"
            raise UsageError(f"{where}: leave --quantize out, or use --device cpu")
        self._packed = _pack(weight)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply. Shapes: (rows, in) -> (rows, out)."""
        product: torch.Tensor = torch.ops.quantized.linear_dynamic(x.float(), self._packed, not _has_wide_sums())
        return product.type_as(x)


@functools.cache
def _has_wide_sums() -> bool:
    """Say whether this processor adds products of eight bits in thirty-two (Intel's VNNI)."""
    # Older versions of PyTorch cannot say.
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_vnni", "avx_vnni"))


def _pack(weight: torch.Tensor) -> object:
    """Return a matrix as PyTorch's int8 kernels want it."""
    kernel = next((name for name in KERNELS if name in torch.backends.quantized.supported_engines), None)
    if kernel is None:
        raise UsageError("this build of PyTorch has no kernels for int8: leave --quantize out")
    weight = weight.float()
    scale = (weight.abs().amax(dim=1) / 127).clamp(min=torch.finfo(torch.float32).tiny)  # (out,)
    zero = torch.zeros(len(weight), dtype=torch.int64)
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = kernel  # of the whole process, while the matrix is packed
    try:
        with warnings.catch_warnings():
            # The type of the argument is deprecated; nothing else in PyTorch is as fast yet (benchmarks/README.md).
            warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
            rounded = torch.quantize_per_channel(weight, scale, zero, 0, torch.qint8)
        return torch.ops.quantized.linear_prepack(rounded, None)
    finally:
        torch.backends.quantized.engine = before
