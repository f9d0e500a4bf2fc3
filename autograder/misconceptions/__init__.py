"""The mistakes that students make, as wrong variants of the solution, each with the sentence that names it.

They are run beside the reference: when a student's output equals that of a variant, the report says which. They stand
here and not at the root, since each of them shows most of the answer.
"""

from autograder.misconceptions.attention import ATTENTION, GQA
from autograder.misconceptions.base import Misconception, applied
from autograder.misconceptions.classifiers import EMBEDDING_HEAD, ZERO_SHOT_HEAD
from autograder.misconceptions.generation import GENERATE
from autograder.misconceptions.model import LAYER, RMSNORM
from autograder.misconceptions.optimizer import ADAMW
from autograder.misconceptions.rotary import ROPE

__all__ = ["MISCONCEPTIONS", "Misconception", "applied"]

CATALOGUES = (RMSNORM, ROPE, ATTENTION, GQA, LAYER, GENERATE, ADAMW, EMBEDDING_HEAD, ZERO_SHOT_HEAD)
MISCONCEPTIONS: tuple[Misconception, ...] = tuple(entry for catalogue in CATALOGUES for entry in catalogue.entries)
