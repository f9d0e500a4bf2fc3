"""Generation: `inference/` beside transformers, llama.cpp and the student's own loop, and how near it is to the limit.

The limit of a step is the time of one matrix-vector product over as many bytes as the weights have, or of as many
floating-point operations in one matrix product, whichever takes longer. It takes its turn in every round, as if it were
a contender.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks import report
from benchmarks.breakdown import DRAWING, MATRICES, NORMS, ROPE, Part, break_down, parts_table, their_parts
from benchmarks.contenders import Contender, LlamaCpp, Ours, Student, Transformers, faster_llama_cpp, write_gguf
from benchmarks.machine import bandwidth, describe, matmul_rate, own_seconds, reading, seconds, take_turns
from benchmarks.material import STORYBOOK, asset, random_llama, tokenizer_of
from config import LlamaConfig
from errors import MinLlamaError, UsageError
from inference import generation, matrix, packed
from inference.engine import Engine
from llama import Llama, load_pretrained
from plots import new_figure, save_figure
from pretrain.corpus import read_documents
from pretrain.encoding import is_held_out
from sentiment_data import read_examples
from tokenizer import Tokenizer, find_tokenizer
from utils import pick_device

ROOT = Path(__file__).resolve().parent.parent
REAL = "stories260K"
PEER, LIMIT, INT8_LIMIT = "transformers", "the limit", "the limit, int8"
OURS, INT8, STUDENT = "ours", "ours, int8", "the student's loop"


@dataclass(frozen=True)
class Task:
    """What is timed: a step of decoding for each of `rows` prompts, or, without steps, reading a prompt."""

    title: str
    rows: int
    prompt: int  # tokens, or as many as the model reads
    steps: int  # whose mean is taken


TASKS = {
    "decode": Task("A token at a time", rows=1, prompt=16, steps=60),
    "decode 16": Task("A token at a time, for 16 texts", rows=16, prompt=16, steps=20),
    "prefill": Task("Reading a prompt", rows=1, prompt=512, steps=0),
}
PREFIXES = (16, 64, 128, 256, 512)  # tokens, of the cost curve
CURVE_STEPS = 8
ON_CURVE = (OURS, PEER, STUDENT)
TO_PROFILE = 40  # steps
LOSS_ROWS, LOSS_TOKENS = 16, 256  # of the text that int8's loss is measured on
HELD_OUT = 0.02  # the share of the stories that the checkpoint was not trained on, by its README
OUR_PARTS: list[Part] = [
    (MATRICES, matrix.Dense, "__call__"),
    (MATRICES, matrix.Int8, "__call__"),
    (ROPE, packed.PackedLlama, "_rotate"),
    (NORMS, packed.PackedLlama, "_normed"),
    (DRAWING, generation, "draw"),
]


# ---------------------------------------------------------------------------------------------------- measuring


def measure(*, sizes: Sequence[str], rounds: int, device: str = "cpu") -> dict[str, Any]:
    """Time all contenders at all sizes; return the machine, a row each, the cost curve, where the time goes.

    On a GPU the models are in bfloat16, and int8 and llama.cpp take no part. Raises MissingDependency, and UsageError
    if there is no such device.
    """
    where = pick_device(device)
    result: dict[str, Any] = {"rounds": rounds, "notes": [], "rows": [], "threads": {}}
    detailed = "42m" if "42m" in sizes else sizes[-1]  # the size that has a curve and a profile
    for size in sizes:
        try:
            llama, tokenizer = _model(size)
        except UsageError as error:
            result["notes"].append(f"{size} was left out: {error}.")
            continue
        llama = llama.to(where, torch.float32 if where.type == "cpu" else torch.bfloat16)
        with tempfile.TemporaryDirectory() as folder:
            contenders = _contenders(llama)
            if where.type == "cpu" and tokenizer:
                contenders |= _llama_cpp(Path(folder), llama, tokenizer, size, result)
            result["rows"] += _rows(size, llama, contenders, rounds)
        if size == detailed:
            result["curve"] = {"size": size, "rows": _curve(llama, contenders, rounds)}
            result["parts"] = {size: _parts(contenders)} if where.type == "cpu" else {}
    if where.type == "cpu":
        result["loss"] = _int8_loss()
    return {"machine": describe(where), "gigabytes_per_second": bandwidth(where) / 1e9} | result


def _model(size: str) -> tuple[Llama, Tokenizer | None]:
    """Return a model and, if it is here, its tokenizer, without which llama.cpp reads nothing. Raises UsageError."""
    if size == REAL:
        folder = ROOT / "weights" / REAL
        here = folder if (folder / f"{REAL}.bin").is_file() else asset(f"{REAL}.bin").parent
        return load_pretrained(here / f"{REAL}.bin"), Tokenizer(tokenizer_model=here / "tok512.bin")
    try:
        return random_llama(size), tokenizer_of(size)
    except UsageError:
        return random_llama(size), None


def _contenders(llama: Llama) -> dict[str, Contender]:
    """Return who generates with these weights in this process. Raises MissingDependency."""
    contenders: dict[str, Contender] = {OURS: Ours(llama)}
    if llama.tok_embeddings.weight.device.type == "cpu":
        contenders[INT8] = Ours(llama, "int8")
    return contenders | {PEER: Transformers(llama), STUDENT: Student(llama)}


def _llama_cpp(
    folder: Path, llama: Llama, tokenizer: Tokenizer, size: str, result: dict[str, Any]
) -> dict[str, LlamaCpp]:
    """Return llama.cpp on what it can read of the model, or a note on why it cannot."""
    prompt = _prompts(llama.config, TASKS["decode"])[0]
    try:
        files = write_gguf(folder, llama, tokenizer)
        found = {
            f"llama.cpp, {kind}": faster_llama_cpp(file, llama.config.max_seq_len, prompt)
            for kind, file in files.items()
        }
    except MinLlamaError as error:
        result["notes"].append(f"llama.cpp was left out at {size}: {error}.")
        return {}
    result["threads"] |= {f"{size}, {name}": contender.threads for name, contender in found.items()}
    return found


def _rows(size: str, llama: Llama, contenders: dict[str, Contender], rounds: int) -> list[dict[str, Any]]:
    """Time each task; return a row for each contender and limit."""
    rows: list[dict[str, Any]] = []
    for name, task in TASKS.items():
        prompts = _prompts(llama.config, task)
        calls: dict[str, Callable[[], float]] = {
            who: partial(contender.decode, prompts, task.steps)
            if task.steps
            else partial(contender.prefill, prompts[0])
            for who, contender in contenders.items()
        }
        calls |= _limits(llama, task, len(prompts[0]))
        for who, timing in take_turns(calls, rounds, warm_up=1, timer=own_seconds).items():
            facts = {"size": size, "task": name, "contender": who, "tokens": len(prompts[0])}
            rows.append(facts | asdict(timing))
    return rows


def _prompts(config: LlamaConfig, task: Task) -> list[list[int]]:
    """Return random prompts: speed does not depend on them."""
    length = min(task.prompt, config.max_seq_len - 1)
    generator = torch.Generator().manual_seed(0)
    prompts: list[list[int]] = torch.randint(4, config.vocab_size, (task.rows, length), generator=generator).tolist()
    return prompts


def _limits(llama: Llama, task: Task, tokens: int) -> dict[str, Callable[[], float]]:
    """Return calls that measure the least that a step, or reading `tokens` tokens, can take: in seconds."""
    weights, embedding = weights_read(llama), llama.tok_embeddings.weight
    operations = 2 * weights * task.rows if task.steps else _prefill_operations(llama, tokens)
    read = reading(weights * embedding.itemsize, embedding.device, embedding.dtype)

    def limit() -> float:
        return max(_best(read), operations / matmul_rate(embedding.device, embedding.dtype))

    limits: dict[str, Callable[[], float]] = {LIMIT: limit}
    if task.steps and embedding.device.type == "cpu":  # of products in int8 nobody has measured the limit
        limits[INT8_LIMIT] = partial(_best, reading(weights))
    return limits


def weights_read(llama: Llama) -> int:
    """Return how many weights a step reads: all, but of an embedding that is no output matrix a row alone."""
    is_tied = llama.config.tie_word_embeddings
    return sum(weight.numel() for weight in llama.parameters()) - (not is_tied) * llama.tok_embeddings.weight.numel()


def _prefill_operations(llama: Llama, tokens: int) -> int:
    """Return the fewest floating-point operations that lead to the logits behind a prompt.

    Of the last layer all but the keys and values, and the output matrix, are for the last token alone. A token attends
    to half of the others, as a mean: 2 dim operations each for its scores, and as many to mix the values.
    """
    config = llama.config
    head = llama.output.weight.numel()
    layer = (weights_read(llama) - head) // config.n_layers
    key_value = 2 * config.dim * config.dim * (config.n_kv_heads or config.n_heads) // config.n_heads
    full = config.n_layers - 1
    return 2 * (full * layer + key_value) * tokens + 2 * (layer + head) + 2 * full * config.dim * tokens**2


def _best(run: Callable[[], object]) -> float:
    """Return the least of a few seconds: what disturbs a limit only makes it longer."""
    return min(seconds(run) for _ in range(10))


def _curve(llama: Llama, contenders: dict[str, Contender], rounds: int) -> list[dict[str, Any]]:
    """Time a step behind prefixes of several lengths."""
    prefixes = [prefix for prefix in PREFIXES if prefix + CURVE_STEPS < llama.config.max_seq_len]
    calls = {
        (who, prefix): partial(
            contenders[who].decode, _prompts(llama.config, Task("", 1, prefix, CURVE_STEPS)), CURVE_STEPS
        )
        for who in ON_CURVE
        for prefix in prefixes
    }
    named = {f"{who} {prefix}": call for (who, prefix), call in calls.items()}
    timings = take_turns(named, rounds, warm_up=1, timer=own_seconds)
    return [
        {"contender": who, "prefix": prefix} | asdict(timing)
        for (who, prefix), timing in zip(calls, timings.values(), strict=True)
    ]


def _parts(contenders: dict[str, Contender]) -> dict[str, dict[str, float]]:
    """Return the seconds that a step spends in each part, of contenders that PyTorch's profiler can look into.

    From a prompt of one token, reading the prompt is a step like the others.
    """
    parts = {OURS: OUR_PARTS, INT8: OUR_PARTS, PEER: their_parts()}
    found = {}
    for who, theirs in parts.items():
        contenders[who].decode([[5]], 1)  # what is prepared at the first call is no part of a step
        taken = break_down(partial(contenders[who].decode, [[5]], TO_PROFILE - 1), 1, theirs)
        found[who] = {part: total / TO_PROFILE for part, total in taken.items()}
    return found


def _int8_loss() -> dict[str, Any]:
    """Return the loss of the checkpoint that ships, in nats a token, with and without int8."""
    llama = load_pretrained(STORYBOOK)
    tokenizer = find_tokenizer(STORYBOOK, llama.config.vocab_size)
    name, texts = _unseen_texts()
    ids: list[int] = []
    while len(ids) < LOSS_ROWS * LOSS_TOKENS and (text := next(texts, None)):
        ids += tokenizer.encode(text, bos=True, eos=True)
    tokens = torch.tensor(ids[: LOSS_ROWS * LOSS_TOKENS])
    tokens = tokens[: len(tokens) // LOSS_TOKENS * LOSS_TOKENS].view(-1, LOSS_TOKENS)
    losses = {"float32": loss_of(Engine(llama), tokens), "int8": loss_of(Engine(llama, "int8"), tokens)}
    return {"text": name, "tokens": tokens.numel() - len(tokens)} | losses


def _unseen_texts() -> tuple[str, Iterator[str]]:
    """Return what to call them, and texts that the checkpoint was not trained on: stories if the corpus is here."""
    try:
        corpus = asset("corpus/storybook.txt.gz")
    except UsageError:
        path = ROOT / "data" / "demo-dev.txt"
        return path.name, (example.sentence for example in read_examples(path, num_labels=2))
    held_out = (text for text in read_documents(corpus) if is_held_out(text.encode(), HELD_OUT))
    return "held-out stories", held_out


@torch.inference_mode()
def loss_of(engine: Engine, tokens: torch.Tensor) -> float:
    """Return the mean loss of the next token, in nats, as decoding meets it. Shapes: tokens (bs, seqlen)."""
    logits = engine.prefill(tokens[:, :1].tolist())
    losses = []
    for column in tokens[:, 1:].unbind(dim=1):
        losses.append(F.cross_entropy(logits, column))
        logits = engine.decode(column)
    return torch.stack(losses).mean().item()


# ---------------------------------------------------------------------------------------------------- the table


def table(result: dict[str, Any]) -> str:
    """Return the section on generation."""
    lines = [f"## Generation{' on a GPU, in bfloat16' if 'gpu' in result['machine'] else ''}", ""]
    lines += [
        f"{report.machine(result)} A matrix-vector product over 1 GiB reads {result['gigabytes_per_second']:.1f} GB/s. "
        f"Weights are random, but for those of {REAL}."
    ]
    for name, task in TASKS.items():
        lines += ["", *_task_lines(task, [row for row in result["rows"] if row["task"] == name])]
    lines += ["", *_explanation(result)]
    lines += ["", *_curve_lines(result["curve"])] if "curve" in result else []
    for size, columns in result.get("parts", {}).items():
        lines += ["", *parts_table(f"{size}, one text, in milliseconds a step", columns)]
    lines += [f"\n{note}" for note in result["notes"]]
    return "\n".join(lines) + "\n"


def _task_lines(task: Task, rows: list[dict[str, Any]]) -> list[str]:
    """Return the table of a task, and how much int8 gives."""
    what = (
        f"prompts of {task.prompt} tokens, the mean of {task.steps} steps" if task.steps else "up to the first logits"
    )
    unit = "ms a step" if task.steps else "ms"
    head = ("size", "tokens" if not task.steps else "texts", "who", unit, "best", "tokens/s")
    cells = (_cells(task, row, rows) for row in rows)
    lines = [f"### {task.title}", "", f"{what[0].upper()}{what[1:]}.", ""]
    lines += report.grid((*head, "ratio to transformers", "of the limit"), cells)
    gains = [
        f"{report.ratio(row['rounds'], _rounds_of(OURS, row, rows))} at {row['size']}"
        for row in rows
        if row["contender"] == INT8
    ]
    return [*lines, "", f"int8 to our own float32: {', '.join(gains)}."] if gains else lines


def _cells(task: Task, row: dict[str, Any], rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the cells of a row of a task's table."""
    who = row["contender"]
    count = row["tokens"] if not task.steps else task.rows
    ratio = "1.00" if who == PEER else report.ratio(row["rounds"], _rounds_of(PEER, row, rows))
    ratio = "" if who in (LIMIT, INT8_LIMIT) else ratio
    bound = {LIMIT: None, INT8_LIMIT: None, "llama.cpp, Q8_0": None, INT8: INT8_LIMIT}.get(who, LIMIT)
    limit = _rounds_of(bound, row, rows) if bound else []
    share = report.share(limit, row["rounds"]) if limit else ""
    milliseconds = (f"{_short(1000 * value)}" for value in (row["median"], row["fastest"]))
    return (row["size"], str(count), who, *milliseconds, f"{count / row['median']:,.0f}", ratio, share)


