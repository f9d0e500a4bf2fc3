"""The decoding strategies beside simple versions of themselves, and the measures of their texts."""

import json
import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from advanced.decoding import (
    OPENINGS,
    PROMPT_TOKENS,
    STRATEGIES,
    Beam,
    Contrastive,
    Prompt,
    Strategy,
    compare,
    continuations,
    decode,
    is_random,
    make_prompt,
    table,
)
from advanced.text_measures import distinct, log_likelihoods, repetition
from benchmarks.contenders import transformers_model
from checkpoint import write_directory
from errors import CheckpointError, DataError, UsageError
from inference.engine import Engine
from inference.sampling import GREEDY, Sampling
from llama import Llama
from tests.tiny import SENTENCES, random_llama, random_tokens
from tokenizer import Tokenizer

PROMPTS = [[1, 5, 9, 30, 2], [1, 7], [1, 20, 30, 4, 5, 6, 7, 8]]
KINDS: list[dict[str, Any]] = [{}, {"position_embedding_type": "alibi"}, {"n_kv_heads": 1}]


def greedy(model: Llama, prompt: list[int], max_new_tokens: int) -> list[int]:
    return model.generate(torch.tensor([prompt]), max_new_tokens, 0.0)[0].tolist()[len(prompt) :]


# --- contrastive search ---


@torch.inference_mode()
def naive_contrastive(model: Llama, prompt: list[int], strategy: Contrastive, max_new_tokens: int) -> list[int]:
    """Search with everything read anew for each candidate."""
    text = list(prompt)
    for _ in range(max_new_tokens):
        probabilities = model(torch.tensor([text]))[0][0, -1].softmax(dim=-1)
        scores = {}
        for candidate in probabilities.topk(strategy.k).indices.tolist():
            hidden = model(torch.tensor([[*text, candidate]]))[1][0]  # (seqlen, dim)
            similarity = max(float(F.cosine_similarity(hidden[-1], state, dim=0)) for state in hidden[:-1])
            scores[candidate] = (1 - strategy.alpha) * float(probabilities[candidate]) - strategy.alpha * similarity
        text.append(max(scores, key=lambda candidate: scores[candidate]))
    return text[len(prompt) :]


@pytest.mark.parametrize("kind", KINDS, ids=["grouped", "alibi", "one for all"])
@pytest.mark.parametrize(("k", "alpha"), [(4, 0.6), (3, 1.0), (12, 0.2)])
def test_contrastive_search_finds_what_reading_everything_anew_finds(
    kind: dict[str, Any], k: int, alpha: float
) -> None:
    model, strategy = random_llama(**kind), Contrastive(k, alpha)
    expected = [naive_contrastive(model, prompt, strategy, 6) for prompt in PROMPTS]
    assert continuations(Engine(model), PROMPTS, strategy, 6) == expected
    assert expected != [greedy(model, prompt, 6) for prompt in PROMPTS]


@pytest.mark.parametrize("strategy", [Contrastive(k=1), Contrastive(k=5, alpha=0.0), Beam(beams=1)])
def test_without_a_choice_or_without_a_penalty_it_is_greedy(strategy: Strategy) -> None:
    model = random_llama()
    assert continuations(Engine(model), PROMPTS, strategy, 16) == [greedy(model, prompt, 16) for prompt in PROMPTS]


def test_more_candidates_than_pieces_are_all_of_them() -> None:
    engine = Engine(random_llama(vocab_size=10))
    assert continuations(engine, [[1, 5]], Contrastive(k=99), 5) == continuations(
        engine, [[1, 5]], Contrastive(k=10), 5
    )


