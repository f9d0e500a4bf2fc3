"""The inputs of the hidden checks: sizes and values from a secret seed, in ranges in which misconceptions stay apart.

Each builder gets random numbers of its own and the course, and draws sizes for one of the builders in `cases.py`.
"""

import torch

from autograder.checks import cases
from autograder.checks.cases import ADAMW, PAD, SMALL, Built, Course, Draws, Sizes
from component_checks import Case, llama_of
from llama import FeedForward

WIDTH = 7.0  # standard deviations that a share may be off: by chance, 3 times in 10^12
LEAST_LEAD = 1e-3  # of the likeliest token, where machines that add up in another order must choose the same one

# n_heads, seqlen and head_dim under which no two wrong scalings of the scores are near each other.
ATTENTION_SIZES = ((3, 5, 8), (2, 5, 8), (3, 6, 10), (2, 5, 10), (2, 7, 12), (3, 5, 12), (5, 7, 12), (3, 7, 12))
LARGE_SIZES = ((2, 9, 32), (3, 6, 48), (2, 12, 48), (2, 11, 64))


# --- RMSNorm, RoPE, attention, layer ---


def rms_norm(draws: Draws, course: Course) -> Built:
    """Vectors of another length, with another eps."""
    dim, eps = draws.choice(6, 8, 10, 12), draws.real(0.005, 0.02)
    return cases.rms_norm(draws, dim, eps, bs=draws.whole(2, 3), seqlen=draws.whole(3, 5))


def rms_norm_dtypes(draws: Draws, course: Course) -> Built:
    """Vectors in half precision, so large that their squares are not; two roundings, so tolerances of two last bits."""
    dim = draws.choice(8, 12, 16)
    x = draws.normal(2, 3, dim) * torch.tensor([1.0, 30.0, 400.0]).view(3, 1)
    settings = {"dim": dim, "eps": draws.real(1e-6, 1e-5), "dtypes": ["float32", "bfloat16", "float16"]}
    tolerances = {"forward(x) in bfloat16": (1e-3, 2**-6), "forward(x) in float16": (1e-3, 2**-9)}
    return Built(Case({"x": x}, settings, {"weight": 1 + 0.5 * draws.normal(dim)}), tolerances)


def rms_norm_scales(draws: Draws, course: Course) -> Built:
    """Multiples of vectors, with an eps that does not show."""
    dim = draws.choice(6, 8, 10, 12)
    scales = [1.0, draws.real(0.02, 0.05), draws.real(3.0, 8.0), draws.real(50.0, 90.0)]
    settings = {"dim": dim, "eps": 1e-12, "scales": scales}
    case = Case({"x": draws.normal(2, 3, dim)}, settings, {"weight": torch.ones(dim)})
    return Built(case, {"_norm(c · x) - _norm(x)": (1e-4, 0.0)})


def rope(draws: Draws, course: Course) -> Built:
    """Other sizes, and a theta that is not 10000."""
    n_heads, n_kv_heads = draws.choice((4, 2), (6, 2), (6, 3))
    return cases.rope(
        draws,
        head_dim=draws.choice(8, 10, 12),
        theta=draws.real(200.0, 1500.0),
        max_seq_len=draws.whole(12, 20),
        bs=draws.whole(2, 3),
        seqlen=draws.choice(5, 7, 8, 9),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
    )


def rope_relative(draws: Draws, course: Course) -> Built:
    """One query and one key a head, the same at every position."""
    seqlen, n_heads, head_dim = draws.whole(7, 11), draws.whole(2, 4), draws.choice(6, 8, 10)
    inputs = {name: draws.normal(1, 1, n_heads, head_dim).repeat(1, seqlen, 1, 1) for name in ("query", "key")}
    settings = {"head_dim": head_dim, "max_seq_len": 16, "theta": draws.real(200.0, 2000.0)}
    tolerances = {
        "score one position later, minus the score": (1e-4, 0.0),
        "share of distances whose score is that of distance 0": (0.25, 0.0),
    }
    return Built(Case(inputs, settings, {}), tolerances)


def rope_lengths(draws: Draws, course: Course) -> Built:
    """One position, an odd number of them, and as many as the model takes, which is odd too; the usual theta."""
    longest = draws.choice(11, 13, 15, 17)
    built = cases.rope(draws, draws.choice(4, 6, 8), 10000.0, longest, bs=1, seqlen=longest, n_heads=4, n_kv_heads=2)
    case = built.case
    return Built(Case(case.inputs, case.settings | {"lengths": [1, draws.choice(3, 5, 7), longest]}, {}))


