"""Wrong variants of the two classifiers' `forward`."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from autograder.misconceptions.base import Catalogue
from classifier import LlamaEmbeddingClassifier, LlamaZeroShotClassifier, last_token_positions

EMBEDDING_HEAD = Catalogue("embedding_head", "classifier.LlamaEmbeddingClassifier.forward")

# Makes of the hidden states (bs, seqlen, dim), the ids (bs, seqlen) and the pad's id what the head reads, (bs, dim).
Read = Callable[[Tensor, Tensor, int], Tensor]


def _hidden(self: LlamaEmbeddingClassifier, input_ids: Tensor) -> Tensor:
    """Return the hidden states. Shape: (bs, seqlen, dim)."""
    hidden: Tensor = self.llama(input_ids)[1]
    return hidden


def _at(hidden: Tensor, positions: Tensor) -> Tensor:
    """Return each row's hidden state at its position; those outside the row are moved into it."""
    return hidden[torch.arange(len(hidden)), positions.clamp(0, hidden.shape[1] - 1)]


def _last(hidden: Tensor, input_ids: Tensor, pad_id: int) -> Tensor:
    """Return the hidden state of the last real token, which is right."""
    return _at(hidden, last_token_positions(input_ids, pad_id))


def _logits(self: LlamaEmbeddingClassifier, sentence: Tensor) -> Tensor:
    """Apply dropout and head, which is right."""
    logits: Tensor = self.classifier_head(self.dropout(sentence))
    return logits


def _right_logits(self: LlamaEmbeddingClassifier, input_ids: Tensor) -> Tensor:
    """Return the logits as they should be."""
    return _logits(self, _last(_hidden(self, input_ids), input_ids, self.llama.config.pad_id))


def _forward_with(read: Read) -> Callable[..., Tensor]:
    """Make a whole `forward` of what reads the hidden states."""

    def forward(self: LlamaEmbeddingClassifier, input_ids: Tensor) -> Tensor:
        sentence = read(_hidden(self, input_ids), input_ids, self.llama.config.pad_id)
        return F.log_softmax(_logits(self, sentence), dim=-1)

    return forward


@EMBEDDING_HEAD.add("a classifier that reads the first token", _forward_with)
def _first_token(hidden: Tensor, input_ids: Tensor, pad_id: int) -> Tensor:
    return hidden[:, 0]


@EMBEDDING_HEAD.add("a classifier that reads the last column, padding or not", _forward_with)
def _last_column(hidden: Tensor, input_ids: Tensor, pad_id: int) -> Tensor:
    return hidden[:, -1]


@EMBEDDING_HEAD.add("a classifier that reads the token before the last one", _forward_with)
def _one_before(hidden: Tensor, input_ids: Tensor, pad_id: int) -> Tensor:
    return _at(hidden, last_token_positions(input_ids, pad_id) - 1)


@EMBEDDING_HEAD.add("a classifier that reads the first padding behind the last token", _forward_with)
def _one_behind(hidden: Tensor, input_ids: Tensor, pad_id: int) -> Tensor:
    return _at(hidden, last_token_positions(input_ids, pad_id) + 1)


@EMBEDDING_HEAD.add("a classifier that counts an id equal to pad_id inside a sentence as padding", _forward_with)
def _counted(hidden: Tensor, input_ids: Tensor, pad_id: int) -> Tensor:
    return _at(hidden, (input_ids != pad_id).sum(dim=1) - 1)


@EMBEDDING_HEAD.add("a classifier that takes the first id equal to pad_id for the end of the sentence", _forward_with)
def _first_pad(hidden: Tensor, input_ids: Tensor, pad_id: int) -> Tensor:
    is_pad = input_ids == pad_id
    ends = torch.where(is_pad.any(dim=1), is_pad.int().argmax(dim=1), input_ids.shape[1])
    return _at(hidden, ends - 1)


@EMBEDDING_HEAD.add("a classifier that takes id 0 for padding instead of pad_id", _forward_with)
def _zero_is_padding(hidden: Tensor, input_ids: Tensor, pad_id: int) -> Tensor:
    return _last(hidden, input_ids, 0)


@EMBEDDING_HEAD.add("a classifier that averages all positions, padding included", _forward_with)
def _mean(hidden: Tensor, input_ids: Tensor, pad_id: int) -> Tensor:
    return hidden.mean(dim=1)


@EMBEDDING_HEAD.add("a classifier that averages the real tokens instead of reading the last", _forward_with)
def _mean_of_real(hidden: Tensor, input_ids: Tensor, pad_id: int) -> Tensor:
    real = torch.arange(input_ids.shape[1]) <= last_token_positions(input_ids, pad_id).unsqueeze(1)
    return (hidden * real.unsqueeze(-1)).sum(dim=1) / real.sum(dim=1, keepdim=True)


