"""What is measured of raw outputs: properties that hold whatever the values are, and counts of what was drawn.

This runs on the judge's side: a process that runs a student's code could make up any measurement.
"""

import math

import torch

from component_checks import Case, Outputs

# What chance gives less often than this is no chance. The distribution of counts has longer tails than chi-squared has,
# thirty times at most: a right solution fails in less than one of 10^10 submissions, one of 10^7 classes of 1,000.
LEAST_P = 1e-12
LEAST_COUNT = 150.0  # expected in a cell: of smaller ones, the tails would be longer
SMALLEST_PAIRS = 25  # columns of a table of pairs; the vocabulary of the other tables is smaller
STILL = 1e-3  # scores that differ by less are the same


def scale_invariance(case: Case, outputs: Outputs) -> Outputs:
    """Compare the normalised multiples of a vector with each other, and with a length of one."""
    normed = outputs["_norm(c · x)"]  # (scales, ..., dim)
    return {
        "_norm(c · x) - _norm(x)": normed[1:] - normed[:1],
        "root mean square of _norm(x)": normed[0].pow(2).mean(dim=-1).sqrt(),
    }


def relative_shift(case: Case, outputs: Outputs) -> Outputs:
    """Compare the scores of one query and one key at all pairs of positions: both (1, seqlen, n_heads, head_dim)."""
    query, key = outputs["query"][0], outputs["key"][0]
    scores = torch.einsum("mhd,nhd->hmn", query, key)  # (n_heads, seqlen, seqlen)
    far = scores[:, 1:, 0]  # by distance, from 1 on
    return {
        "score one position later, minus the score": scores[:, 1:, 1:] - scores[:, :-1, :-1],
        "length of the turned query": query.norm(dim=-1),
        "share of distances whose score is that of distance 0": ((far - scores[:, :1, 0]).abs() < STILL).float().mean(),
    }


def unchanged_past(case: Case, outputs: Outputs) -> Outputs:
    """Compare the hidden states up to the first token that was changed, and from there on."""
    first = case.settings["first_change"]
    before, after = outputs["hidden states"], outputs["hidden states after a change"]
    moved = (after - before).abs().amax(dim=-1)  # (bs, seqlen)
    return {
        "hidden states before the change, how far they moved": moved[:, :first],
        "share of hidden states from the change on that stayed": (moved[:, first:] < STILL).float().mean(),
    }


def rows_alone(case: Case, outputs: Outputs) -> Outputs:
    """Compare each row of a batch with the row alone."""
    together, alone = outputs["hidden states"], outputs["hidden states, each row alone"]
    return {"hidden states, each row alone": alone, "the batch's, minus those": together - alone}


def probabilities(case: Case, outputs: Outputs) -> Outputs:
    """Add up the probabilities of the labels."""
    log_probs = outputs["log-probabilities"]
    return {"sum of the probabilities": log_probs.double().exp().sum(dim=1), "log-probabilities": log_probs}


def sparse_error(case: Case, outputs: Outputs) -> Outputs:
    """Say what the numbers mean."""
    return {"what was raised (0: nothing, 1: RuntimeError, 2: another error)": outputs["raised"]}


# --- counts ---


def token_counts(case: Case, outputs: Outputs) -> Outputs:
    """Count how often each token (or pair) was drawn after each prompt: (prompts, vocab_size^tokens), by temperature.

    Pair (a, b) is column a · vocab_size + b. Ids that no vocabulary has are counted in one column more.
    """
    prompts, vocab_size, tokens = len(case.inputs["idx"]), case.inputs["logits"].shape[1], case.settings["tokens"]
    places = vocab_size ** torch.arange(tokens - 1, -1, -1)
    cells = vocab_size**tokens
    counts = {}
    for name, ids in outputs.items():  # (prompts · rows, tokens)
        valid = ((ids >= 0) & (ids < vocab_size)).all(dim=1)
        column = torch.where(valid, (ids * places).sum(dim=1), cells).view(prompts, -1)
        counts[name.replace("ids", "tokens drawn")] = torch.stack(
            [torch.bincount(row, minlength=cells + 1) for row in column]
        )
    return counts


