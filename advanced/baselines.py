"""What needs no Llama: words and pairs of words, weighted by how rare they are, and a linear model.

Wang & Manning 2012 ("Baselines and Bigrams", aclanthology P12-2018): on sentiment, such models are hard to beat. Here
they reach what a finetuned Llama of 42 million parameters does, in seconds; a method that stays below them says so.

    tfidf-logreg    logistic regression
    tfidf-svm       a linear support vector machine
    hybrid          a Llama's answers mixed with those of tfidf-logreg

Costs: some seconds of a processor, and a weight for each of some 20,000 words and pairs, for each label.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from advanced.task import SCORED, Part, Task
from errors import DataError, MissingDependency, UsageError
from sentiment_data import accuracy
from utils import progress

Scores = Mapping[Part, torch.Tensor]
UNSEEN = -100.0  # the score of a label that no training sentence has
STRENGTHS = (0.1, 1.0, 4.0)  # the inverse of the regularisation
FOLDS = 5


@dataclass
class _Linear:
    """A linear model on TF-IDF features, of the strength that does best in cross-validation."""

    chosen: dict[str, float] = field(default_factory=dict, init=False)
    trained: int = field(default=0, init=False)  # weights of the model that scored dev

    def scores(
        self, task: Task, seed: int, parts: Sequence[Part] = SCORED, *, refit: bool = True
    ) -> dict[Part, torch.Tensor]:
        """Return a score for each label, (sentences, num_labels), of `parts`.

        The selection part is scored by a model that has not seen it; dev and test, with `refit`, by one that was
        trained on it too, since a bag of words has nothing else to choose by it. Raises MissingDependency without
        scikit-learn, and DataError for too few sentences.
        """
        try:
            return self._scores(task, seed, parts, refit)
        except ValueError as error:  # scikit-learn's: no word stands in two sentences, or there is one label alone
            raise DataError(f"{task.name}: too few sentences for a bag of words: {error}") from error

    def _scores(self, task: Task, seed: int, parts: Sequence[Part], refit: bool) -> dict[Part, torch.Tensor]:
        """Choose the strength, and train both models."""
        sentences, labels = task.sentences("fit"), task.labels("fit")
        strength = self._best_strength(sentences, labels, seed)
        self.chosen = {"strength": strength}
        model = self._pipeline(strength, seed).fit(sentences, labels)
        refitted = model
        if refit:
            sentences, labels = sentences + task.sentences("selection"), labels + task.labels("selection")
            refitted = self._pipeline(strength, seed).fit(sentences, labels)
        self.trained = int(refitted[-1].coef_.size + refitted[-1].intercept_.size)
        models: dict[Part, Any] = {"selection": model, "dev": refitted, "test": refitted}
        return {part: self._scores_of(models[part], task.sentences(part), len(task.label_names)) for part in parts}

    def _best_strength(self, sentences: list[str], labels: list[int], seed: int) -> float:
        """Return the strength with the best mean accuracy over the folds; of equals, the smallest."""
        try:
            from sklearn.model_selection import StratifiedKFold, cross_val_score
        except ImportError as error:
            raise MissingDependency("the baseline", "scikit-learn") from error
        fewest = min(Counter(labels).values())
        if fewest < 2:
            return STRENGTHS[0]  # of a single sentence, a fold and the rest cannot both have the label
        folds = StratifiedKFold(min(FOLDS, fewest), shuffle=True, random_state=seed)
        means = [
            float(cross_val_score(self._pipeline(strength, seed), sentences, labels, cv=folds).mean())
            for strength in progress(STRENGTHS, "strengths")
        ]
        return STRENGTHS[means.index(max(means))]

    def _pipeline(self, strength: float, seed: int) -> Any:
        """Return an untrained model from sentences to labels."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_pipeline

        features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
        return make_pipeline(features, self._model(strength, seed))

    def _model(self, strength: float, seed: int) -> Any:
        """Return an untrained model from features to labels."""
        raise NotImplementedError

    def _scores_of(self, model: Any, sentences: list[str], num_labels: int) -> torch.Tensor:
        """Return a trained model's scores: (sentences, num_labels)."""
        raise NotImplementedError


class LogisticRegression(_Linear):
    """Log-probabilities of a logistic regression."""

    def _model(self, strength: float, seed: int) -> Any:
        from sklearn.linear_model import LogisticRegression as Model

        return Model(C=strength, max_iter=1000, random_state=seed)

    def _scores_of(self, model: Any, sentences: list[str], num_labels: int) -> torch.Tensor:
        scores = torch.full((len(sentences), num_labels), UNSEEN)
        scores[:, model.classes_] = torch.from_numpy(model.predict_log_proba(sentences)).float()
        return scores


class LinearSvm(_Linear):
    """Distances from the planes of a linear support vector machine, one label against the rest."""

    def _model(self, strength: float, seed: int) -> Any:
        from sklearn.svm import LinearSVC

        return LinearSVC(C=strength, random_state=seed)

    def _scores_of(self, model: Any, sentences: list[str], num_labels: int) -> torch.Tensor:
        distances = torch.from_numpy(model.decision_function(sentences)).float()
        if distances.dim() == 1:  # of two labels it gives the second one's alone
            distances = torch.stack([-distances, distances], dim=1)
        scores = torch.full((len(distances), num_labels), UNSEEN)
        scores[:, model.classes_] = distances
        return scores


@dataclass
class Hybrid:
    """Mixes a Llama's probabilities with those of tfidf-logreg, at the share that does best on the selection part.

    The share divides log-probabilities, a product of experts (Hinton 2002, doi 10.1162/089976602760128018): a label
    needs both to be likely. A share of 0 is the Llama alone.
    """

    steps: int = 20
    chosen: dict[str, float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Raise UsageError if the way is not divided at all."""
        if self.steps < 1:
            raise UsageError(f"hybrid: steps must be at least 1, got {self.steps}")

    def mix(self, scores: Scores, task: Task, seed: int) -> dict[Part, torch.Tensor]:
        """Return the mixed scores of the parts in `scores`, which must have "selection" among them."""
        linear = LogisticRegression().scores(task, seed, tuple(scores), refit=False)  # the Llama has seen no more
        labels = task.labels("selection")

        def mixed(part: Part, share: float) -> torch.Tensor:
            return torch.lerp(scores[part].log_softmax(dim=1), linear[part], share)

        shares = [step / self.steps for step in range(self.steps + 1)]
        right = [accuracy(mixed("selection", share).argmax(dim=1).tolist(), labels) for share in shares]
        share = shares[right.index(max(right))]  # of equals, the one nearest to the Llama alone
        self.chosen = {"tfidf_share": share}
        return {part: mixed(part, share) for part in scores}