@pytest.mark.parametrize("strategy", [Contrastive(), GREEDY], ids=["contrastive", "greedy"])
def test_a_text_stops_at_its_end_and_the_others_go_on(strategy: Strategy) -> None:
    engine = Engine(random_llama())
    free = continuations(engine, PROMPTS, strategy, 12)
    end = free[1][3]
    expected = [tokens[: tokens.index(end) + 1] if end in tokens else tokens for tokens in free]
    assert len({len(tokens) for tokens in expected}) > 1
    assert continuations(engine, PROMPTS, strategy, 12, end=end) == expected


# --- beam search ---


def log_likelihood(model: Llama, prompt: Sequence[int], after: Sequence[int]) -> float:
    """Return the log-likelihood of all tokens of `after` together, as the root's model has it."""
    tokens = torch.tensor([[*prompt, *after]])
    with torch.inference_mode():
        logits, _ = model(tokens, targets=tokens)
    log_probs = logits[0, len(prompt) - 1 : -1].log_softmax(dim=-1)
    return float(log_probs[range(len(after)), list(after)].sum())


def best_of_all(model: Llama, prompt: list[int], length: int, end: int, penalty: float) -> list[int]:
    """Return the best of all texts of at most so many tokens."""
    size = model.vocab_size
    texts = [[*text, end] for n in range(length - 1) for text in product(range(size), repeat=n) if end not in text]
    texts += [list(text) for text in product(range(size), repeat=length) if end not in text[:-1]]
    return max(texts, key=lambda text: log_likelihood(model, prompt, text) / len(text) ** penalty)


@pytest.mark.parametrize("penalty", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_as_many_beams_as_pieces_find_the_best_of_all_texts_of_two_tokens(seed: int, penalty: float) -> None:
    model = random_llama(seed, vocab_size=6)
    found = continuations(Engine(model), [[1, 4]], Beam(6, penalty), 2, end=2)
    assert found == [best_of_all(model, [1, 4], 2, 2, penalty)]


def test_enough_beams_find_the_best_of_all_texts_of_three_tokens() -> None:
    model = random_llama(vocab_size=5)
    found = continuations(Engine(model), [[1, 4], [3, 1, 2, 0]], Beam(25, 1.0), 3, end=2)
    assert found == [best_of_all(model, prompt, 3, 2, 1.0) for prompt in ([1, 4], [3, 1, 2, 0])]
    assert found != [greedy(model, prompt, 3) for prompt in ([1, 4], [3, 1, 2, 0])]


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("beams", [2, 4])
def test_the_same_texts_as_those_of_transformers(beams: int, penalty: float) -> None:
    lengths = set()
    for seed in range(3):
        model = random_llama(seed, vocab_size=12)
        engine, theirs = Engine(model), transformers_model(model)
        for prompt, end in (([1, 5, 9], 2), ([3, 7], 3), ([1, 4, 8, 8, 3], 8)):
            ids = torch.tensor([prompt])
            options = {"num_beams": beams, "length_penalty": penalty, "early_stopping": "never", "do_sample": False}
            expected = theirs.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, eos_token_id=end, pad_token_id=0, **options
            )[0, len(prompt) :].tolist()
            assert continuations(engine, [prompt], Beam(beams, penalty), 8, end=end) == [expected]
            lengths.add(len(expected))
    assert len(lengths) > 1 or penalty == 2.0  # some ended by themselves, unless only length counts


@pytest.mark.parametrize("end", range(4, 12))
def test_the_other_prompts_change_nothing(end: int) -> None:
    engine = Engine(random_llama(vocab_size=12))
    prompts = [[1, 5, 9], [3, 7], [1, 4, 8, 8, 3]]
    for strategy in (Beam(3), Contrastive(3)):
        together = continuations(engine, prompts, strategy, 8, end=end)
        assert together == [continuations(engine, [prompt], strategy, 8, end=end)[0] for prompt in prompts]


