"""The next-token data set: python -m pytest tests/test_pretrain_windows.py"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from errors import DataError
from pretrain.windows import Windows, draw


def shard(first: int, count: int) -> np.ndarray:
    return np.arange(first, first + count, dtype=np.uint16)


def test_a_pair_is_a_window_and_the_same_window_one_token_later() -> None:
    windows = Windows([shard(100, 10)], context=4, stride=1)
    inputs, targets = windows.batch([0, 5])
    assert inputs.tolist() == [[100, 101, 102, 103], [105, 106, 107, 108]]
    assert targets.tolist() == [[101, 102, 103, 104], [106, 107, 108, 109]]
    assert inputs.dtype == torch.int64


@pytest.mark.parametrize(("stride", "expected"), [(1, 6), (2, 3), (4, 2), (5, 2), (6, 1), (100, 1)])
def test_windows_begin_every_stride_tokens(stride: int, expected: int) -> None:
    windows = Windows([shard(0, 10)], context=4, stride=stride)
    assert len(windows) == expected
    starts = windows.batch(range(expected))[0][:, 0].tolist()
    assert starts == [i * stride for i in range(expected)]


def test_with_stride_one_there_are_as_many_as_tokens_less_the_context() -> None:
    assert len(Windows([shard(0, 500)], context=128, stride=1)) == 500 - 128


def test_no_window_crosses_from_one_shard_into_the_next() -> None:
    windows = Windows([shard(0, 7), shard(50, 3), shard(100, 9)], context=4, stride=2)
    inputs, targets = windows.batch(range(len(windows)))
    assert inputs[:, 0].tolist() == [0, 2, 100, 102, 104]
    assert (targets - inputs == 1).all()


def test_ids_beyond_sixteen_bits_survive() -> None:
    windows = Windows([np.array([70_000, 80_000, 90_000], dtype=np.uint32)], context=2, stride=1)
    assert windows.batch([0])[1].tolist() == [[80_000, 90_000]]


@pytest.mark.parametrize("shards", [[], [shard(0, 4)], [shard(0, 4), shard(0, 4)]])
def test_a_text_shorter_than_one_window_is_an_error_that_says_what_to_do(shards: list[np.ndarray]) -> None:
    with pytest.raises(DataError, match="context of 4 tokens needs 5 in a row.*take a shorter context"):
        Windows(shards, context=4, stride=1)


def test_the_error_names_the_shards_that_are_too_short() -> None:
    with pytest.raises(DataError, match="^data: the validation split: a context of 4 .*--validation of prepare"):
        Windows([shard(0, 4)], context=4, stride=1, name="data: the validation split")


@given(st.integers(1, 400), st.integers(0, 2**32), st.integers(0, 5))
def test_each_epoch_holds_every_window_once(count: int, seed: int, epoch: int) -> None:
    drawn = [draw(epoch * count + i, count, seed) for i in range(count)]
    assert sorted(drawn) == list(range(count))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {tuple(draw(epoch * 50 + i, 50, seed) for i in range(50)) for epoch in range(4) for seed in range(4)}
    assert len(orders) == 16


def test_the_order_is_no_pattern() -> None:
    order = np.array([draw(i, 10_000, seed=1) for i in range(10_000)])
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.05  # 5 sigma: 5 / sqrt(10,000)
    assert abs(np.corrcoef(order, np.arange(10_000))[0, 1]) < 0.05
    steps = np.bincount((np.diff(order) % 10).astype(int), minlength=10)
    assert steps.min() > 800  # about 1,000 each


def test_a_huge_data_set_needs_no_memory() -> None:
    count = 10**12
    drawn = {draw(i, count, seed=0) for i in range(1000)}
    assert len(drawn) == 1000
    assert max(drawn) > count // 2
