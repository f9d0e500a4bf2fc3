import torch
import torch.nn.functional as F

from config import LlamaConfig
from llama import load_pretrained
from tokenizer import Tokenizer


class LlamaZeroShotClassifier(torch.nn.Module):
	def __init__(self, config: LlamaConfig, tokenizer: Tokenizer, label_names: list):
		super(LlamaZeroShotClassifier, self).__init__()
		self.num_labels = config.num_labels
		self.llama = load_pretrained(config.pretrained_model_path)
		# nothing is trained here
		for p in self.llama.parameters():
			p.requires_grad = False
		assert len(label_names) == self.num_labels
		self.tokenizer = tokenizer
		self.label_name_ids = [tokenizer.encode(name, bos=False, eos=False) for name in label_names]

	def forward(self, input_ids):
		# the model is asked for the next word, and each label gets the score of its name
		logits, _ = self.llama(input_ids)
		log_probs = F.log_softmax(logits[:, -1, :], dim=-1)
		scores = torch.zeros((log_probs.shape[0], self.num_labels), device=log_probs.device)
		for i, ids in enumerate(self.label_name_ids):
			scores[:, i] = log_probs[:, torch.tensor(ids, device=log_probs.device)].sum(dim=-1)
		return scores


class LlamaEmbeddingClassifier(torch.nn.Module):
	def __init__(self, config):
		super(LlamaEmbeddingClassifier, self).__init__()
		self.num_labels = config.num_labels
		self.llama = load_pretrained(config.pretrained_model_path)
		# "pretrain": the Llama stays as it is, "finetune": it is trained too
		for p in self.llama.parameters():
			if config.option == 'pretrain':
				p.requires_grad = False
			elif config.option == 'finetune':
				p.requires_grad = True

		self.dropout = torch.nn.Dropout(config.hidden_dropout_prob)
		self.classifier_head = torch.nn.Linear(self.llama.config.dim, self.num_labels)

	def forward(self, input_ids):
		'''
		1) the hidden state of the final token (so of the last column)
		2) dropout on it
		3) log-probabilities of the classes
		'''
		_, h = self.llama(input_ids)
		final = h[:, -1, :]
		logits = self.classifier_head(self.dropout(final))
		return F.log_softmax(logits, dim=-1)
