"""The tasks of `run_llama.py --fast`: those of `tasks.py`, with this folder's machinery in the places that take time.

Texts, predictions and the course of a training are the same up to the rounding of single precision, which seldom shows
in a text or a label. Two options ask for more: `--quantize` rounds the weights, and on a GPU a finetuning computes in
bfloat16.
"""

import argparse
import dataclasses
from collections.abc import Iterator
from time import perf_counter
from typing import Any

import torch

from classifier import LlamaEmbeddingClassifier
from errors import UsageError
from finetune import Finetuner
from inference.engine import Engine
from inference.fast_adamw import FastAdamW
from inference.finetuning import speed_up_classifier
from inference.generation import generate
from inference.prompting import FastZeroShotClassifier
from inference.sampling import Sampling
from inference.streaming import IncrementalDecoder
from tasks import Classification, Generation, Results
from utils import seed_everything


def run_task(args: argparse.Namespace) -> Results:
    """Run the task that `args.option` names, as `tasks.run_task` does."""
    seed_everything(args.seed)
    return FastGeneration(args).run() if args.option == "generate" else FastClassification(args).run()


class FastGeneration(Generation):
    """Keeps what it has read, cuts off unlikely tokens if asked to, and shows the text while it comes."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Prepare the engine. Raises UsageError for a `--top_p` above 1."""
        try:
            self.sampling = Sampling(top_k=args.top_k, top_p=args.top_p)
        except ValueError as error:
            raise UsageError(f"--{error}") from error
        super().__init__(args)
        self.engine = Engine(self.llama, args.quantize)
        self.speed = ""

    def continue_prompt(self, temperature: float) -> str:
        """Return the prompt with its continuation, both on the screen by then if `--stream` asks for it."""
        if self.args.stream:
            print(f"Temperature is {temperature}")
        times = [perf_counter()]
        decoder = IncrementalDecoder(self.tokenizer, self.ids)
        text = self._show(self.tokenizer.decode(self.ids))
        for token in self._new_tokens(temperature):
            times.append(perf_counter())
            text += self._show(decoder.push(token))
        text += self._show(decoder.flush())
        self.speed = _speed(min(len(self.ids), self.engine.config.max_seq_len), times)
        return text

    def report(self, temperature: float, text: str) -> None:
        """Print the text, unless that was done, and how long it took."""
        print("" if self.args.stream else f"Temperature is {temperature}\n{text}")
        print(f"{self.speed}\n")

    def _new_tokens(self, temperature: float) -> Iterator[int]:
        """Yield the new tokens one by one; no token ends the text, as in `Llama.generate`."""
        sampling = dataclasses.replace(self.sampling, temperature=temperature)
        for step in generate(self.engine, [self.ids], self.args.max_new_tokens, sampling):
            yield from (token for token in step if token is not None)

    def _show(self, piece: str) -> str:
        """Return a piece of text, which is on the screen by then if `--stream` asks for it."""
        if self.args.stream:
            print(piece, end="", flush=True)
        return piece


def _speed(read: int, times: list[float]) -> str:
    """Return the line about a text's speed: `read` tokens of the prompt, the times of the start and of each new token.

    The first new token comes with the prompt; the others are decoded.
    """
    line = f"prefill: {read} tokens, {read / (times[1] - times[0]):.1f} tokens/s"
    decoded = len(times) - 2
    return f"{line}; decode: {decoded} tokens, {decoded / (times[-1] - times[1]):.1f} tokens/s" if decoded else line


class FastClassification(Classification):
    """Reads the prompt once for all labels, and trains with fused kernels."""

    def zero_shot_classifier(self) -> FastZeroShotClassifier:
        """Return what `prompt` classifies with."""
        return FastZeroShotClassifier(self.config, self.tokenizer, self.label_names)

    def finetuner(self, classifier: LlamaEmbeddingClassifier, **more: Any) -> Finetuner:
        """Return what `finetune` trains with; `classifier` is made faster in place."""
        speed_up_classifier(classifier, compiled=self.args.compile)
        return super().finetuner(classifier, optimizer=FastAdamW, precision=self._precision(), **more)

    def identity(self) -> Results:
        """Return what a resumed run must share: how it computes as well, since the rounding must not change midway."""
        how = {"fast": True, "compile": self.args.compile, "precision": str(self._precision())}
        return super().identity() | how

    def _precision(self) -> torch.dtype:
        """Return what the training computes in: bfloat16 on a GPU that has it."""
        has_bfloat16 = self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float32
