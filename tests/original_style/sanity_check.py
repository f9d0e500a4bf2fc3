import torch
from llama import Llama, load_pretrained
from config import LlamaConfig

seed = 0
torch.manual_seed(seed)

if __name__ == '__main__':
	sanity_data = torch.load("./sanity_check.data")
	sent_ids = torch.tensor([[1, 15043, 3186, 3, 3, 3], [1, 15043, 19677, 3564, 363, 405]])

	with torch.no_grad():
		llama = load_pretrained("stories42M.pt")
		logits, hidden_states = llama(sent_ids)
		assert torch.allclose(logits, sanity_data["logits"], atol=1e-5, rtol=1e-3)
		assert torch.allclose(hidden_states, sanity_data["hidden_states"], atol=1e-5, rtol=1e-3)
		print("Your Llama implementation is correct!")