def _rounds_of(who: str, row: dict[str, Any], rows: list[dict[str, Any]]) -> list[float]:
    """Return the rounds of a contender at the size of a row; none if it took no part."""
    found = (other["rounds"] for other in rows if (other["contender"], other["size"]) == (who, row["size"]))
    return next(found, [])


def _short(value: float) -> str:
    """Return a number with about three digits."""
    return f"{value:,.{max(0, 2 - len(str(int(value))) + 1)}f}"


def _explanation(result: dict[str, Any]) -> list[str]:
    """Return the lines on what the columns say, on int8's loss, and on llama.cpp's threads."""
    lines = [
        "A ratio is that of the times of one round: the median, and between which values the middle half lies; above 1 "
        "is faster. The limit is one matrix-vector product over as many bytes as the weights have, or as many "
        "floating-point operations in one matrix product, whichever takes longer, measured in the same rounds; for "
        "int8 the bytes alone. The student's loop reads all of the text for every token, so few of its steps are timed."
    ]
    if loss := result.get("loss"):
        lines += [
            "",
            f"int8 changes the loss of `checkpoints/storybook` on {loss['text']} from {loss['float32']:.4f} to "
            f"{loss['int8']:.4f} nats a token ({loss['int8'] - loss['float32']:+.4f}; {loss['tokens']:,} tokens, one "
            "at a time).",
        ]
    if alone := [name for name, threads in result["threads"].items() if threads < result["machine"]["threads"]]:
        lines += ["", f"Faster with one thread than with all, and measured so: {'; '.join(alone)}."]
    return lines


