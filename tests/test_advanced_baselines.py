"""The bags of words, and the mixture with them: run with `pytest tests/test_advanced_baselines.py`."""

import builtins
from typing import Any

import pytest
import torch

from advanced import baselines
from advanced.baselines import Hybrid, LinearSvm, LogisticRegression
from advanced.task import SCORED, Part, Task
from errors import DataError, MissingDependency, UsageError
from sentiment_data import Example, accuracy
from tests.tiny_advanced import tiny_task

KINDS = (LogisticRegression, LinearSvm)


@pytest.mark.parametrize("kind", KINDS)
def test_words_that_give_the_label_away_are_learnt(kind: Any) -> None:
    task = tiny_task(48)
    model = kind()
    scores = model.scores(task, seed=1)
    assert set(scores) == set(SCORED)
    for part in SCORED:
        assert scores[part].shape == (len(task.labels(part)), 2)
        assert accuracy(scores[part].argmax(dim=1).tolist(), task.labels(part)) == 1.0
    assert model.chosen["strength"] in baselines.STRENGTHS


def test_log_probabilities_add_up_to_one() -> None:
    scores = LogisticRegression().scores(tiny_task(48), seed=1, parts=("dev",))
    torch.testing.assert_close(scores["dev"].exp().sum(dim=1), torch.ones(24))


def with_three_labels() -> Task:
    task = tiny_task(48)
    return Task("toy", ["bad", "good", "never seen"], task.parts)


@pytest.mark.parametrize("kind", KINDS)
def test_a_label_that_no_sentence_has_is_never_predicted(kind: Any) -> None:
    scores = kind().scores(with_three_labels(), seed=1)["dev"]
    assert scores.shape == (24, 3)
    assert scores.isfinite().all()
    assert not (scores.argmax(dim=1) == 2).any()


def with_noise_words() -> tuple[Task, list[int]]:
    """Return a task whose selection part is dev twice, in words that tell the label to who has seen them alone."""
    fit = [Example(i % 2, f"{('bad', 'good')[i % 2]} film") for i in range(20)]
    noise = [Example(i % 2, f"zork{i} zork{i} quux{i} quux{i} bad good") for i in range(20)]
    doubled = [*noise, *noise]  # min_df=2 would drop words of one sentence
    parts: dict[Part, list[Example]] = {"fit": fit, "selection": doubled, "dev": noise, "test": noise}
    return Task("toy", ["bad", "good"], parts), [example.label for example in noise]


def test_the_selection_part_is_scored_by_a_model_that_has_not_seen_it() -> None:
    task, labels = with_noise_words()
    scores = LogisticRegression().scores(task, seed=1)
    assert accuracy(scores["dev"].argmax(dim=1).tolist(), labels) > 0.9
    assert accuracy(scores["selection"].argmax(dim=1).tolist(), labels * 2) < 0.7


def test_a_hybrid_has_seen_no_more_than_the_llama_that_it_is_mixed_with() -> None:
    task, labels = with_noise_words()
    unsure = {part: torch.zeros(len(task.labels(part)), 2) for part in SCORED}
    mixed = Hybrid(steps=1).mix({part: scores + torch.tensor([0.0, 1e-9]) for part, scores in unsure.items()}, task, 1)
    assert accuracy(mixed["dev"].argmax(dim=1).tolist(), labels) < 0.7


def test_a_hybrid_without_steps_is_refused() -> None:
    with pytest.raises(UsageError, match="hybrid: steps must be at least 1, got 0"):
        Hybrid(steps=0)


def scores_of(task: Task, right: bool) -> dict[Part, torch.Tensor]:
    """Return scores that are always right, or always wrong."""
    return {
        part: torch.nn.functional.one_hot(torch.tensor(task.labels(part)), 2).float() * (9.0 if right else -9.0)
        for part in SCORED
    }


def test_a_mixture_is_never_worse_on_the_part_that_it_was_chosen_on() -> None:
    task = tiny_task(48)
    alone = Hybrid()
    mixed = alone.mix(scores_of(task, right=True), task, seed=1)
    assert alone.chosen == {"tfidf_share": 0.0}  # of equals, the Llama alone
    for part in SCORED:
        torch.testing.assert_close(mixed[part], scores_of(task, right=True)[part].log_softmax(dim=1))
    saved = Hybrid()
    mixed = saved.mix(scores_of(task, right=False), task, seed=1)
    assert saved.chosen["tfidf_share"] > 0.5
    assert accuracy(mixed["dev"].argmax(dim=1).tolist(), task.labels("dev")) == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_too_few_sentences_are_an_error_that_says_so(kind: Any) -> None:
    one_label = [Example(0, "a film"), Example(0, "a film again")]
    no_word_twice = [Example(0, "one"), Example(1, "two"), Example(0, "three"), Example(1, "four")]
    for fit in (one_label, no_word_twice):
        task = Task("toy", ["bad", "good"], dict.fromkeys(("fit", *SCORED), fit))
        with pytest.raises(DataError, match="toy: too few sentences"):
            kind().scores(task, seed=1)


def test_a_label_with_a_single_sentence_is_no_obstacle() -> None:
    task = tiny_task(24)
    single = [*(example for example in task.parts["fit"] if example.label == 0), Example(1, "a good good film")]
    model = LinearSvm()
    model.scores(Task("toy", ["bad", "good"], {**task.parts, "fit": single}), seed=1)
    assert model.chosen == {"strength": baselines.STRENGTHS[0]}


def test_without_scikit_learn_the_line_to_install_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **more: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependency, match="pip install scikit-learn"):
        LinearSvm().scores(tiny_task(), seed=1)