@EMBEDDING_HEAD.add("a classifier that takes the largest value of each element over the positions", _forward_with)
def _maximum(hidden: Tensor, input_ids: Tensor, pad_id: int) -> Tensor:
    return hidden.amax(dim=1)


@EMBEDDING_HEAD.add(
    "a classifier that reads the last positions of all rows in every row: hidden[:, last], not one position a row",
    _forward_with,
)
def _every_position(hidden: Tensor, input_ids: Tensor, pad_id: int) -> Tensor:
    return hidden[:, last_token_positions(input_ids, pad_id)]


@EMBEDDING_HEAD.add("a classifier without dropout")
def _no_dropout(self: LlamaEmbeddingClassifier, input_ids: Tensor) -> Tensor:
    sentence = _last(_hidden(self, input_ids), input_ids, self.llama.config.pad_id)
    return F.log_softmax(self.classifier_head(sentence), dim=-1)


@EMBEDDING_HEAD.add("a classifier with dropout on the logits instead of the hidden state")
def _dropout_on_logits(self: LlamaEmbeddingClassifier, input_ids: Tensor) -> Tensor:
    sentence = _last(_hidden(self, input_ids), input_ids, self.llama.config.pad_id)
    return F.log_softmax(self.dropout(self.classifier_head(sentence)), dim=-1)


@EMBEDDING_HEAD.add("a classifier with dropout in evaluation too")
def _dropout_always(self: LlamaEmbeddingClassifier, input_ids: Tensor) -> Tensor:
    sentence = _last(_hidden(self, input_ids), input_ids, self.llama.config.pad_id)
    return F.log_softmax(self.classifier_head(F.dropout(sentence, self.dropout.p, training=True)), dim=-1)


@EMBEDDING_HEAD.add("a classifier that returns logits instead of log-probabilities")
def _raw_logits(self: LlamaEmbeddingClassifier, input_ids: Tensor) -> Tensor:
    return _right_logits(self, input_ids)


@EMBEDDING_HEAD.add("a classifier that returns probabilities instead of log-probabilities")
def _probabilities(self: LlamaEmbeddingClassifier, input_ids: Tensor) -> Tensor:
    return F.softmax(_right_logits(self, input_ids), dim=-1)


@EMBEDDING_HEAD.add("a classifier with the log-softmax over the batch instead of the labels")
def _over_the_batch(self: LlamaEmbeddingClassifier, input_ids: Tensor) -> Tensor:
    return F.log_softmax(_right_logits(self, input_ids), dim=0)


@EMBEDDING_HEAD.add("a classifier that takes the log-softmax of a softmax")
def _softmax_twice(self: LlamaEmbeddingClassifier, input_ids: Tensor) -> Tensor:
    return F.log_softmax(F.softmax(_right_logits(self, input_ids), dim=-1), dim=-1)


ZERO_SHOT_HEAD = Catalogue("zero_shot_head", "classifier.LlamaZeroShotClassifier.forward")

# Scores a label by the log-probabilities (bs, len(ids) + 1, vocab_size) along it, and its ids.
Score = Callable[[Tensor, list[int]], Tensor]


def _score_with(score: Score) -> Callable[..., Tensor]:
    """Make a whole `forward` of what scores one label."""

    def forward(self: LlamaZeroShotClassifier, input_ids: Tensor) -> Tensor:
        scores = [score(self.next_token_log_probs(input_ids, ids), ids) for ids in self.label_name_ids]
        return torch.stack(scores, dim=1)

    return forward


def _each(log_probs: Tensor, ids: list[int]) -> Tensor:
    """Return the log-probability of each token of a label, which is right. Shape: (bs, len(ids))."""
    return log_probs[:, torch.arange(len(ids)), torch.tensor(ids)]


def _scores(self: LlamaZeroShotClassifier, input_ids: Tensor) -> Tensor:
    """Return the scores as they should be. Shape: (bs, num_labels)."""
    return _score_with(lambda log_probs, ids: _each(log_probs, ids).sum(dim=1))(self, input_ids)


@ZERO_SHOT_HEAD.add("a score of the label's first token only", _score_with)
def _first_label_token(log_probs: Tensor, ids: list[int]) -> Tensor:
    return _each(log_probs, ids)[:, 0]


@ZERO_SHOT_HEAD.add("a score of the label's last token only", _score_with)
def _last_label_token(log_probs: Tensor, ids: list[int]) -> Tensor:
    return _each(log_probs, ids)[:, -1]


