"""The benchmark of prompting, at toy size: python -m pytest tests/test_benchmark_prompt.py"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import prompt
from benchmarks.contenders import transformers_model
from benchmarks.material import Batch, label_names, sentences, tokenizer_of, weights_of
from classifier import LlamaZeroShotClassifier
from config import ClassifierConfig
from sentiment_data import prompt_suffix


def test_all_contenders_give_the_same_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr(prompt, "SAMPLE", 2)
    result = prompt.measure(sizes=["toy"], rounds=2)
    rows = {row["contender"]: row for row in result["rows"]}
    assert list(rows) == [prompt.STUDENT, prompt.FAST, prompt.PEER, prompt.LIMIT]
    assert rows[prompt.STUDENT]["difference"] == 0
    assert 0 < rows[prompt.FAST]["difference"] < 1e-4
    assert 0 < rows[prompt.PEER]["difference"] < 1e-4
    text = prompt.table(result)
    assert text.startswith("## ") and text.count("| toy |") == len(rows)


def test_their_scores_are_the_students_for_labels_of_several_tokens(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    student = _student(tmp_path)
    student.label_name_ids = [[5, 6, 7], [5, 9], [8]]
    batch = Batch([[1, 20, 30, 40], [1, 50]], [0, 0])
    with torch.inference_mode():
        theirs = prompt._their_scores(transformers_model(student.llama), student, batch)
        torch.testing.assert_close(theirs, prompt._scores(student, batch))


def test_the_limit_counts_what_has_to_be_multiplied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt, "best_matmul_rate", lambda device: 1000.0)
    student = _student(tmp_path)
    student.label_name_ids = [[5, 6], [5, 7], [8]]  # one beginning, [5], is read behind each prompt
    names = label_names("toy")
    dev = sentences("toy", "dev", tokenizer_of("toy"), 200, prompt_suffix(names))
    dev = replace(dev, ids=[[1] * 10, [1] * 20])
    config = student.llama.config
    in_layers = sum(
        weight.numel() for name, weight in student.llama.named_parameters() if "layers" in name and weight.dim() == 2
    )
    expected = 2 * in_layers * (30 + 2) + 2 * config.vocab_size * config.dim * 2 * 2
    assert prompt._least(student, dev) == pytest.approx(expected / 1000)


def test_the_table_has_ratios_to_the_students_round_by_round() -> None:
    def row(contender: str, speed: float, *rounds: float) -> dict[str, Any]:
        return {
            "size": "s",
            "contender": contender,
            "prompts_per_second": speed,
            "rounds": rounds,
            "difference": 1.5e-5,
        }

    rows = [row(prompt.STUDENT, 10.0, 2.0, 4.0, 4.0), row(prompt.FAST, 20.0, 1.0, 2.0, 4.0), row(prompt.LIMIT, 40.0)]
    assert [prompt._cells(each, rows) for each in rows] == [
        ("s", prompt.STUDENT, "10.0", "1.00", "25%", ""),
        ("s", prompt.FAST, "20.0", "2.00 (1.50 to 2.00)", "50%", "1.5e-05"),
        ("s", prompt.LIMIT, "40.0", "", "100%", ""),
    ]


def _student(folder: Path) -> LlamaZeroShotClassifier:
    """Return the student's classifier of toy size."""
    config = ClassifierConfig(2, str(weights_of("toy", folder)), option="pretrain")
    student = LlamaZeroShotClassifier(config, tokenizer_of("toy"), label_names("toy"))
    student.llama.config.pad_id = tokenizer_of("toy").pad_id
    return student
