"""Who generates: this project's engine, the student's own loop, transformers, llama.cpp. All answer two questions."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from config import LlamaConfig, feed_forward_width
from errors import MissingDependency
from hf_format import config_to, tensors_to
from inference.engine import Engine
from inference.generation import generate
from inference.matrix import Quantization
from llama import Llama
from pretrain import export_gguf
from tokenizer import Tokenizer

Prompts = Sequence[Sequence[int]]
STUDENTS_STEPS = 4  # that are timed of the student's loop, in which each costs as much as reading all of the text


class Contender(Protocol):
    """Somebody who generates greedily."""

    def decode(self, prompts: Prompts, steps: int) -> float:
        """Return the seconds of a step, a token more for each prompt: their mean, without that for the first token."""

    def prefill(self, prompt: Sequence[int]) -> float:
        """Return the seconds until the logits behind the prompt are there."""


class Ours:
    """The engine of `inference/`."""

    def __init__(self, llama: Llama, quantize: Quantization | None = None) -> None:
        """Arrange the weights."""
        self.engine = Engine(llama, quantize)

    def decode(self, prompts: Prompts, steps: int) -> float:
        """Return the seconds of a step."""
        times = [time.perf_counter() for _ in generate(self.engine, prompts, steps + 1)]
        return (times[-1] - times[0]) / steps

    def prefill(self, prompt: Sequence[int]) -> float:
        """Return the seconds of the prompt."""
        start = time.perf_counter()
        self.engine.prefill([prompt], room=1).sum().item()  # a number, so that a GPU has to be done
        return time.perf_counter() - start


class Student:
    """`Llama.generate`, the loop that students write."""

    def __init__(self, llama: Llama) -> None:
        """Keep the model."""
        self.llama = llama

    def decode(self, prompts: Prompts, steps: int) -> float:
        """Return the seconds of a step, from a few in the middle: their mean is nearly that of all."""
        timed = min(steps, STUDENTS_STEPS)
        before = (steps - timed) // 2
        tokens = torch.tensor([[*prompt, *[prompt[-1]] * before] for prompt in prompts], device=_device(self.llama))
        start = time.perf_counter()
        self.llama.generate(tokens, timed, temperature=0.0).sum().item()
        return (time.perf_counter() - start) / timed

    @torch.inference_mode()
    def prefill(self, prompt: Sequence[int]) -> float:
        """Return the seconds of the prompt."""
        tokens = torch.tensor([prompt], device=_device(self.llama))
        start = time.perf_counter()
        self.llama(tokens)[0].sum().item()
        return time.perf_counter() - start


class Transformers:
    """Hugging Face's `LlamaForCausalLM`, with its own `generate` and its cache."""

    def __init__(self, llama: Llama) -> None:
        """Build a model with the same weights. Raises MissingDependency."""
        self.model = transformers_model(llama)

    def decode(self, prompts: Prompts, steps: int) -> float:
        """Return the seconds of a step."""
        clock = _Clock()
        tokens = torch.tensor(prompts, device=self.model.device)
        mask = torch.ones_like(tokens)
        new = steps + 1
        self.model.generate(tokens, attention_mask=mask, max_new_tokens=new, do_sample=False, streamer=clock)
        first, last = clock.times[1], clock.times[-1]  # the 0th is that of the prompt, before it is read
        return (last - first) / steps

    @torch.inference_mode()
    def prefill(self, prompt: Sequence[int]) -> float:
        """Return the seconds of the prompt, read as `generate` reads it."""
        tokens = torch.tensor([prompt], device=self.model.device)
        start = time.perf_counter()
        self.model(tokens, use_cache=True, logits_to_keep=1).logits.sum().item()
        return time.perf_counter() - start


class _Clock:
    """What transformers calls a streamer: it is told of each new token."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, _: torch.Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


def transformers_model(llama: Llama) -> Any:
    """Return transformers' model with the weights of `llama`, on its device, in its dtype. Raises MissingDependency."""
    try:
        from transformers import LlamaConfig as TheirConfig
        from transformers import LlamaForCausalLM
    except ImportError as error:
        raise MissingDependency("this benchmark", "transformers") from error
    model = LlamaForCausalLM(TheirConfig(**config_to(llama.config), attn_implementation="sdpa"))
    model.load_state_dict(tensors_to(llama.state_dict(), llama.config), strict=False)  # the tied matrix is left out
    model.tie_weights()
    model.generation_config.eos_token_id = None  # random weights may write it at any time
    return model.to(_device(llama), llama.dtype).eval()


