"""The benchmark of AdamW, at toy size: python -m pytest tests/test_benchmark_optimizer.py"""

import inspect
from typing import Any

import pytest
import torch

from benchmarks import optimizer
from errors import UsageError
from optimizer import AdamW


@pytest.mark.parametrize("name", optimizer.CONTENDERS)
def test_all_contenders_take_the_same_step(name: str) -> None:
    stepped = []
    for make in (AdamW, optimizer.CONTENDERS[name]):
        parameters = optimizer._parameters("toy", "cpu")
        torch.manual_seed(1)
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter).sign()  # no gradient is so small that eps counts
        make(parameters).step()
        stepped.append(parameters)
    for one, other in zip(*stepped, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    before = optimizer._parameters("toy", "cpu")
    assert not torch.equal(before[0], stepped[1][0])


def test_the_limit_moves_as_many_bytes_as_a_step() -> None:
    move = optimizer._moving(50, "cpu")
    assert move() == 50
    memory = inspect.getclosurevars(move).nonlocals
    assert (memory["state"] == -1).all() and (memory["gradient"] == 1).all()
    assert 4 * (memory["gradient"].numel() + 2 * memory["state"].numel()) == 50 * optimizer.BYTES  # the state twice


def test_a_run_has_a_row_each_and_compares_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizer, "STEPS", 5)
    result = optimizer.measure(sizes=["toy"], rounds=2)
    assert [row["contender"] for row in result["rows"]] == [*optimizer.CONTENDERS, optimizer.MOVE]
    assert all(len(row["rounds"]) == 2 for row in result["rows"])
    assert result["difference"]["size"] == "toy"
    assert 0 <= result["difference"]["largest"] < 1e-6
    text = optimizer.table(result)
    assert text.startswith("## ") and text.count("| toy |") == len(result["rows"])
    assert "After 5 steps" in text


def test_the_loop_and_the_fast_step_get_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slower(AdamW):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs | {"lr": 5e-4})

    monkeypatch.setattr(optimizer, "STEPS", 3)
    monkeypatch.setattr(optimizer, "FastAdamW", Slower)
    assert optimizer._largest_difference("toy", "cpu") > 1e-4  # so a difference would be seen


def test_the_table_has_ratios_round_by_round() -> None:
    def row(contender: str, *rounds: float) -> dict[str, Any]:
        return {"size": "s", "contender": contender, "numbers": 10**9, "rounds": rounds, "median": rounds[1]}

    rows = [row(optimizer.FAST, 1.0, 2.0, 4.0), row(optimizer.FUSED, 2.0, 4.0, 4.0), row(optimizer.MOVE, 0.5, 1.0, 3.0)]
    cells = optimizer._cells(rows)
    assert cells(rows[0]) == ("s", optimizer.FAST, "2000.0", "14.0", "2.00 (1.50 to 2.00)", "50%")
    assert cells(rows[1])[-2:] == ("1.00", "25%")
    assert cells(rows[2])[-1] == "100%"


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="device 'cuda' is not available on this machine"):
        optimizer.measure(sizes=["toy"], rounds=1, device="cuda")