def test_a_search_that_can_find_nothing_better_reads_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_llama(vocab_size=12)
    engine = Engine(model)
    end = greedy(model, [1, 5], 1)[0]  # so likely that nothing that goes on comes near
    read = []
    step = engine.decode
    monkeypatch.setattr(engine, "decode", lambda ids: read.append(len(ids)) or step(ids))  # type: ignore[func-returns-value]
    assert continuations(engine, [[1, 5]], Beam(2, 0.0), 12, end=end) == [[end]]
    assert len(read) < 11


# --- what both refuse ---


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Contrastive(k=0), "k must be at least 1, got 0"),
        (lambda: Contrastive(alpha=1.5), "alpha must be from 0 to 1, got 1.5"),
        (lambda: Contrastive(alpha=math.nan), "alpha must be from 0 to 1, got nan"),
        (lambda: Beam(beams=0), "beams must be at least 1, got 0"),
        (lambda: Beam(penalty=-1.0), "penalty must be a number from 0 up, got -1.0"),
        (lambda: Beam(penalty=math.inf), "penalty must be a number from 0 up, got inf"),
    ],
)
def test_a_setting_outside_its_range_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("strategy", [GREEDY, Contrastive(), Beam()])
@pytest.mark.parametrize("max_new_tokens", [0, 17])
def test_texts_that_the_model_cannot_read_at_once_are_refused(strategy: Strategy, max_new_tokens: int) -> None:
    with pytest.raises(ValueError, match=f"{max_new_tokens} new tokens behind 8: from 1 on, and 24 with the prompt"):
        continuations(Engine(random_llama()), PROMPTS, strategy, max_new_tokens)


@pytest.mark.parametrize("strategy", [GREEDY, Contrastive(), Beam()])
@pytest.mark.parametrize("prompts", [[], [[1], []]])
def test_nothing_cannot_be_continued(strategy: Strategy, prompts: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="there must be some, each of 1 to 24"):
        continuations(Engine(random_llama()), prompts, strategy, 4)


@pytest.mark.parametrize("strategy", [GREEDY, Contrastive(), Beam()])
def test_broken_weights_choose_no_token(strategy: Strategy) -> None:
    model = random_llama()
    with torch.no_grad():
        model.norm.weight[0] = math.nan
    with pytest.raises(ValueError, match="no token can be (drawn|chosen): the logits are not numbers"):
        continuations(Engine(model), PROMPTS, strategy, 4)


# --- the engine's hidden states ---


