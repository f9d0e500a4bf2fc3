"""The choices of 2024, and that ours differ from them: pytest tests/test_reproduce_2024.py"""

from pathlib import Path

import torch
import torch.nn.functional as F

from classifier import LlamaEmbeddingClassifier, LlamaZeroShotClassifier
from config import ClassifierConfig
from llama import load_pretrained
from reproduce_2024 import ZeroShotClassifier2024, attend_to_everything
from tests.tiny import WordTokenizer, padded, random_llama, random_tokens, save_llama

LABELS = ["very bad", "good"]


def test_the_embedding_classifier_reads_the_last_column_and_sees_padding(tmp_path: Path) -> None:
    path = save_llama(tmp_path / "tiny.pt", random_llama())
    classifier = LlamaEmbeddingClassifier(ClassifierConfig(2, str(path))).eval()
    attend_to_everything(classifier.llama)
    rows = padded(random_tokens(2, 6).tolist(), width=9)  # three columns of padding
    _, hidden = classifier.llama(rows)
    expected = F.log_softmax(classifier.classifier_head(hidden[:, -1]), dim=-1)
    assert torch.equal(classifier(rows), expected)
    assert not torch.allclose(classifier(rows), classifier(rows[:, :6]), atol=1e-3)


def test_attention_looks_ahead(tmp_path: Path) -> None:
    llama = load_pretrained(save_llama(tmp_path / "tiny.pt", random_llama()))
    attend_to_everything(llama)
    tokens = random_tokens(1, 8)
    changed = tokens.clone()
    changed[0, -1] = 5 if tokens[0, -1] != 5 else 6
    assert not torch.allclose(llama(tokens)[1][:, 0], llama(changed)[1][:, 0], atol=1e-3)


def test_a_label_is_the_sum_of_its_tokens_at_one_position(tmp_path: Path) -> None:
    path = save_llama(tmp_path / "tiny.pt", random_llama())
    tokenizer = WordTokenizer()
    config = ClassifierConfig(2, str(path))
    classifier = ZeroShotClassifier2024(config, tokenizer, LABELS)
    attend_to_everything(classifier.llama)
    rows = padded(random_tokens(2, 6).tolist(), width=8)
    log_probs = F.log_softmax(classifier.llama(rows)[0][:, -1], dim=-1)
    very, bad, good = tokenizer.encode("very bad good", bos=False, eos=False)
    expected = torch.stack([log_probs[:, very] + log_probs[:, bad], log_probs[:, good]], dim=1)
    assert torch.allclose(classifier(rows), expected, atol=1e-5)
    ours = LlamaZeroShotClassifier(config, tokenizer, LABELS)
    assert not torch.allclose(ours(rows), expected, atol=1e-2)
