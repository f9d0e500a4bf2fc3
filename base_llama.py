"""What every Llama-shaped model shares: it keeps its configuration and initialises its weights."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from config import LlamaConfig
from utils import get_parameter_dtype

__all__ = ["LlamaConfig", "LlamaPreTrainedModel", "SkipInit"]

INIT_STD = 0.02
# The layers whose output is added to the residual stream.
RESIDUAL_PROJECTIONS = ("compute_output.weight", "w2.weight")


class LlamaPreTrainedModel(nn.Module):
    """Base of the models: holds `config` and knows how weights start."""

    def __init__(self, config: LlamaConfig) -> None:
        """Keep the configuration; subclasses build their layers and then call `init_weights`."""
        super().__init__()
        self.config = config

    def init_weights(self) -> None:
        """Draw every matrix from N(0, 0.02²), and residual projections from N(0, 0.02² / (2 n_layers)).

        Each of the n_layers layers adds two branches to the residual stream; the smaller start of what they add keeps
        the stream's variance from growing with depth (GPT-2: Radford et al. 2019, section 2.3).
        """
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue  # the weights of RMSNorm start at one
            is_residual = name.endswith(RESIDUAL_PROJECTIONS)
            std = INIT_STD / math.sqrt(2 * self.config.n_layers) if is_residual else INIT_STD
            nn.init.normal_(parameter, mean=0.0, std=std)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return get_parameter_dtype(self)


class SkipInit(TorchFunctionMode):
    """While it is active, `torch.nn.init` draws no random numbers: for a model whose weights come from a file.

    Drawing them takes a second at 42 M parameters, and touches memory that is replaced at once.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Hand a tensor back instead of filling it with random numbers; do everything else."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