def rope_rows(draws: Draws, course: Course) -> Built:
    """As many rows as positions and heads: what mixes them up raises no error."""
    size = draws.choice(4, 5, 6)
    return cases.rope(draws, 8, draws.real(200.0, 2000.0), 16, bs=size, seqlen=size, n_heads=size, n_kv_heads=size)


def attention(draws: Draws, course: Course) -> Built:
    """Sizes under which no two wrong scalings are alike."""
    return cases.attention(draws, sizes=draws.choice(*ATTENTION_SIZES), bs=draws.whole(2, 3))


def attention_scaling(draws: Draws, course: Course) -> Built:
    """Long heads."""
    return cases.attention(draws, sizes=draws.choice(*LARGE_SIZES))


def causal_mask(draws: Draws, course: Course) -> Built:
    """The same with the mask."""
    return cases.attention(draws, causal=True, sizes=draws.choice(*ATTENTION_SIZES), bs=draws.whole(2, 3))


def attention_bias(draws: Draws, course: Course) -> Built:
    """The same with a bias."""
    return cases.attention(draws, bias=True, sizes=draws.choice(*ATTENTION_SIZES))


def attention_dropout(draws: Draws, course: Course) -> Built:
    """Another share that is dropped."""
    seqlen, n_heads = draws.choice(15, 17, 19), draws.choice(4, 6)
    built = cases.attention_dropout(draws, seqlen, n_heads, dropout=draws.real(0.15, 0.4), width=WIDTH)
    return _seeded(draws, built)


def attention_evaluation(draws: Draws, course: Course) -> Built:
    """Dropout that must do nothing."""
    return _seeded(draws, cases.attention(draws, dropout=draws.real(0.3, 0.6), sizes=draws.choice(*ATTENTION_SIZES)))


def gqa(draws: Draws, course: Course) -> Built:
    """Numbers of heads that differ from each other and from their quotient."""
    n_heads, n_kv_heads = draws.choice((6, 2), (6, 3), (8, 2), (12, 3), (12, 4), (10, 2))
    return cases.gqa(draws, n_heads, n_kv_heads, draws.choice(2, 4, 6), bs=draws.whole(2, 3), seqlen=draws.whole(3, 5))


def feed_forward(draws: Draws, course: Course) -> Built:
    """A width that is rounded up."""
    dim, multiple_of = draws.choice(6, 8, 10, 14), draws.choice(4, 8, 16, 32)
    weights = draws.fill(FeedForward(dim, None, multiple_of, 0.0), scale=0.5)
    return Built(Case({"x": draws.normal(2, 3, dim)}, {"dim": dim, "multiple_of": multiple_of}, weights))


def layer(draws: Draws, course: Course) -> Built:
    """Other sizes."""
    return cases.layer(draws, dim=draws.choice(8, 12, 16), bs=draws.whole(2, 3), seqlen=draws.whole(3, 5))


# --- the whole model, and generation ---


def model_sizes(draws: Draws, course: Course) -> Sizes:
    """Return the sizes of a small Llama with grouped queries, as far as the course's own LlamaConfig knows them."""
    n_heads, n_kv_heads = draws.choice((4, 2), (6, 2), (6, 3), (8, 2))
    sizes: Sizes = {
        "vocab_size": draws.whole(23, 41),
        "dim": n_heads * draws.choice(4, 6),
        "n_layers": draws.whole(2, 3),
        "n_heads": n_heads,
        "n_kv_heads": n_kv_heads,
        "max_seq_len": draws.whole(8, 12),
        "multiple_of": draws.choice(4, 8, 16),
    }
    # what the original's model did not let anyone choose
    return sizes | ({"rope_theta": draws.real(1000.0, 20000.0)} if course.causal else {"causal": False})


def model_forward(draws: Draws, course: Course) -> Built:
    """A whole model on a few words."""
    config = model_sizes(draws, course)
    weights = cases.llama_weights(draws, config, scale=0.4)
    return cases.model_forward(draws, config, weights, bs=draws.whole(2, 3), seqlen=draws.choice(5, 7))


