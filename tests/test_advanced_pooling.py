"""Reading a sentence: means that see no padding, and tokens that see both sides of themselves."""

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advanced.method import Method
from advanced.model import LastToken
from advanced.pooling import AttentionPool, AttentionPooling, Bidirectional, MeanPool, MeanPooling
from advanced.training import Training
from errors import UsageError
from inference.fast_modules import FastAttention
from tests.tiny import padded, random_tokens
from tests.tiny_advanced import tiny_training

PAD, DIM = 3, 8
LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=4)
ALL = pytest.mark.parametrize(
    "methods",
    [[MeanPooling()], [AttentionPooling()], [Bidirectional()], [AttentionPooling(), Bidirectional()]],
    ids=["mean", "attention", "bidirectional", "attention+bidirectional"],
)


def rows_of(lengths: list[int]) -> list[list[int]]:
    """Return rows of random tokens."""
    return [random_tokens(1, length, seed=i)[0].tolist() for i, length in enumerate(lengths)]


def stirred(pool: AttentionPool) -> AttentionPool:
    """Give a pooling a query that is not zero."""
    with torch.no_grad():
        pool.query.add_(torch.linspace(-1, 1, len(pool.query)))
    return pool


def hidden_of(training: Training, tokens: torch.Tensor) -> torch.Tensor:
    """Return the hidden states of tokens: (bs, seqlen, dim)."""
    hidden: torch.Tensor = training.classifier.eval().llama(tokens)[1]
    return hidden.detach()


# ------------------------------------------------------------------------------------------------- means


@settings(max_examples=30)
@given(lengths=LENGTHS, more=st.integers(0, 3))
def test_the_mean_is_over_the_tokens_and_not_over_the_padding(lengths: list[int], more: int) -> None:
    tokens = padded(rows_of(lengths), width=max(lengths) + more)
    hidden = torch.randn(*tokens.shape, DIM)
    expected = torch.stack([hidden[i, :length].mean(dim=0) for i, length in enumerate(lengths)])
    torch.testing.assert_close(MeanPool()(hidden, tokens, PAD), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(AttentionPool(DIM)(hidden, tokens, PAD), expected, atol=1e-5, rtol=1e-5)


@settings(max_examples=30)
@given(lengths=LENGTHS)
def test_learned_weights_are_shares_that_grow_with_the_fit(lengths: list[int]) -> None:
    tokens = padded(rows_of(lengths))
    hidden, pool = torch.randn(*tokens.shape, DIM), stirred(AttentionPool(DIM))
    weights, fit = pool.weights(hidden, tokens, PAD), hidden @ pool.query
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(lengths)))
    for i, length in enumerate(lengths):
        assert (weights[i, length:] == 0).all()
        assert torch.equal(weights[i, :length].argsort(), fit[i, :length].argsort())
    expected = torch.einsum("bs,bsd->bd", weights, hidden)
    torch.testing.assert_close(pool(hidden, tokens, PAD), expected, atol=1e-5, rtol=1e-5)


def test_the_query_is_trained_and_the_task_learnt(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, AttentionPooling(), epochs=6)
    assert "pool.query" in training.classifier.trained
    training.run()
    assert training.classifier.get_parameter("pool.query").abs().max() > 0
    assert training.history[-1].train_loss < 0.5 * training.history[0].train_loss


def test_attention_starts_as_the_mean_which_is_not_the_last_token(tmp_path: Path) -> None:
    plain, mean, attention = (tiny_training(tmp_path, *m) for m in ([], [MeanPooling()], [AttentionPooling()]))
    torch.testing.assert_close(attention.scores("dev"), mean.scores("dev"), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(plain.scores("dev"), mean.scores("dev"), atol=1e-3)
    assert mean.classifier.trained.keys() == plain.classifier.trained.keys()


@ALL
def test_neither_padding_nor_the_other_rows_change_an_answer(tmp_path: Path, methods: list[Method]) -> None:
    classifier = tiny_training(tmp_path, *methods).classifier.eval()
    if isinstance(classifier.pool, AttentionPool):
        stirred(classifier.pool)
    rows = rows_of([1, 9, 4, 6])
    together = classifier(padded(rows, width=14))
    alone = torch.cat([classifier(padded([row])) for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


# ------------------------------------------------------------------------------------------------- both sides


def test_a_later_token_changes_the_states_before_it_only_without_the_causal_mask(tmp_path: Path) -> None:
    tokens = random_tokens(1, 8)
    other = tokens.clone()
    other[0, 5] += 1
    for methods, sees_ahead in ([], False), ([Bidirectional()], True):
        training = tiny_training(tmp_path, *methods)
        difference = (hidden_of(training, tokens) - hidden_of(training, other)).abs().amax(dim=-1)[0]
        assert ((difference[:5] > 1e-4) == sees_ahead).all()
        assert (difference[5:] > 1e-4).all()


def test_faster_modules_see_what_the_simple_ones_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = tiny_training(tmp_path, Bidirectional())
    monkeypatch.setattr("advanced.training.speed_up_classifier", lambda classifier: None)
    simple = tiny_training(tmp_path, Bidirectional())
    assert any(isinstance(module, FastAttention) for module in fast.classifier.modules())
    assert not any(isinstance(module, FastAttention) for module in simple.classifier.modules())
    tokens = padded(rows_of([1, 9, 4]))
    outputs = [training.classifier.eval()(tokens) for training in (fast, simple)]
    torch.testing.assert_close(*outputs, atol=1e-4, rtol=1e-4)
    for output in outputs:
        output[:, 0].sum().backward()
    theirs = dict(simple.classifier.named_parameters())
    for name, parameter in fast.classifier.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, atol=1e-3, rtol=1e-3, msg=name)


def test_a_copy_hides_its_own_padding(tmp_path: Path) -> None:
    classifier = tiny_training(tmp_path, Bidirectional()).classifier.eval()
    rows = rows_of([2, 7])
    expected = classifier(padded(rows))
    copied = copy.deepcopy(classifier)
    classifier(padded(rows_of([5, 1, 3])))
    assert torch.equal(copied(padded(rows)), expected)


def test_both_sides_can_be_learnt_from(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, Bidirectional(), epochs=6)
    assert isinstance(training.classifier.pool, LastToken)
    training.run()
    assert training.history[-1].train_loss < 0.5 * training.history[0].train_loss


def test_alibi_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="bidirectional: this Llama has ALiBi, which knows no positions ahead. Take one"
    ):
        tiny_training(tmp_path, Bidirectional(), sizes={"position_embedding_type": "alibi"})
