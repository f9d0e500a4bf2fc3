import hashlib
import logging
import os
import sys
import tempfile
from typing import Optional
from urllib.parse import urlparse

import importlib_metadata
import requests
import torch
from filelock import FileLock
from torch import Tensor
from tqdm.auto import tqdm

__version__ = "1.0.0"
logger = logging.getLogger(__name__)

_torch_version = importlib_metadata.version("torch")

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "pytorch_model.bin"

default_cache_path = os.path.join(os.path.expanduser("~"), ".cache", "minllama")
CACHE = os.getenv("MINLLAMA_CACHE", default_cache_path)

SESSION_AGENT = "minllama/%s; python/%s; torch/%s" % (__version__, sys.version.split()[0], _torch_version)


def is_remote_url(url_or_filename):
    return urlparse(url_or_filename).scheme in ("http", "https")


def name_in_cache(url: str, etag: Optional[str] = None) -> str:
    """One file per address and version."""
    name = hashlib.sha256(url.encode("utf-8")).hexdigest()
    if etag:
        name += "." + hashlib.sha256(etag.encode("utf-8")).hexdigest()
    return name


def http_get(url: str, temp_file, headers=None):
    answer = requests.get(url, stream=True, headers=dict(headers or {}, **{"user-agent": SESSION_AGENT}), timeout=30)
    answer.raise_for_status()
    length = answer.headers.get("Content-Length")
    bar = tqdm(unit="B", unit_scale=True, total=int(length) if length else None, desc="Downloading")
    for chunk in answer.iter_content(chunk_size=8192):
        if chunk:
            bar.update(len(chunk))
            temp_file.write(chunk)
    bar.close()


def fetch_file(url: str, cache_dir: Optional[str] = None) -> str:
    """Download a file if it is not in the cache, and return where it lies."""
    cache_dir = cache_dir or CACHE
    os.makedirs(cache_dir, exist_ok=True)
    etag = requests.head(url, allow_redirects=True, timeout=10).headers.get("ETag")
    cache_path = os.path.join(cache_dir, name_in_cache(url, etag))
    # only one process may write the file
    with FileLock(cache_path + ".lock"):
        if not os.path.exists(cache_path):
            with tempfile.NamedTemporaryFile(mode="wb", dir=cache_dir, delete=False) as temp_file:
                logger.info("%s is not in the cache, downloading to %s", url, temp_file.name)
                http_get(url, temp_file)
            os.replace(temp_file.name, cache_path)
    return cache_path


def get_parameter_dtype(parameter: torch.nn.Module):
    try:
        return next(parameter.parameters()).dtype
    except StopIteration:
        # no parameters (for instance a copy of DataParallel): look for tensors
        tensors = [v for v in vars(parameter).values() if isinstance(v, Tensor)]
        return tensors[0].dtype


def get_extended_attention_mask(attention_mask: Tensor, dtype) -> Tensor:
    """Turns a mask of ones and zeros into one that is added to the scores."""
    if attention_mask.dim() == 3:
        extended = attention_mask[:, None, :, :]
    elif attention_mask.dim() == 2:
        extended = attention_mask[:, None, None, :]
    else:
        raise ValueError("wrong shape of attention_mask: {}".format(tuple(attention_mask.shape)))
    return (1.0 - extended.to(dtype=dtype)) * -10000.0