def causality(draws: Draws, course: Course) -> Built:
    """The last tokens are changed, at least two of them."""
    built = model_forward(draws, course)
    tokens = built.case.inputs["tokens"]
    first, vocab_size = draws.whole(1, tokens.shape[1] - 2), built.case.settings["config"]["vocab_size"]
    changed = tokens.clone()
    changed[:, first:] = 4 + (changed[:, first:] - 4 + draws.whole(1, vocab_size - 5)) % (vocab_size - 4)
    settings = built.case.settings | {"first_change": first}
    tolerances = {
        "hidden states before the change, how far they moved": (1e-4, 0.0),
        "share of hidden states from the change on that stayed": (0.25, 0.0),
    }
    return Built(Case({"tokens": tokens, "changed": changed}, settings, built.case.weights), tolerances)


def batch_rows(draws: Draws, course: Course) -> Built:
    """Three rows."""
    config = model_sizes(draws, course)
    weights = cases.llama_weights(draws, config, scale=0.4)
    built = cases.model_forward(draws, config, weights, bs=3, seqlen=draws.choice(5, 7))
    return Built(built.case, {"the batch's, minus those": (1e-4, 0.0)})


def model_generation(draws: Draws, course: Course) -> Built:
    """More tokens than the context holds, drawn again until each is far likelier than the next."""
    while True:
        config = model_sizes(draws, course)
        weights = cases.llama_weights(draws, config, scale=0.4)
        new = config["max_seq_len"] + draws.whole(1, 3)
        built = cases.model_generation(draws, config, weights, bs=2, seqlen=draws.whole(2, 4), new=new)
        if smallest_lead(built.case) > LEAST_LEAD:
            return built


def smallest_lead(case: Case) -> float:
    """Return by how much the likeliest token leads, at the closest of all steps."""
    leads: list[float] = []

    def note(module: torch.nn.Module, given: object, outputs: tuple[torch.Tensor, torch.Tensor]) -> None:
        first, second = outputs[0][:, -1].topk(2).values.unbind(-1)
        leads.append(float((first - second).min()))

    model = llama_of(case)
    model.register_forward_hook(note)
    model.generate(case.inputs["idx"], **case.settings["generate"])
    return min(leads)


def greedy(draws: Draws, course: Course) -> Built:
    """A table in which each token is the likeliest in one row, and one logit of each row is far below zero.

    In every other row that one is the largest by its absolute value, elsewhere the likeliest is.
    """
    vocab_size = draws.whole(8, 12)
    logits = draws.normal(vocab_size, vocab_size).clamp(-2.0, 2.0)
    rows, likeliest = torch.arange(vocab_size), draws.order(vocab_size)
    logits[rows, likeliest] = 3.0
    logits[rows, likeliest.roll(1)] = torch.where(rows % 2 == 0, -4.0, -2.5)
    idx = torch.stack((draws.order(vocab_size), draws.order(vocab_size)), dim=1)  # every token ends a prompt
    return cases.greedy(idx, logits, new=draws.whole(4, 7))


# Two rows of logits under which every misconception draws other shares at one of two temperatures, 0.5 or 2, and no
# right share is below 1 %: the best of 40,000 random ones.
LOGITS = torch.tensor([[-0.7, -0.5, -0.6, 1.3, -0.7], [-0.4, -2.2, -2.3, -1.9, -2.3]])


def sampled(draws: Draws, course: Course) -> Built:
    """The rows of `LOGITS` with their tokens shuffled and each logit moved a little, at two temperatures."""
    order = draws.order(LOGITS.shape[1])
    logits = LOGITS[:, order] + 0.07 * draws.normal(*LOGITS.shape).clamp(-1.0, 1.0)
    temperatures = [draws.real(0.5, 0.58), draws.real(1.7, 2.3)]
    settings = {"config": cases.table_model(len(order)), "rows": 20_000, "temperatures": temperatures, "tokens": 1}
    return _seeded(draws, Built(Case({"idx": torch.tensor([[0], [1]]), "logits": logits}, settings, {})))


def sampled_pairs(draws: Draws, course: Course) -> Built:
    """A table of five tokens, each of which may follow each other one, and two tokens a row."""
    logits = 0.7 * draws.normal(5, 5).clamp(-1.5, 1.5)
    settings = {"config": cases.table_model(5), "rows": 20_000, "temperatures": [draws.real(0.8, 1.2)], "tokens": 2}
    return _seeded(draws, Built(Case({"idx": draws.ids(1, 1, low=0, high=5), "logits": logits}, settings, {})))


