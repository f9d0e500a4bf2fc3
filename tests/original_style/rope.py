from typing import Tuple
import torch

def reshape_for_broadcast(freqs_cis: torch.Tensor, x: torch.Tensor):
    """
    Gives the table of angles, of shape (seqlen, head_dim / 2), as many dimensions as x has,
    with size 1 everywhere but at the second and the last.
    """
    ndim = x.ndim
    assert ndim > 1
    assert freqs_cis.shape == (x.shape[1], x.shape[-1])
    shape = [1] * ndim
    shape[1] = x.shape[1]
    shape[-1] = x.shape[-1]
    return freqs_cis.view(shape)

def apply_rotary_emb(
    query: torch.Tensor,
    key: torch.Tensor,
    head_dim: int,
    max_seq_len: int,
    theta: float = 10000.0,
) -> Tuple[torch.Tensor, torch.Tensor]:
    """
    Rotary position embeddings for the queries (batch, seqlen, n_heads, head_dim)
    and the keys (batch, seqlen, n_kv_heads, head_dim), see the slides on RoFormer.
    """
    _, seqlen, _, _ = query.shape
    device = query.device

    # split into pairs of neighbours
    query_real, query_imag = query.float().reshape(query.shape[:-1] + (-1, 2)).unbind(-1)
    key_real, key_imag = key.float().reshape(key.shape[:-1] + (-1, 2)).unbind(-1)

    # theta_i = theta^(-2 (i - 1) / d), i = 1 ... d/2
    i = torch.arange(1, head_dim // 2 + 1, device=device).float()
    thetas = torch.pow(torch.tensor(theta, device=device), -2.0 * (i - 1) / head_dim)
    positions = torch.arange(0, max_seq_len, device=device).float()
    m_theta = (positions[:, None] * thetas[None, :])[:seqlen]

    cos_q = reshape_for_broadcast(torch.cos(m_theta), query_real)
    sin_q = reshape_for_broadcast(torch.sin(m_theta), query_real)

    # even places of the output hold the real part, odd places the imaginary part
    query_out = torch.zeros_like(query, dtype=torch.float32)
    query_out[..., 0::2] = cos_q * query_real - sin_q * query_imag
    query_out[..., 1::2] = sin_q * query_real + cos_q * query_imag

    key_out = torch.zeros_like(key, dtype=torch.float32)
    key_out[..., 0::2] = cos_q * key_real - sin_q * key_imag
    key_out[..., 1::2] = sin_q * key_real + cos_q * key_imag

    return query_out.type_as(query), key_out.type_as(key)
