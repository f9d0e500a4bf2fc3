"""Two ways to classify a sentence with a Llama: ask it (zero-shot), or train a head on its hidden state.

Both read the last real token of a row, so right padding never changes a prediction.
Check your work: python sanity_check.py
"""

import torch
import torch.nn.functional as F
from torch import nn

from config import ClassifierConfig
from errors import TokenizerError
from llama import load_pretrained
from sentiment_data import SentenceEncoder, prompt_suffix


def last_token_positions(input_ids: torch.Tensor, pad_id: int) -> torch.Tensor:
    """Return the index of the last token of each row that is not padding (0 for a row of padding alone).

    Only the end of a row counts: an id equal to `pad_id` in its middle is a token. Shapes: (bs, seqlen) -> (bs,).
    """
    positions = torch.arange(input_ids.shape[1], device=input_ids.device)  # (seqlen,)
    return (positions * (input_ids != pad_id)).amax(dim=1)


def label_ids_after(suffix: str, label_name: str, tokenizer: SentenceEncoder) -> list[int]:
    """Return the ids that ` label_name` adds behind a prompt that ends in `suffix`, tokenised together with it.

    Raises TokenizerError if the label changes how the end of the prompt is tokenised: there would be no boundary.
    """
    prompt = tokenizer.encode(suffix, bos=True, eos=False)
    joint = tokenizer.encode(f"{suffix} {label_name}", bos=True, eos=False)
    if joint[: len(prompt)] != prompt or len(joint) == len(prompt):
        raise TokenizerError(
            f"label '{label_name}' has no tokens of its own behind the prompt '{suffix}': "
            "this tokenizer merges the two. Choose another label name"
        )
    return joint[len(prompt) :]


class LlamaZeroShotClassifier(nn.Module):
    """Score each label by how likely the untrained Llama finds its name behind the prompt."""

    def __init__(self, config: ClassifierConfig, tokenizer: SentenceEncoder, label_names: list[str]) -> None:
        """Load and freeze the Llama, and tokenise the label names as they continue the prompt.

        Raises CheckpointError or TokenizerError.
        """
        super().__init__()
        self.num_labels = config.num_labels
        self.llama = load_pretrained(config.pretrained_model_path)
        self.llama.requires_grad_(False)
        self.label_name_ids = self.tokenize_labels(tokenizer, label_names)

    def tokenize_labels(self, tokenizer: SentenceEncoder, label_names: list[str]) -> list[list[int]]:
        """Return the ids of each label name as it continues the prompt. Raises TokenizerError if it does not."""
        suffix = prompt_suffix(label_names)
        return [label_ids_after(suffix, name, tokenizer) for name in label_names]

    def next_token_log_probs(self, input_ids: torch.Tensor, continuation: list[int]) -> torch.Tensor:
        """Return the log-probabilities of the next token after each prompt, and after each token that continues it.

        Entry [b, j] is the distribution behind the last real token of row b and the first j tokens of `continuation`.
        Shapes: input_ids (bs, seqlen) -> (bs, len(continuation) + 1, vocab_size).
        """
        pad_id = self.llama.config.pad_id
        rows = torch.arange(len(input_ids), device=input_ids.device).unsqueeze(1)  # (bs, 1)
        last = last_token_positions(input_ids, pad_id).unsqueeze(1)  # (bs, 1)
        steps = last + torch.arange(len(continuation) + 1, device=input_ids.device)  # (bs, len(continuation) + 1)
        tokens = F.pad(input_ids, (0, len(continuation)), value=pad_id)
        tokens[rows, steps[:, 1:]] = torch.tensor(continuation, dtype=tokens.dtype, device=tokens.device)
        _, hidden = self.llama(tokens)
        return F.log_softmax(self.llama.output(hidden[rows, steps]), dim=-1)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the log-likelihood of each label name behind each prompt.

        A label name is several tokens l_1 … l_k = `self.label_name_ids[i]`; the chain rule gives

            log P(label | prompt) = Σ_j log P(l_j | prompt, l_1 … l_(j-1))

        `self.next_token_log_probs` returns the distributions on the right. A forward pass is slow: labels that agree in
        all but their last token can share one. Shapes: input_ids (bs, seqlen) -> (bs, num_labels).
        """
        ### BEGIN SOLUTION zero_shot_head
        contexts = {tuple(ids[:-1]) for ids in self.label_name_ids}
        log_probs = {context: self.next_token_log_probs(input_ids, list(context)) for context in contexts}
        scores = []
        for ids in self.label_name_ids:
            steps = torch.arange(len(ids), device=input_ids.device)
            chosen = log_probs[tuple(ids[:-1])][:, steps, torch.tensor(ids, device=input_ids.device)]  # (bs, len(ids))
            scores.append(chosen.sum(dim=1))
        return torch.stack(scores, dim=1)
        ### END SOLUTION


class LlamaEmbeddingClassifier(nn.Module):
    """A linear head on the Llama's last hidden state, trained with the Llama or without it."""

    def __init__(self, config: ClassifierConfig) -> None:
        """Load the Llama; `config.option` "pretrain" freezes it, "finetune" trains it with the head.

        Raises CheckpointError, and ValueError for another option.
        """
        super().__init__()
        if config.option not in ("pretrain", "finetune"):
            raise ValueError(f"option must be 'pretrain' or 'finetune', got '{config.option}'")
        self.num_labels = config.num_labels
        self.llama = load_pretrained(config.pretrained_model_path)
        self.llama.requires_grad_(config.option == "finetune")
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier_head = nn.Linear(self.llama.config.dim, self.num_labels)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the log-probabilities of the labels.

        1. encode the sentences with `self.llama`, and take the hidden state of each row's last real token
           (`last_token_positions` finds it; the rows are padded with `self.llama.config.pad_id`);
        2. apply `self.dropout`, then `self.classifier_head`;
        3. turn the logits into log-probabilities.

        Shapes: input_ids (bs, seqlen) -> (bs, num_labels).
        """
        ### BEGIN SOLUTION embedding_head
        _, hidden = self.llama(input_ids)  # (bs, seqlen, dim)
        last = last_token_positions(input_ids, self.llama.config.pad_id)  # (bs,)
        sentence = hidden[torch.arange(len(input_ids), device=input_ids.device), last]  # (bs, dim)
        logits = self.classifier_head(self.dropout(sentence))  # (bs, num_labels)
        return F.log_softmax(logits, dim=-1)
        ### END SOLUTION