def _curve_lines(curve: dict[str, Any]) -> list[str]:
    """Return the table of the cost curve."""
    prefixes = sorted({row["prefix"] for row in curve["rows"]})
    cells = []
    for who in ON_CURVE:
        rows = {row["prefix"]: row for row in curve["rows"] if row["contender"] == who}
        growth = report.ratio(rows[prefixes[0]]["rounds"], rows[prefixes[-1]]["rounds"])
        cells.append((who, *(_short(1000 * rows[prefix]["median"]) for prefix in prefixes), growth))
    head = ("tokens before it", *map(str, prefixes), f"{prefixes[-1]} to {prefixes[0]}")
    return [f"### What a token costs, {curve['size']}", "", "In milliseconds.", "", *report.grid(head, cells)]


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw what a token costs by the length of the text before it, if that was measured.

    Raises MissingDependency without matplotlib.
    """
    if "curve" not in result:
        return
    figure, (axes,) = new_figure(columns=1)
    for who in ON_CURVE:
        rows = [row for row in result["curve"]["rows"] if row["contender"] == who]
        values = [1000 * row["median"] for row in rows]
        axes.plot([row["prefix"] for row in rows], values, marker="o", label=who)
    title = f"What a token costs, {result['curve']['size']}"
    axes.set(title=title, xlabel="tokens before it", ylabel="milliseconds", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)
