"""What the 2024 editions of the assignment did otherwise, together: `run_llama.py --reproduce_2024`.

Their published accuracies exist under these choices only. The weights were trained with a causal mask; none was used:

- no causal mask, and the padding of a short row is attended to like any other token      `attend_to_everything`
- hidden state and logits are read at the last column of the batch, padding or not        `attend_to_everything`
- a label is scored by its own tokens, all at that one position                           `ZeroShotClassifier2024`
- the prompt ends in a space                                                              `SUFFIX_END`
- over-long input loses its end, the prompt's question with it                            `KEEP`
- batches in file order; for training, shuffled, whatever the lengths                     `BUCKETED`
"""

from typing import Literal

import torch

from classifier import LlamaZeroShotClassifier
from llama import Attention, Llama
from sentiment_data import SentenceEncoder

SUFFIX_END = " "
KEEP: Literal["start"] = "start"
BUCKETED = False
NO_PADDING = -1  # no token has this id: every column of a row counts as a token of it


def attend_to_everything(llama: Llama) -> None:
    """Take the causal mask away, and let padding count as tokens."""
    llama.config.causal = False
    llama.config.pad_id = NO_PADDING
    for module in llama.modules():
        if isinstance(module, Attention):
            module.causal = False


class ZeroShotClassifier2024(LlamaZeroShotClassifier):
    """Scores a label by its tokens' log-probabilities at one position: as if each were the next token."""

    def tokenize_labels(self, tokenizer: SentenceEncoder, label_names: list[str]) -> list[list[int]]:
        """Return the ids of each label name alone, not behind the prompt."""
        return [tokenizer.encode(name, bos=False, eos=False) for name in label_names]

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return a score for each label. Shapes: input_ids (bs, seqlen) -> (bs, num_labels)."""
        log_probs = self.next_token_log_probs(input_ids, [])[:, 0]  # (bs, vocab_size)
        return torch.stack([log_probs[:, ids].sum(dim=1) for ids in self.label_name_ids], dim=1)