@pytest.mark.parametrize("kind", KINDS, ids=["grouped", "alibi", "one for all"])
def test_the_engine_gives_the_hidden_states_of_the_model(kind: dict[str, Any]) -> None:
    model, tokens = random_llama(**kind), random_tokens(2, 9)
    with torch.inference_mode():
        _, expected = model(tokens)  # (2, 9, dim)
    engine = Engine(model)
    rows = [tokens[0, :6].tolist(), tokens[1, :4].tolist()]
    hidden = engine.prefill_hidden(rows)
    torch.testing.assert_close(hidden[0], expected[0, :6], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(hidden[1, 2:], expected[1, :4], rtol=1e-4, atol=1e-4)  # the rows end together
    step = engine.decode_hidden(torch.stack([tokens[0, 6], tokens[1, 4]]))
    torch.testing.assert_close(step, torch.stack([expected[0, 6], expected[1, 4]]), rtol=1e-4, atol=1e-4)


def test_a_row_of_the_cache_may_be_kept_twice() -> None:
    engine, tokens = Engine(random_llama()), torch.tensor([5, 6, 7])
    engine.prefill(PROMPTS)
    engine.keep([2, 0, 2])
    together = engine.decode(tokens)
    for row, (prompt, token) in enumerate(zip([PROMPTS[2], PROMPTS[0], PROMPTS[2]], tokens.tolist(), strict=True)):
        torch.testing.assert_close(together[row], engine.prefill([[*prompt, token]])[0], rtol=1e-4, atol=1e-4)


# --- the measures ---

TEXTS = st.lists(st.integers(0, 5), max_size=30)


def test_repetition_counts_what_was_there_before() -> None:
    assert repetition([1, 2, 1, 2, 1], 2) == pytest.approx(1 - 2 / 4)
    assert repetition([7] * 10, 3) == pytest.approx(1 - 1 / 8)
    assert repetition([1, 2], 3) == 0.0


@given(TEXTS, st.integers(1, 5))
def test_repetition_is_a_share_and_0_only_where_nothing_comes_twice(tokens: list[int], n: int) -> None:
    runs = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    assert 0 <= repetition(tokens, n) < 1
    assert (repetition(tokens, n) == 0) == all(runs.count(run) == 1 for run in runs)


@given(TEXTS, st.integers(1, 4))
def test_longer_n_grams_come_again_less_often(tokens: list[int], n: int) -> None:
    """A run that comes again begins with a shorter one that does."""

    def again(length: int) -> int:
        runs = [tuple(tokens[i : i + length]) for i in range(len(tokens) - length + 1)]
        return len(runs) - len(set(runs))

    assert again(n + 1) <= again(n)
    assert repetition(tokens, n) == pytest.approx(again(n) / max(1, len(tokens) - n + 1))


@given(TEXTS, st.permutations(range(6)), st.integers(1, 4))
def test_the_measures_do_not_depend_on_what_the_tokens_are_called(tokens: list[int], names: list[int], n: int) -> None:
    renamed = [names[token] for token in tokens]
    assert repetition(renamed, n) == repetition(tokens, n)
    assert distinct([renamed], n) == distinct([tokens], n)


@given(st.lists(TEXTS, max_size=4), st.integers(1, 4))
def test_of_a_single_text_distinct_is_what_repetition_is_not(texts: list[list[int]], n: int) -> None:
    for text in texts:
        assert distinct([text], n) == pytest.approx(1 - repetition(text, n))
    assert 0 < distinct(texts, n) <= 1
    assert distinct([*texts, *texts], n) <= distinct(texts, n)


def test_distinct_sees_that_texts_are_alike() -> None:
    assert distinct([[1, 2, 3], [1, 2, 3]], 2) == 0.5
    assert distinct([[1, 2, 3], [4, 5, 6]], 2) == 1.0
    assert distinct([[1], []], 2) == 1.0


@pytest.mark.parametrize("measure", [lambda: repetition([1, 2], 0), lambda: distinct([[1, 2]], 0)])
def test_an_n_gram_of_no_tokens_is_refused(measure: Any) -> None:
    with pytest.raises(ValueError, match="an n-gram has at least one token, got n = 0"):
        measure()


@settings(max_examples=20)
@given(
    st.lists(
        st.tuples(*[st.lists(st.integers(0, 39), min_size=1, max_size=12) for _ in range(2)]), min_size=1, max_size=20
    )
)
def test_likelihoods_are_those_of_the_model_whatever_is_beside_them(pairs: list[tuple[list[int], list[int]]]) -> None:
    model = random_llama()
    found = log_likelihoods(Engine(model), [prompt for prompt, _ in pairs], [after for _, after in pairs])
    expected = [log_likelihood(model, prompt, after) / len(after) for prompt, after in pairs]
    assert found == pytest.approx(expected, abs=1e-3)
    assert max(found) <= 0


def test_greedy_text_is_likelier_than_any_other_next_token() -> None:
    model = random_llama()
    engine = Engine(model)
    (best,) = log_likelihoods(engine, [PROMPTS[0]], [greedy(model, PROMPTS[0], 1)])
    assert best == max(log_likelihoods(engine, [PROMPTS[0]] * 40, [[token] for token in range(40)]))


@pytest.mark.parametrize(("prompts", "after"), [([[1]], []), ([[1]], [[]]), ([[]], [[1]]), ([[1], [2]], [[1]])])
def test_a_likelihood_needs_tokens(prompts: list[list[int]], after: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="each prompt needs a continuation, and each of both a token"):
        log_likelihoods(Engine(random_llama()), prompts, after)


# --- the comparison ---


@pytest.fixture(scope="module")
def checkpoint(tokenizer_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint of a tiny model that has a tokenizer."""
    model = random_llama(vocab_size=400, max_seq_len=64)
    path = tmp_path_factory.mktemp("decoding") / "tiny"
    write_directory(path, model.config, model.state_dict(), tokenizer_model)
    return path


def test_a_text_is_parted_behind_its_first_tokens(tokenizer_model: Path) -> None:
    tokenizer = Tokenizer(tokenizer_model=tokenizer_model)
    text = " ".join(SENTENCES)
    ids = tokenizer.encode(text, bos=True, eos=True)
    prompt = make_prompt(tokenizer, text, 7)
    assert (prompt.ids, prompt.truth) == (ids[: PROMPT_TOKENS + 1], ids[PROMPT_TOKENS + 1 : PROMPT_TOKENS + 8])
    assert make_prompt(tokenizer, text, 10_000).truth == ids[PROMPT_TOKENS + 1 :]


def test_a_short_text_is_a_prompt_as_a_whole_and_nothing_follows(tokenizer_model: Path) -> None:
    tokenizer = Tokenizer(tokenizer_model=tokenizer_model)
    assert make_prompt(tokenizer, "Lily", 5) == Prompt(tokenizer.encode("Lily", bos=True, eos=False), [])
    assert make_prompt(tokenizer, "", 5) == Prompt([tokenizer.bos_id], [])
    letters = "zq" * PROMPT_TOKENS  # as many tokens as fill the prompt, and no more
    exact = next(letters[:n] for n in range(99) if len(tokenizer.encode(letters[:n], False, False)) == PROMPT_TOKENS)
    assert make_prompt(tokenizer, exact, 5).truth == []


def test_rows_have_every_measure_and_the_text_as_it_really_goes_on_comes_first(tokenizer_model: Path) -> None:
    tokenizer = Tokenizer(tokenizer_model=tokenizer_model)
    model = random_llama(vocab_size=400, max_seq_len=64)
    prompts = [make_prompt(tokenizer, text, 9) for text in (" ".join(SENTENCES), "Lily", SENTENCES[0] * 2)]
    chosen = {name: STRATEGIES[name] for name in ("greedy", "sampling", "beam")}
    rows = compare(model, tokenizer, prompts, chosen, 9, seeds=[1, 2, 3])
    assert json.loads(json.dumps(rows)) == rows
    assert [(row["strategy"], row["texts"]) for row in rows] == [
        ("reference", 2), ("greedy", 3), ("sampling", 9), ("beam", 3)
    ]  # fmt: skip
    truths = [prompt for prompt in prompts if prompt.truth]
    expected = log_likelihoods(Engine(model), [each.ids for each in truths], [each.truth for each in truths])
    assert rows[0]["log_likelihood"]["mean"] == pytest.approx(sum(expected) / 2)
    assert rows[0]["length"] == {"mean": 9.0, "deviation": 0.0}
    assert rows[0]["sample"] == tokenizer.decode([*prompts[0].ids, *prompts[0].truth])
    assert rows[0]["distinct_1"]["deviation"] is None and rows[2]["distinct_1"]["deviation"] is not None
    assert rows[1]["log_likelihood"]["mean"] > rows[2]["log_likelihood"]["mean"]
    assert rows[3]["settings"] == {"kind": "beam", "beams": 4, "penalty": 1.0}
    assert all(row["sample"].startswith(row["prompt"]) for row in rows)


def test_a_seed_gives_the_same_texts_again_and_another_seed_others(tokenizer_model: Path) -> None:
    tokenizer = Tokenizer(tokenizer_model=tokenizer_model)
    model = random_llama(vocab_size=400, max_seq_len=64)
    prompts = [make_prompt(tokenizer, "Lily", 5)] * 2

    def samples(seed: int) -> list[dict[str, Any]]:
        return compare(model, tokenizer, prompts, {"all": Sampling()}, 12, [seed])

    assert samples(1) == samples(1)
    assert samples(1)[0]["sample"] != samples(2)[0]["sample"]
    assert samples(1)[0]["log_likelihood"]["deviation"] > 0  # the same prompt twice draws twice


def test_many_prompts_are_continued_in_turns_with_the_same_texts(
    tokenizer_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Tokenizer(tokenizer_model=tokenizer_model)
    model = random_llama(vocab_size=400, max_seq_len=64)
    prompts = [make_prompt(tokenizer, text, 5) for text in SENTENCES]
    at_once = compare(model, tokenizer, prompts, STRATEGIES, 5, [1])
    monkeypatch.setattr("advanced.decoding.ROWS_AT_ONCE", 2)
    for row, other in zip(compare(model, tokenizer, prompts, STRATEGIES, 5, [1]), at_once, strict=True):
        assert row["sample"] == other["sample"]
        assert row["log_likelihood"] == pytest.approx(other["log_likelihood"], abs=1e-4)


def test_the_end_token_is_no_word(tokenizer_model: Path) -> None:
    tokenizer = Tokenizer(tokenizer_model=tokenizer_model)
    model = random_llama(vocab_size=400, max_seq_len=64)
    ended = Prompt([1, 5, 6], [7, 7, tokenizer.eos_id])
    (row, _) = compare(model, tokenizer, [ended], {"greedy": GREEDY}, 3, [1])
    assert row["length"]["mean"] == 2.0
    assert row["distinct_1"]["mean"] == 0.5
    assert row["log_likelihood"]["mean"] == pytest.approx(log_likelihood(model, ended.ids, ended.truth) / 3, abs=1e-3)


def test_a_comparison_needs_a_seed(tokenizer_model: Path) -> None:
    with pytest.raises(ValueError, match="no seed to draw with"):
        compare(random_llama(), Tokenizer(tokenizer_model=tokenizer_model), [Prompt([1], [])], STRATEGIES, 3, [])


def test_only_a_sampling_with_a_temperature_is_random() -> None:
    assert {name for name, strategy in STRATEGIES.items() if not is_random(strategy)} == {
        "greedy", "contrastive", "beam"
    }  # fmt: skip


def test_the_table_has_a_line_a_strategy_and_its_columns_are_aligned() -> None:
    measure = {"mean": 0.25, "deviation": None}
    names = ("log_likelihood", "rep_2", "rep_3", "rep_4", "distinct_1", "distinct_2")
    row = dict.fromkeys(names, measure) | {"length": {"mean": 7.0, "deviation": 1.5}}
    lines = table([row | {"strategy": "greedy"}, row | {"strategy": "a longer name"}]).splitlines()
    assert [line.split()[0] for line in lines] == ["strategy", "greedy", "a"]
    assert len({len(line) for line in lines}) == 1
    assert lines[1].endswith("7.0 ± 1.5") and "0.250 " in lines[1]


# --- the command ---


def test_it_prints_the_table_and_the_texts_and_writes_the_rows(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "held-out.txt"
    file.write_text("\n".join([" ".join(SENTENCES), SENTENCES[1] * 3]))  # one a line
    out = tmp_path / "rows.json"
    decode(checkpoint, file, ["top-p", "contrastive"], 6, [1, 2], out)
    printed = capsys.readouterr().out
    written = json.loads(out.read_text())
    rows = written.pop("rows")
    assert printed.startswith(table(rows))
    assert [row["strategy"] for row in rows] == ["reference", "top-p", "contrastive"]
    assert all(f"--- {row['strategy']}\n{row['sample']}\n" in printed for row in rows)
    assert written["prompts"]["name"] == "held-out.txt" and len(written["prompts"]["sha256"]) == 64
    del written["prompts"]
    assert written == {"checkpoint": "tiny", "prompt_tokens": PROMPT_TOKENS, "max_new_tokens": 6, "seeds": [1, 2]}


def test_without_a_file_it_takes_its_own_openings_and_without_names_every_strategy(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("advanced.decoding.OPENINGS", ("Once upon a time", "Lily"))
    decode(checkpoint, None, [], 3, [1], None)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[: len(STRATEGIES) + 1]] == ["strategy", *STRATEGIES]


def test_the_openings_are_too_short_to_be_cut() -> None:
    tokenizer = Tokenizer(tokenizer_model=Path(__file__).parent.parent / "checkpoints/storybook")
    assert all(not make_prompt(tokenizer, text, 10).truth for text in OPENINGS)
    assert len(set(OPENINGS)) == len(OPENINGS)


def test_texts_of_several_lines_are_parted_by_the_marker(checkpoint: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "texts.txt", tmp_path / "rows.json"
    file.write_text("Lily\nand Tom\n<|endoftext|>\nA dog\n<|endoftext|>\n")
    decode(checkpoint, file, ["greedy"], 3, [1], out)
    (row,) = json.loads(out.read_text())["rows"]
    assert row["texts"] == 2 and row["prompt"] == "Lily\nand Tom"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"texts\.txt: cannot be read \(No such file or directory\)"),
        ("\n \n", r"texts\.txt:1: the file holds no prompt"),
        (" <|endoftext|> ", r"texts\.txt: the file holds no text: write some, a line with <\|endoftext\|> behind each"),
    ],
)
def test_a_file_without_texts_is_refused(checkpoint: Path, tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "texts.txt"
    if content is not None:
        file.write_text(content)
    with pytest.raises(DataError, match=message):
        decode(checkpoint, file, [], 3, [1], None)


def test_a_strategy_that_nobody_knows_is_refused(checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="there is no strategy 'best': choose from greedy, sampling, top-k"):
        decode(checkpoint, None, ["greedy", "best"], 3, [1], None)


def test_no_seed_at_all_is_refused(checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="no seed to draw with: name at least one with --seeds"):
        decode(checkpoint, None, ["greedy"], 3, [], None)


def test_rows_cannot_be_written_to_a_folder(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no regular file: name another for --rows"):
        decode(checkpoint, None, ["greedy"], 3, [1], tmp_path)


@pytest.mark.parametrize("max_new_tokens", [0, 63])
def test_more_tokens_than_the_model_reads_at_once_are_refused(
    checkpoint: Path, tmp_path: Path, max_new_tokens: int
) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("Lily\n")
    message = rf"{max_new_tokens} new tokens behind .*: the model reads 64 .* --max-new-tokens must be from 1 to \d\d"
    with pytest.raises(UsageError, match=message):
        decode(checkpoint, file, ["greedy"], max_new_tokens, [1], None)


def test_a_model_that_reads_no_more_than_a_prompt_is_refused(tokenizer_model: Path, tmp_path: Path) -> None:
    model = random_llama(vocab_size=400, max_seq_len=4)
    write_directory(tmp_path / "short", model.config, model.state_dict(), tokenizer_model)
    with pytest.raises(
        UsageError, match="short reads 4 tokens at once, and a prompt has [0-9]+: name another checkpoint"
    ):
        decode(tmp_path / "short", None, ["greedy"], 3, [1], None)


def test_weights_that_are_no_numbers_are_refused(tokenizer_model: Path, tmp_path: Path) -> None:
    model = random_llama(vocab_size=400, max_seq_len=64)
    with torch.no_grad():
        model.norm.weight[0] = math.nan
    write_directory(tmp_path / "broken", model.config, model.state_dict(), tokenizer_model)
    with pytest.raises(CheckpointError, match=r"tensor norm\.weight holds values that are not finite"):
        decode(tmp_path / "broken", None, ["greedy"], 3, [1], None)
