import math
import torch
import torch.nn as nn

from config import LlamaConfig
from utils import *


class LlamaPreTrainedModel(nn.Module):
  config_class = LlamaConfig
  base_model_prefix = "llama"

  def __init__(self, config):
    super().__init__()
    self.config = config
    self.name_or_path = config.name_or_path

  def init_weights(self):
    # all matrices first
    self.apply(self._init_weights)
    # then the projections inside a layer that are added up, scaled down as in GPT-2
    std = 0.02 / math.sqrt(2 * self.config.n_layers)
    for pn, p in self.named_parameters():
      if pn.endswith('w3.weight') or pn.endswith('compute_output.weight'):
        torch.nn.init.normal_(p, mean=0.0, std=std)

  def _init_weights(self, module):
    if isinstance(module, (nn.Linear, nn.Embedding)):
      torch.nn.init.normal_(module.weight, mean=0.0, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
      torch.nn.init.zeros_(module.bias)

  @property
  def dtype(self) -> torch.dtype:
    return get_parameter_dtype(self)