class LlamaCpp:
    """llama.cpp, as the package `xllamacpp` has it, on a GGUF file; with its own clock."""

    def __init__(self, file: Path, context: int, threads: int) -> None:
        """Read texts of at most `context` tokens. Raises MissingDependency."""
        try:
            import xllamacpp
        except ImportError as error:
            raise MissingDependency("this benchmark", "xllamacpp") from error
        self._library, self._file, self._context, self.threads = xllamacpp, file, context, threads
        self._servers: dict[int, Any] = {}  # by how many texts they read at once

    def decode(self, prompts: Prompts, steps: int) -> float:
        """Return the seconds of a step."""
        return self._timings(prompts, steps + 1)["predicted_per_token_ms"] / 1000

    def prefill(self, prompt: Sequence[int]) -> float:
        """Return the seconds of the prompt."""
        return self._timings([prompt], 1)["prompt_ms"] / 1000

    def _timings(self, prompts: Prompts, new: int) -> dict[str, float]:
        """Return what it says of a continuation by `new` tokens."""
        rows = len(prompts)
        self._servers[rows] = self._servers.get(rows) or self._start(rows)
        request = {"prompt": [list(prompt) for prompt in prompts], "n_predict": new}
        settings = {"temperature": 0, "cache_prompt": False, "ignore_eos": True}
        timings: dict[str, float] = self._servers[rows].handle_completions(request | settings)["timings"]
        return timings

    def _start(self, rows: int) -> Any:
        """Return a server for so many texts at once, with llama.cpp's own defaults."""
        params = self._library.CommonParams()
        params.model.path = str(self._file)
        params.n_parallel, params.n_ctx = rows, rows * self._context
        params.warmup, params.verbosity = False, 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self.threads
        return self._library.Server(params)


def faster_llama_cpp(file: Path, context: int, prompt: Sequence[int]) -> LlamaCpp:
    """Return llama.cpp with one thread or as many as PyTorch has, whichever decodes faster.

    Its threads wait for each other without sleeping: on a busy machine, more of them can be many times slower.
    """
    candidates = [LlamaCpp(file, context, threads) for threads in sorted({1, torch.get_num_threads()})]
    return min(candidates, key=lambda candidate: min(candidate.decode([prompt], 4) for _ in range(2)))


def write_gguf(folder: Path, llama: Llama, tokenizer: Tokenizer) -> dict[str, Path]:
    """Write a model for llama.cpp, in float32 and, where its matrices allow it, in its own 8 bits.

    Raises MissingDependency.
    """
    files = {"F32": folder / "f32.gguf"}
    export_gguf.write(files["F32"], llama.config, llama.state_dict(), tokenizer)
    if can_be_q8_0(llama.config):
        files["Q8_0"] = folder / "q8_0.gguf"
        _quantize(files["F32"], files["Q8_0"])
    return files


def can_be_q8_0(config: LlamaConfig) -> bool:
    """Say whether every row of every matrix can be cut into Q8_0's blocks of 32 numbers."""
    hidden_dim = config.hidden_dim or feed_forward_width(config.dim, config.multiple_of)
    return config.dim % 32 == 0 and hidden_dim % 32 == 0


def _quantize(source: Path, out: Path) -> None:
    """Copy a GGUF file with its matrices in Q8_0, as `llama-quantize` would make it."""
    import gguf

    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(out, "llama")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in ("general.architecture", "general.file_type"):
            kind, *inner = field.types
            writer.add_key_value(field.name, field.contents(), kind, inner[0] if inner else None)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    for tensor in reader.tensors:
        if tensor.data.ndim == 1:
            writer.add_tensor(tensor.name, tensor.data)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(tensor.name, gguf.quants.quantize(tensor.data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _device(llama: Llama) -> torch.device:
    """Return where a model is."""
    return llama.tok_embeddings.weight.device
