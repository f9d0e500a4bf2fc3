import copy
import json
import os
from typing import Any, Dict, Optional, Union

from utils import CONFIG_NAME, fetch_file, is_remote_url


class PretrainedConfig(object):
    """Base of all configurations: takes any keyword, can be read from and written to json."""

    model_type = ""

    def __init__(self, **kwargs):
        self.return_dict = kwargs.pop("return_dict", True)
        self.output_hidden_states = kwargs.pop("output_hidden_states", False)
        self.output_attentions = kwargs.pop("output_attentions", False)
        self.torchscript = kwargs.pop("torchscript", False)

        self.bos_token_id = kwargs.pop("bos_token_id", None)
        self.pad_token_id = kwargs.pop("pad_token_id", None)
        self.eos_token_id = kwargs.pop("eos_token_id", None)

        num_labels = kwargs.pop("num_labels", 2)
        self.id2label = kwargs.pop("id2label", None) or {i: "LABEL_%d" % i for i in range(num_labels)}
        self.label2id = {label: i for i, label in self.id2label.items()}

        # where it came from, if it came from a file
        self.name_or_path = str(kwargs.pop("name_or_path", ""))

        # whatever is left becomes an attribute
        for name in kwargs:
            setattr(self, name, kwargs[name])

    @property
    def num_labels(self) -> int:
        return len(self.id2label)

    @classmethod
    def from_pretrained(cls, where: Union[str, os.PathLike], **kwargs) -> "PretrainedConfig":
        settings = cls.get_config_dict(where)
        settings.update(kwargs)
        settings.pop("model_type", None)
        settings["name_or_path"] = where
        return cls(**settings)

    @classmethod
    def get_config_dict(cls, where: Union[str, os.PathLike]) -> Dict[str, Any]:
        where = str(where)
        if os.path.isdir(where):
            path = os.path.join(where, CONFIG_NAME)
        elif is_remote_url(where):
            path = fetch_file(where)
        else:
            path = where
        with open(path, encoding="utf-8") as f:
            return json.load(f)

    def to_dict(self) -> Dict[str, Any]:
        output = copy.deepcopy(self.__dict__)
        output["model_type"] = self.model_type
        return output

    def save_pretrained(self, directory: str):
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, CONFIG_NAME), "w", encoding="utf-8") as f:
            json.dump(self.to_dict(), f, indent=2, sort_keys=True)

    def __eq__(self, other):
        return self.__dict__ == other.__dict__

    def __repr__(self):
        return "%s %s" % (type(self).__name__, json.dumps(self.to_dict(), default=str, sort_keys=True))


class LlamaConfig(PretrainedConfig):
  model_type = "llama"

  def __init__(
    self,
    vocab_size: int = 32000,
    dim: int = 512,
    dropout: float = 0.0,
    n_layers: int = 8,
    n_heads: int = 8,
    n_kv_heads: Optional[int] = 8,
    max_seq_len: int = 1024,
    layer_norm_eps: float = 1e-5,
    multiple_of: int = 32,
    hidden_dim: Optional[int] = None,
    position_embedding_type: str = "rotary",
    use_cache: bool = True,
    **kwargs
  ):
    super().__init__(**kwargs)

    self.vocab_size = vocab_size
    self.dim = dim
    self.dropout = dropout
    self.n_layers = n_layers
    self.n_heads = n_heads
    self.n_kv_heads = n_kv_heads
    self.max_seq_len = max_seq_len
    self.layer_norm_eps = layer_norm_eps
    self.multiple_of = multiple_of
    self.hidden_dim = hidden_dim
    self.position_embedding_type = position_embedding_type
    self.use_cache = use_cache