def _seeded(draws: Draws, built: Built) -> Built:
    """Return the same with other random numbers for the code that is called."""
    case = built.case
    settings = case.settings | {"random_seed": draws.whole(0, 2**31)}
    return Built(Case(case.inputs, settings, case.weights), built.tolerances, built.known)


# --- AdamW ---


def _options(draws: Draws, **fixed: float | bool) -> dict[str, object]:
    """Return options of AdamW; eps is of the size of some gradients, so that its place shows."""
    betas = [draws.real(0.86, 0.92), draws.real(0.995, 0.999)]
    return ADAMW | {"lr": draws.real(0.08, 0.12), "betas": betas, "eps": draws.real(8e-4, 1.5e-3)} | fixed


def _skips(draws: Draws) -> tuple[tuple[int, int], ...]:
    """Return the steps, and the parameter, without a gradient."""
    step = draws.choice(2, 3)
    return ((step, 1), (step + 1, 1))


def adamw_default(draws: Draws, course: Course) -> Built:
    """Gradients above and below the default eps; the step is small, so the parameters start at zero."""
    gradient = draws.normal(3, 4) * torch.tensor([1.0, 1e-3, 1e-5]).view(3, 1)
    return Built(
        Case({"start": torch.zeros(3, 4), "gradient": gradient}, {}, {}), {"parameters after step 1": (1e-6, 1e-3)}
    )


def adamw(draws: Draws, course: Course) -> Built:
    """No decay."""
    return cases.adamw(draws, _options(draws), skips=_skips(draws))


def adamw_decay(draws: Draws, course: Course) -> Built:
    """Much decay."""
    return cases.adamw(draws, _options(draws, weight_decay=draws.real(0.7, 0.9)), skips=_skips(draws))


def adamw_uncorrected(draws: Draws, course: Course) -> Built:
    """No bias correction."""
    return cases.adamw(draws, _options(draws, correct_bias=False), skips=_skips(draws))


def adamw_groups(draws: Draws, course: Course) -> Built:
    """Three groups, each with an option of its own."""
    groups = [
        {"params": [0], "lr": draws.real(0.03, 0.05)},
        {"params": [1], "weight_decay": draws.real(1.3, 1.7)},
        {"params": [2], "betas": [draws.real(0.45, 0.55), draws.real(0.88, 0.92)]},
    ]
    return cases.adamw(draws, _options(draws, weight_decay=draws.real(0.35, 0.45)), groups, _skips(draws))


def adamw_descent(draws: Draws, course: Course) -> Built:
    """Least squares by batches of 16, 1,000 steps.

    The way down pulls small differences together: other orders of the same sums, float64 and eps in torch.optim's place
    end within 0.03 of the tolerance. The nearest mistake, decay before the update, ends three tolerances away.
    """
    count, dim, steps = 256, draws.whole(6, 10), 1000
    features, truth = draws.normal(count, dim), draws.normal(dim)
    inputs = {
        "features": features,
        "targets": features @ truth + 0.5 * draws.normal(count),
        "start": draws.normal(dim),
        "batches": draws.ids(steps, 16, low=0, high=count),
    }
    options = ADAMW | {"lr": draws.real(0.005, 0.015), "eps": 1e-6, "weight_decay": draws.real(0.05, 0.2)}
    return Built(Case(inputs, {"options": options}, {}), {"parameters after every 100 steps": (1e-4, 1e-3)})


def adamw_sparse(draws: Draws, course: Course) -> Built:
    """A gradient with zeros."""
    gradient = draws.normal(4, 3) * torch.tensor([0.0, 1.0, 0.0, 1.0]).view(4, 1)
    return Built(Case({"start": draws.normal(4, 3), "gradient": gradient}, {}, {}))


def adamw_closure(draws: Draws, course: Course) -> Built:
    """A parameter that is to come near a target."""
    inputs = {"start": draws.normal(5), "target": draws.normal(5)}
    return Built(Case(inputs, {"options": _options(draws)}, {}))


# --- the classifiers ---