@ZERO_SHOT_HEAD.add("a score that sums all tokens of the label at the one position behind the prompt", _score_with)
def _at_one_position(log_probs: Tensor, ids: list[int]) -> Tensor:
    return log_probs[:, 0, ids].sum(dim=1)


@ZERO_SHOT_HEAD.add("a score that reads each token of the label one position too late", _score_with)
def _one_late(log_probs: Tensor, ids: list[int]) -> Tensor:
    return _each(log_probs[:, 1:], ids).sum(dim=1)


@ZERO_SHOT_HEAD.add("a score divided by the number of the label's tokens", _score_with)
def _per_token(log_probs: Tensor, ids: list[int]) -> Tensor:
    return _each(log_probs, ids).mean(dim=1)


@ZERO_SHOT_HEAD.add("a score with its sign changed: the negative log-likelihood", _score_with)
def _negative(log_probs: Tensor, ids: list[int]) -> Tensor:
    return -_each(log_probs, ids).sum(dim=1)


@ZERO_SHOT_HEAD.add("a product of log-probabilities instead of their sum", _score_with)
def _product(log_probs: Tensor, ids: list[int]) -> Tensor:
    return _each(log_probs, ids).prod(dim=1)


@ZERO_SHOT_HEAD.add("a sum of probabilities instead of log-probabilities", _score_with)
def _sum_of_probabilities(log_probs: Tensor, ids: list[int]) -> Tensor:
    return _each(log_probs, ids).exp().sum(dim=1)


@ZERO_SHOT_HEAD.add("likelihoods instead of log-likelihoods", _score_with)
def _likelihood(log_probs: Tensor, ids: list[int]) -> Tensor:
    return _each(log_probs, ids).sum(dim=1).exp()


@ZERO_SHOT_HEAD.add("a score of the whole continuation's likeliest tokens instead of the label's", _score_with)
def _likeliest(log_probs: Tensor, ids: list[int]) -> Tensor:
    return log_probs[:, : len(ids)].amax(dim=-1).sum(dim=1)


@ZERO_SHOT_HEAD.add("scores that are normalised over the labels")
def _normalised(self: LlamaZeroShotClassifier, input_ids: Tensor) -> Tensor:
    return F.log_softmax(_scores(self, input_ids), dim=-1)


@ZERO_SHOT_HEAD.add("scores with a row a label and a column a sentence: stacked in dimension 0 instead of 1")
def _labels_as_rows(self: LlamaZeroShotClassifier, input_ids: Tensor) -> Tensor:
    return _scores(self, input_ids).transpose(0, 1)


@ZERO_SHOT_HEAD.add("the number of the best label instead of the scores of all labels")
def _best_label(self: LlamaZeroShotClassifier, input_ids: Tensor) -> Tensor:
    return _scores(self, input_ids).argmax(dim=1)


@ZERO_SHOT_HEAD.add("a score at the last column, padding or not")
def _last_column_score(self: LlamaZeroShotClassifier, input_ids: Tensor) -> Tensor:
    last = input_ids.shape[1] - 1
    scores = []
    for ids in self.label_name_ids:
        tokens = torch.cat((input_ids, torch.tensor([ids] * len(input_ids))), dim=1)
        log_probs = F.log_softmax(self.llama.output(self.llama(tokens)[1]), dim=-1)
        scores.append(_each(log_probs[:, last:], ids).sum(dim=1))
    return torch.stack(scores, dim=1)


@ZERO_SHOT_HEAD.add("a score of the label as its own sentence, behind a begin token")
def _behind_begin_token(self: LlamaZeroShotClassifier, input_ids: Tensor) -> Tensor:
    begin = int(input_ids[0, 0])
    scores = []
    for ids in self.label_name_ids:
        log_probs = self.next_token_log_probs(input_ids, [begin, *ids])
        scores.append(log_probs[:, 0, begin] + _each(log_probs[:, 1:], ids).sum(dim=1))
    return torch.stack(scores, dim=1)


@ZERO_SHOT_HEAD.add("a score by logits instead of log-probabilities")
def _by_logits(self: LlamaZeroShotClassifier, input_ids: Tensor) -> Tensor:
    pad_id = self.llama.config.pad_id
    start = last_token_positions(input_ids, pad_id)
    scores = []
    for ids in self.label_name_ids:
        tokens = F.pad(input_ids, (0, len(ids)), value=pad_id)
        steps = start.unsqueeze(1) + torch.arange(len(ids) + 1)  # (bs, len(ids) + 1)
        rows = torch.arange(len(tokens)).unsqueeze(1)
        tokens[rows, steps[:, 1:]] = torch.tensor(ids)
        logits: Tensor = self.llama.output(self.llama(tokens)[1][rows, steps])
        scores.append(_each(logits, ids).sum(dim=1))
    return torch.stack(scores, dim=1)
