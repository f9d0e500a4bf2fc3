"""Zero-shot prompting in one pass: the labels are read side by side behind the prompt, as the branches of a tree.

A label's last token is only predicted, so what is read of "bad", "very bad", "very good" and "so very good" is

    ... This movie is ──┬── very
                        └── so ──── very

Each of these nodes sees the prompt and the nodes on its way there, and is as far from the prompt's beginning as if it
stood behind it alone. So each predicts what it would predict in a text of its own (the tree attention of Miao et al.
2024, arXiv 2305.09781, section 4, there for tokens that a smaller model guesses).
"""

from collections.abc import Sequence
from functools import cached_property

import torch
import torch.nn.functional as F

from classifier import LlamaZeroShotClassifier, last_token_positions
from inference.packed import PackedLlama

Node = tuple[int, ...]  # the tokens behind the prompt up to and including this one


class FastZeroShotClassifier(LlamaZeroShotClassifier):
    """Scores labels as `LlamaZeroShotClassifier` does, but reads a prompt once, however many labels there are."""

    @cached_property
    def packed(self) -> PackedLlama:
        """The Llama, arranged at the first use, when it is on its device. Its weights must not change after that.

        Raises UsageError if it is not causal.
        """
        return PackedLlama(self.llama)

    @torch.inference_mode()
    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the log-likelihood of each label name behind each prompt. Shapes: (bs, seqlen) -> (bs, num_labels).

        Raises UsageError if the Llama is not causal, and ValueError if prompt and label exceed its `max_seq_len`.
        """
        nodes = label_nodes(self.label_name_ids)
        log_probs = self._log_probs_behind(input_ids, nodes)  # (bs, 1 + len(nodes), vocab_size)
        column = {node: number for number, node in enumerate([(), *nodes])}
        scores = []
        for ids in self.label_name_ids:
            behind = [column[tuple(ids[:length])] for length in range(len(ids))]
            scores.append(log_probs[:, behind, ids].sum(dim=1))
        return torch.stack(scores, dim=1)

    def _log_probs_behind(self, input_ids: torch.Tensor, nodes: Sequence[Node]) -> torch.Tensor:
        """Return the log-probabilities of the next token, first behind each prompt, then behind each node.

        Shapes: input_ids (bs, seqlen) -> (bs, 1 + len(nodes), vocab_size).
        """
        bs, seqlen = input_ids.shape
        context, longest = self.llama.config.max_seq_len, seqlen + max(map(len, nodes), default=0)
        if longest > context:
            raise ValueError(f"{longest} tokens are more than the model's context of {context}")
        last = last_token_positions(input_ids, self.llama.config.pad_id).unsqueeze(1)  # (bs, 1)
        place = torch.arange(seqlen + len(nodes), device=input_ids.device).expand(bs, -1)  # the nodes stand last
        tokens = torch.cat([input_ids, _row([node[-1] for node in nodes], input_ids)], dim=1)
        depth = _row([len(node) for node in nodes], input_ids)
        positions = torch.cat([place[:, :seqlen], last + depth], dim=1)
        hidden = self.packed.hidden(tokens, positions, tree_mask(last, seqlen, nodes))
        asked = torch.cat([last, place[:, seqlen:]], dim=1).unsqueeze(2)  # (bs, 1 + len(nodes), 1)
        logits = self.packed.logits(hidden.take_along_dim(asked, dim=1))
        return F.log_softmax(logits, dim=-1)


def label_nodes(labels: Sequence[Sequence[int]]) -> list[Node]:
    """Return what is read of the labels: all that a label of several tokens begins with, each once."""
    return list(dict.fromkeys(tuple(ids[:length]) for ids in labels for length in range(1, len(ids))))


def tree_mask(last: torch.Tensor, seqlen: int, nodes: Sequence[Node]) -> torch.Tensor:
    """Return which tokens see which, where `nodes` follow padded prompts that are `seqlen` wide.

    Shapes: `last`, the index of each prompt's last token, (bs, 1) -> (bs, 1, seqlen + len(nodes), the same), bool.
    """
    size = seqlen + len(nodes)
    causal = torch.ones(size, size, dtype=torch.bool, device=last.device).tril()
    mask = causal.repeat(len(last), 1, 1)  # for the prompts: padding comes after them, so they never see it
    is_prompt = torch.arange(seqlen, device=last.device) <= last  # (bs, seqlen)
    mask[:, seqlen:, :seqlen] = is_prompt.unsqueeze(1)
    is_on_the_way = [[node[: len(other)] == other for other in nodes] for node in nodes]  # itself included
    mask[:, seqlen:, seqlen:] = torch.tensor(is_on_the_way, dtype=torch.bool, device=last.device)
    return mask.unsqueeze(1)


def _row(numbers: list[int], like: torch.Tensor) -> torch.Tensor:
    """Return the same numbers for each row of `like`, on its device: (bs, len(numbers)), int64."""
    return torch.tensor(numbers, dtype=torch.int64, device=like.device).expand(len(like), -1)
