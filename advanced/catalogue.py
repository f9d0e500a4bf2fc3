"""Every method by its name: what it changes, where it comes from, where its code is, and its options.

This is what the command line and the README's table are made of. It imports nothing heavy, so that `--help` is instant;
a test holds its options to be those of the classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

from errors import UsageError

Kind = Literal["zero-shot", "finetuning", "baseline", "after"]
Value = int | float | str
Options = Mapping[str, Mapping[str, Value]]  # method: option: value


@dataclass(frozen=True)
class Option:
    """An option of a method; its type is that of its default."""

    default: Value
    what: str  # it is


@dataclass(frozen=True)
class Entry:
    """A method. Of the kind "finetuning", `place` is a subclass of `advanced.method.Method`."""

    kind: Kind
    what: str  # it changes, in a few words
    source: str
    place: str  # module:name
    excludes: tuple[str, ...] = ()  # methods that contradict it
    lr: float | None = None  # a learning rate that suits it better than the assignment's
    options: Mapping[str, Option] = field(default_factory=dict)


TASKS = ("sst", "cfimdb", "demo")
TEMPLATE = Option("question", "the question that follows a sentence: question, or a name of templates.TEMPLATES")
WORDS = Option("names", "how labels are called: names, or a name of templates.VERBALISERS")

# In the order in which methods that are combined do their part.
METHODS: dict[str, Entry] = {
    "zero-shot": Entry(
        "zero-shot",
        "likelihood of each label's words behind the question, as in the assignment",
        "Brown et al. 2020, arXiv 2005.14165, section 2.4",
        "advanced.zero_shot:ZeroShot",
        options={"template": TEMPLATE, "words": WORDS},
    ),
    "length-norm": Entry(
        "zero-shot",
        "likelihood per token of a label, so that long labels do not lose for being long",
        "Brown et al. 2020, arXiv 2005.14165, section 2.4",
        "advanced.zero_shot:LengthNorm",
    ),
    "pmi": Entry(
        "zero-shot",
        "how much the sentence raises a label's likelihood over that behind the question alone",
        "Holtzman et al. 2021, arXiv 2104.08315, section 2",
        "advanced.zero_shot:Pmi",
    ),
    "calibration": Entry(
        "zero-shot",
        "divide by what the model answers to sentences without content",
        "Zhao et al. 2021, arXiv 2102.09690, section 5",
        "advanced.zero_shot:Calibration",
    ),
    "batch-calibration": Entry(
        "zero-shot",
        "divide by what the model answers on average to unlabelled sentences",
        "Zhou et al. 2023, arXiv 2309.17249, section 3",
        "advanced.zero_shot:BatchCalibration",
        options={"sentences": Option(200, "training sentences that are read for it, without their labels")},
    ),
    "templates": Entry(
        "zero-shot",
        "the mean over several questions and names of the labels",
        "Schick & Schütze 2021, arXiv 2001.07676, section 3",
        "advanced.zero_shot:Templates",
    ),
    "few-shot": Entry(
        "zero-shot",
        "sentences with their labels stand before each sentence",
        "Brown et al. 2020, arXiv 2005.14165, section 2",
        "advanced.zero_shot:FewShot",
        options={"shots": Option(1, "sentences of each label")},
    ),
    "plain": Entry(
        "finetuning",
        "nothing: the assignment's finetuning",
        "the assignment",
        "advanced.method:Method",
    ),
    "continued": Entry(
        "finetuning",
        "the language model first reads the task's sentences, without their labels",
        "Gururangan et al. 2020, arXiv 2004.10964, section 4",
        "advanced.continued:Continued",
        options={
            "passes": Option(1, "over the sentences"),
            "lr": Option(3e-4, "learning rate of the language modelling"),
        },
    ),
    "prompt-finetune": Entry(
        "finetuning",
        "the head begins as the language model's answers to a question behind the sentence",
        "Gao, Fisch & Chen 2021, arXiv 2012.15723, section 3",
        "advanced.prompt_finetune:PromptFinetune",
        options={"template": TEMPLATE, "words": WORDS},
    ),
    "mean-pooling": Entry(
        "finetuning",
        "the head reads the mean over all tokens",
        "Reimers & Gurevych 2019, arXiv 1908.10084, section 3",
        "advanced.pooling:MeanPooling",
        excludes=("attention-pooling", "prompt-finetune"),  # each reads the hidden states in a way of its own
    ),
    "attention-pooling": Entry(
        "finetuning",
        "the head reads a mean with learned weights",
        "Yang et al. 2016, doi 10.18653/v1/N16-1174, section 2.2",
        "advanced.pooling:AttentionPooling",
        excludes=("prompt-finetune",),
    ),
    "bidirectional": Entry(
        "finetuning",
        "tokens see those behind them as well",
        "BehnamGhader et al. 2024, arXiv 2404.05961, section 2",
        "advanced.pooling:Bidirectional",
    ),
    "top-layers": Entry(
        "finetuning",
        "only the last layers are trained",
        "Lee, Tang & Lin 2019, arXiv 1911.03090, section 3",
        "advanced.freezing:TopLayers",
        options={"layers": Option(2, "at the top that are trained")},
    ),
    "lora": Entry(
        "finetuning",
        "the weights stay, and a product of two narrow matrices is added to each",
        "Hu et al. 2021, arXiv 2106.09685, section 4.1",
        "advanced.lora:Lora",
        options={
            "rank": Option(8, "columns of the narrow matrices"),
            "alpha": Option(16.0, "the product is scaled by alpha / rank"),
            "dropout": Option(0.0, "of what the narrow matrices read"),
            "targets": Option("all", "projections: attention, feed_forward, all, or names joined by +"),
        },
        excludes=("ia3",),
        lr=5e-4,
    ),
    "ia3": Entry(
        "finetuning",
        "the weights stay; keys, values and the inner feed-forward layer are scaled, an element each",
        "Liu et al. 2022, arXiv 2205.05638, section 3.3",
        "advanced.lora:Ia3",
        lr=3e-3,
    ),
    "mixout": Entry(
        "finetuning",
        "in each step, random weights are the pretrained ones",
        "Lee, Cho & Kang 2020, arXiv 1909.11299, section 3",
        "advanced.regularise:Mixout",
        options={"p": Option(0.3, "share of the weights that are the pretrained ones")},
        excludes=("lora", "ia3", "smart"),  # train no matrix of the Llama; would compare mixed weights with others
    ),
    "r3f": Entry(
        "finetuning",
        "random noise on the embeddings should not change the answer",
        "Aghajanyan et al. 2021, arXiv 2008.03156, section 3",
        "advanced.smoothness:R3f",
        options={"weight": Option(1.0, "of the penalty"), "noise": Option(0.1, "in deviations of the embeddings")},
        excludes=("smart",),
    ),
    "smart": Entry(
        "finetuning",
        "the worst small noise should not change the answer, and a step should not either",
        "Jiang et al. 2020, arXiv 1911.03437, sections 3.1 and 3.2",
        "advanced.smoothness:Smart",
        options={
            "weight": Option(1.0, "of the smoothness penalty"),
            "noise": Option(0.1, "largest, in deviations of the embeddings"),
            "ascents": Option(1, "steps towards the worst noise"),
            "proximal": Option(1.0, "weight of the Bregman proximal penalty"),
            "momentum": Option(0.99, "of the weights that steps should stay near"),
        },
    ),
    "llrd": Entry(
        "finetuning",
        "lower layers take smaller steps",
        "Howard & Ruder 2018, arXiv 1801.06146, section 3.2",
        "advanced.regularise:LayerwiseDecay",
        options={"decay": Option(0.8, "learning rate of a layer, as a share of that of the layer above")},
    ),
    "label-smoothing": Entry(
        "finetuning",
        "the label asked for has less than all of the probability",
        "Szegedy et al. 2016, arXiv 1512.00567, section 7",
        "advanced.regularise:LabelSmoothing",
        options={"share": Option(0.1, "of the probability that all labels share")},
    ),
    "cosine": Entry(
        "finetuning",
        "the learning rate warms up, then falls along half a cosine",
        "Loshchilov & Hutter 2017, arXiv 1608.03983, equation 5",
        "advanced.schedules:Cosine",
        options={
            "warm_up": Option(0.1, "share of the steps"),
            "lowest": Option(0.0, "share of the learning rate at the end"),
        },
        excludes=("linear",),
    ),
    "linear": Entry(
        "finetuning",
        "the learning rate warms up, then falls along a line",
        "Devlin et al. 2019, arXiv 1810.04805, appendix A.2",
        "advanced.schedules:Linear",
        options={"warm_up": Option(0.1, "share of the steps")},
    ),
    "early-stopping": Entry(
        "finetuning",
        "training ends when the selection part has not improved for a while",
        "Prechelt 1998, doi 10.1007/3-540-49430-8_3",
        "advanced.schedules:EarlyStopping",
        options={"patience": Option(2, "checks without improvement")},
    ),
    "averaging": Entry(
        "finetuning",
        "the weights are averaged over the last part of the run",
        "Izmailov et al. 2018, arXiv 1803.05407, section 3",
        "advanced.wise_ft:Averaging",
        options={"share": Option(0.5, "of the run that is averaged")},
        excludes=("lora", "ia3", "early-stopping", "wise-ft"),
    ),
    "wise-ft": Entry(
        "finetuning",
        "between the weights before the finetuning and those after it, the best mixture is taken",
        "Wortsman et al. 2022, arXiv 2109.01903, section 3",
        "advanced.wise_ft:WiseFt",
        options={"steps": Option(10, "into which the way is divided")},
        excludes=("lora", "ia3"),
    ),
    "tfidf-logreg": Entry(
        "baseline",
        "no Llama: words and pairs of words, weighted, and logistic regression",
        "Wang & Manning 2012, aclanthology P12-2018",
        "advanced.baselines:LogisticRegression",
    ),
    "tfidf-svm": Entry(
        "baseline",
        "no Llama: words and pairs of words, weighted, and a linear support vector machine",
        "Wang & Manning 2012, aclanthology P12-2018",
        "advanced.baselines:LinearSvm",
    ),
    "hybrid": Entry(
        "after",
        "the answers are mixed with those of tfidf-logreg",
        "Wolpert 1992, doi 10.1016/S0893-6080(05)80023-1",
        "advanced.baselines:Hybrid",
        options={"steps": Option(20, "into which the way between the two is divided")},
    ),
}


def make(name: str, options: Options) -> Any:
    """Return a method with its options. Raises UsageError for an option that it does not have."""
    entry, given = METHODS[name], options.get(name, {})
    if unknown := sorted(given.keys() - entry.options.keys()):
        raise UsageError(f"{name} has no option {unknown[0]}: it has {', '.join(entry.options) or 'none'}")
    module, _, attribute = entry.place.partition(":")
    return getattr(import_module(module), attribute)(**given)


def in_order(names: list[str]) -> list[str]:
    """Return methods in the order in which they do their part, each once.

    Raises UsageError for a name that is no method's, and for methods that cannot be combined.
    """
    if unknown := [name for name in names if name not in METHODS]:
        raise UsageError(f"there is no method {unknown[0]}: choose among {', '.join(METHODS)}")
    kinds = {METHODS[name].kind for name in names} - {"after"}
    if not kinds:
        raise UsageError(f"{', '.join(names)}: this comes after another method. Name that as well")
    if len(kinds) > 1:
        raise UsageError(f"{', '.join(names)}: {' and '.join(sorted(kinds))} cannot be combined. Name one kind")
    for name in names:
        if wrong := [other for other in METHODS[name].excludes if other in names]:
            raise UsageError(f"{name} and {wrong[0]} contradict each other: name one of them")
    if kinds == {"baseline"} and len(names) > 1:
        raise UsageError(f"{', '.join(names)}: a baseline stands alone. Name one of them")
    return [name for name in METHODS if name in names]
