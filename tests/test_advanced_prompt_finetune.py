"""advanced/prompt_finetune.py: run with `pytest tests/test_advanced_prompt_finetune.py`."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from advanced.model import Classifier
from advanced.prompt_finetune import PromptFinetune
from advanced.templates import make_prompt
from advanced.training import Recipe, Training
from classifier import LlamaZeroShotClassifier
from config import ClassifierConfig
from errors import TokenizerError, UsageError
from sentiment_data import collate
from tests.tiny import WordTokenizer, random_llama, save_llama
from tests.tiny_advanced import tiny_task, tiny_training


def word_training(folder: Path, method: PromptFinetune, **changes: Any) -> Training:
    """Return a training with a tokenizer for which each label is a single token, not yet run."""
    path = save_llama(folder / "tiny.pt", random_llama(**({"vocab_size": 120, "max_seq_len": 64} | changes)))
    tokenizer: Any = WordTokenizer()
    classifier = Classifier(path, 2, dropout=0.3)
    return Training(classifier, tokenizer, tiny_task(), [method], Recipe(batch_size=4, lr=1e-3, epochs=1))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("pair", [("question", "names"), ("it-was", "simple")])
def test_before_training_it_answers_as_zero_shot_prompting(tmp_path: Path, pair: tuple[str, str], tied: bool) -> None:
    training = word_training(tmp_path, PromptFinetune(*pair), tie_word_embeddings=tied)
    prompt, tokenizer = make_prompt(*pair, training.task), training.tokenizer
    asked = LlamaZeroShotClassifier(ClassifierConfig(2, str(tmp_path / "tiny.pt")), tokenizer, ["bad", "good"]).eval()
    asked.label_name_ids = prompt.label_ids(tokenizer)
    assert [len(ids) for ids in asked.label_name_ids] == [1, 1]
    rows = training.encoded("dev").ids
    expected = F.log_softmax(asked(collate(rows, tokenizer.pad_id)), dim=1)  # among the labels alone
    torch.testing.assert_close(training.scores("dev"), expected, atol=1e-4, rtol=0)


def test_of_a_label_of_several_tokens_the_head_begins_as_the_mean_of_their_rows(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, PromptFinetune("it-was", "simple"), sizes={"max_seq_len": 128})
    label_ids = make_prompt("it-was", "simple", training.task).label_ids(training.tokenizer)
    assert max(map(len, label_ids)) > 1
    output = training.classifier.llama.output.weight
    for label, ids in enumerate(label_ids):
        torch.testing.assert_close(training.classifier.classifier_head.weight[label], output[ids].mean(dim=0))
    assert training.classifier.classifier_head.bias.tolist() == [0.0, 0.0]


def test_the_question_follows_each_sentence(tmp_path: Path) -> None:
    training = word_training(tmp_path, PromptFinetune())
    suffix = "Is this movie bad or good? This movie is"
    assert training.encoded("fit").sentences == [f"{sentence} {suffix}" for sentence in training.task.sentences("fit")]


def test_the_head_is_trained_apart_from_the_output_matrix(tmp_path: Path) -> None:
    training = word_training(tmp_path, PromptFinetune("it-was", "names"))
    head, output = training.classifier.classifier_head, training.classifier.llama.output
    assert head.weight.requires_grad
    assert head.weight.untyped_storage().data_ptr() != output.weight.untyped_storage().data_ptr()
    assert {"classifier_head.weight", "classifier_head.bias"} <= set(training.classifier.trained)
    before = head.weight.detach().clone()
    training.run()
    assert len(training.history) == 1
    rows = [ids[0] for ids in make_prompt("it-was", "names", training.task).label_ids(training.tokenizer)]
    assert not torch.equal(head.weight, before)
    assert not torch.allclose(head.weight, output.weight[rows], atol=1e-5)


def test_the_output_matrix_is_as_it_was(tmp_path: Path) -> None:
    training = word_training(tmp_path, PromptFinetune())
    expected = random_llama(vocab_size=120, max_seq_len=64).output.weight
    assert torch.equal(training.classifier.llama.output.weight, expected)


def test_a_template_that_does_not_exist_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="there is no template riddle"):
        PromptFinetune(template="riddle").prompt(tiny_task())


def test_words_that_do_not_exist_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="there are no words called rude"):
        PromptFinetune(words="rude").prompt(tiny_task())


def test_a_label_without_tokens_of_its_own_is_a_tokenizer_error(tmp_path: Path) -> None:
    class Merging(WordTokenizer):
        """One that takes whatever stands behind the question's last word for a part of it."""

        def encode(self, s: str, bos: bool, eos: bool) -> list[int]:
            return super().encode(s.replace("is good", "is"), bos, eos)

    training = word_training(tmp_path, PromptFinetune())
    tokenizer: Any = Merging()
    training.tokenizer = tokenizer
    with pytest.raises(TokenizerError, match="label 'good' has no tokens of its own"):
        PromptFinetune().adapt(training)


def test_it_trains_with_a_tokenizer_of_pieces(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, PromptFinetune("this-movie", "names"), sizes={"max_seq_len": 128})
    training.run()
    assert training.scores("dev").isfinite().all()