def token_distribution(case: Case) -> Outputs:
    """Return how often each token (or pair) is to be expected, in the form of `token_counts`."""
    table, first = case.inputs["logits"].double(), case.inputs["idx"][:, -1]
    expected = {}
    for t in case.settings["temperatures"]:
        following = torch.softmax(table / t, dim=-1)  # (vocab_size or prompts, vocab_size)
        shares = following[first]  # (prompts, vocab_size)
        if case.settings["tokens"] == 2:
            shares = (shares.unsqueeze(2) * following).flatten(1)  # (prompts, vocab_size²)
        name = f"tokens drawn at temperature {t}"
        expected[name] = torch.nn.functional.pad(shares * case.settings["rows"], (0, 1))
    return expected


def distribution_differences(actual: Outputs, expected: Outputs) -> list[str]:
    """Say where counts do not come from the expected distribution; nothing if they may.

    `expected` is either what is to be expected (floats), or other counts, which may come from the same distribution.
    All of it is one chi-squared test at `LEAST_P`: the tables are independent, so their statistics add up.
    """
    tables = {name: chi_squared(actual[name], table) for name, table in expected.items()}
    statistic = sum(numbers[0] for numbers in tables.values())
    freedom = sum(numbers[1] for numbers in tables.values())
    if p_value(statistic, freedom) >= LEAST_P:
        return []
    worst = max(tables, key=lambda name: tables[name][0])
    counts, table = actual[worst].double(), expected[worst].double()
    totals = table.sum(dim=1, keepdim=True)
    row, token = (int(i) for i in torch.unravel_index(((counts - table) / totals).abs().argmax(), counts.shape))
    share, right = (float(one[row, token] / totals[row]) for one in (counts, table))
    cells, draws = counts.shape[1] - 1, round(float(totals[row]))
    who = f"{_cell(token, cells)} the share" if token < cells else "ids outside the vocabulary have the share"
    return [
        f"{worst}: after prompt {row}, {who} {share:.3f} of {draws:,}, expected {right:.3f} "
        f"(chi-squared of all counts is {statistic:.4g}, chance gives at most {largest_by_chance(freedom):.4g})"
    ]


def _cell(number: int, cells: int) -> str:
    """Name what a column counts: a token, or two that follow each other."""
    vocab_size = math.isqrt(cells)
    if cells < SMALLEST_PAIRS or vocab_size**2 != cells:
        return f"token {number} has"
    return f"token {number // vocab_size} followed by {number % vocab_size} has"


def chi_squared(counts: torch.Tensor, expected: torch.Tensor) -> tuple[float, int]:
    """Return Pearson's statistic of tables (rows, columns) with equal sums, and its degrees of freedom.

    Expected counts (floats) are compared as they are, other counts as a second sample. A count in the last column,
    which no right token has, is infinitely far away.
    """
    one, two = counts.double(), expected.double()
    if not torch.equal(one[:, -1], two[:, -1]):
        return math.inf, 1
    statistic, freedom = 0.0, 0
    for a, b in zip(one, two, strict=True):
        cells, others = _pooled(a, b, b if expected.is_floating_point() else (a + b) / 2)
        variance = others if expected.is_floating_point() else cells + others
        statistic += float(((cells - others).square() / variance).sum())
        freedom += len(cells) - 1
    return statistic, freedom


def _pooled(one: torch.Tensor, two: torch.Tensor, size: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Put cells together, the smallest first, until each is of at least `LEAST_COUNT`."""
    groups: list[list[int]] = [[]]
    for cell in size.argsort().tolist():
        if float(size[groups[-1]].sum()) >= LEAST_COUNT:
            groups.append([])
        groups[-1].append(cell)
    if len(groups) > 1 and float(size[groups[-1]].sum()) < LEAST_COUNT:
        groups[-2:] = [groups[-2] + groups[-1]]
    return torch.stack([one[group].sum() for group in groups]), torch.stack([two[group].sum() for group in groups])


def p_value(statistic: float, freedom: int) -> float:
    """Return how likely chance gives a chi-squared statistic of at least this size."""
    if math.isinf(statistic):
        return 0.0
    half = torch.tensor([max(freedom, 1) / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def largest_by_chance(freedom: int) -> float:
    """Return the statistic that chance exceeds in a share of `LEAST_P`."""
    low, high = 0.0, 1000.0 + 10.0 * freedom
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(middle, freedom) > LEAST_P else (low, middle)
    return high