def _rows(draws: Draws, course: Course) -> torch.Tensor:
    """Return rows of every kind, as `cases.ROWS` has them; where nothing is masked, full rows without special ids."""
    if not course.causal:
        return draws.ids(5, draws.choice(6, 7, 8), high=SMALL["vocab_size"])
    kinds = torch.tensor(cases.ROWS)
    words = draws.ids(*kinds.shape, high=SMALL["vocab_size"])
    special = (kinds == PAD) | (kinds == 0) | (kinds == 1)
    return torch.where(special, kinds, words)[draws.order(len(kinds))]


def classifier(draws: Draws, course: Course) -> Built:
    """Another Llama, other rows, another number of labels."""
    weights = cases.llama_weights(draws, SMALL, scale=1.0)
    return _seeded(draws, cases.classifier(draws, SMALL, weights, _rows(draws, course), draws.choice(3, 4, 5)))


def classifier_dropout(draws: Draws, course: Course) -> Built:
    """Another share that is dropped, of hidden states of another size."""
    dim = draws.choice(12, 16, 20)
    return _seeded(draws, cases.classifier_dropout(dim, rows=512, dropout=draws.real(0.2, 0.4), width=WIDTH))


def classifier_sums(draws: Draws, course: Course) -> Built:
    """Logits so far apart that a probability is 0 in float32, while its logarithm is not."""
    weights = cases.llama_weights(draws, SMALL, scale=1.0)
    case = cases.classifier(draws, SMALL, weights, _rows(draws, course), draws.choice(3, 4, 5)).case
    scale = 60.0 if course.causal else 1.0  # the original never asked for that
    inputs = case.inputs | {"weight": case.inputs["weight"] * scale}
    # logits of some hundreds are exact to 1e-4
    tolerances = {"sum of the probabilities": (1e-3, 0.0), "log-probabilities": (1e-2, 1e-3)}
    return Built(Case(inputs, case.settings, case.weights), tolerances)


def classifier_gradients(draws: Draws, course: Course) -> Built:
    """The same with the label of each row."""
    case = classifier(draws, course).case
    labels = draws.ids(len(case.inputs["input_ids"]), low=0, high=len(case.inputs["bias"]))
    return Built(Case(case.inputs | {"labels": labels}, case.settings, case.weights))


def model_classifier(draws: Draws, course: Course) -> Built:
    """A whole model."""
    config = model_sizes(draws, course)
    weights = cases.llama_weights(draws, config, scale=0.4)
    return cases.classifier(draws, config, weights, _rows(draws, course), draws.choice(3, 4, 5))


def zero_shot(draws: Draws, course: Course) -> Built:
    """The labels' tokens, shuffled; where nothing is masked, one token a label, of which all readings give the same.

    They are not in order: whoever sorts the labels is to be seen.
    """
    a, b, c, d, e, f = (5 + draws.order(6)).tolist()
    if a < b < c < d or a < b < f:
        a, b = b, a
    labels = {"bad": [a], "good": [b, c], "great": [b, d, e], "awful": [f, a]}
    if not course.causal:
        labels = dict(zip(labels, ([a], [b], [c], [d]), strict=True))
    return cases.zero_shot(_rows(draws, course), labels, cases.llama_weights(draws, SMALL, scale=1.0))


# --- what the tests of 2024's hand-outs ask ---


def llama_of_2024(draws: Draws, course: Course) -> Built:
    """As many key and value heads as query heads, as stories42M has."""
    sizes = model_sizes(draws, course) | {"max_seq_len": 64, "multiple_of": 32}
    config = sizes | {"n_kv_heads": sizes["n_heads"]}
    return cases.model_forward(draws, config, cases.llama_weights(draws, config, scale=0.4), bs=2, seqlen=8)


def rope_of_2024(draws: Draws, course: Course) -> Built:
    """As many keys as queries, and the usual theta."""
    return cases.rope(draws, draws.choice(4, 8), 10000.0, 20, bs=1, seqlen=draws.whole(2, 8), n_heads=2, n_kv_heads=2)


def adamw_of_2024(draws: Draws, course: Course) -> Built:
    """So little weight decay that its place does not show."""
    built = adamw_descent(draws, course)
    options = ADAMW | {"lr": 1e-3, "eps": 1e-6, "weight_decay": 1e-4}
    return Built(Case(built.case.inputs, built.case.settings | {"options": options}, {}), built.tolerances)
