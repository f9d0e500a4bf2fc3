"""How does a tensor travel? As the name of its dtype, its shape, and its bytes, which are copied at once."""

import ctypes
from collections.abc import Mapping

import torch
from torch import nn

from autograder.sandboxed.protocol import MAX_NAME, SIZES, Array


def to_array(tensor: torch.Tensor) -> Array:
    """Copy a dense tensor on the CPU, of one of SIZES. Its bytes are taken at once: later changes do not show."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    name = str(plain.dtype).removeprefix("torch.")
    size = plain.numel() * plain.element_size()
    data = ctypes.string_at(plain.data_ptr(), size) if size else b""
    return Array(name, tuple(int(n) for n in plain.shape), data)


def to_tensor(array: Array) -> torch.Tensor:
    """Return the tensor of an array that `decode` gave."""
    dtype = getattr(torch, array.dtype)
    if not array.data:
        return torch.empty(array.shape, dtype=dtype)
    flat = torch.frombuffer(bytearray(array.data), dtype=torch.uint8)
    # a bool is one byte, and only 0 and 1 are sound ones
    return (flat != 0 if dtype is torch.bool else flat.view(dtype)).reshape(array.shape)


def kind_of(value: object) -> str:
    """Return "" for what can be sent as it is, or else how to call it: the name of its type."""
    if type(value) not in (torch.Tensor, nn.Parameter):
        return type(value).__name__
    assert isinstance(value, torch.Tensor)
    if value.layout is not torch.strided or value.is_quantized:
        return f"Tensor with layout {value.layout}"
    if value.device.type != "cpu":
        return f"Tensor on device {value.device}"
    if value.is_nested or str(value.dtype).removeprefix("torch.") not in SIZES:
        return f"Tensor of dtype {value.dtype}"
    return ""


def pack(values: Mapping[str, object], max_bytes: int) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the tensors of a call's outputs as arrays, and what the others are, by name.

    Tensors that together are larger than `max_bytes` (an expanded one holds no memory, its copy would) are named too.
    """
    arrays: dict[str, Array] = {}
    others: dict[str, str] = {}
    for name, value in values.items():
        if kind := kind_of(value):
            others[str(name)[:MAX_NAME]] = kind
            continue
        assert isinstance(value, torch.Tensor)
        max_bytes -= value.numel() * value.element_size()
        if max_bytes < 0:
            others[str(name)[:MAX_NAME]] = f"Tensor of shape {tuple(value.shape)}, which is too large"
        else:
            arrays[str(name)[:MAX_NAME]] = to_array(value)
    return arrays, others
