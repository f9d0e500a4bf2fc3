"""Rotary position embeddings (RoPE): a token's position turns its queries and keys.

Su et al. 2021, "RoFormer" (arXiv 2104.09864), sections 3.2.2 and 3.4.2. Check your work: python rope_test.py
"""

import torch


def reshape_for_broadcast(freqs_cis: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """View `freqs_cis`, of shape (seqlen, d), as (1, seqlen, 1, d), to multiply `x`, of shape (bs, seqlen, n_heads, d).

    Raises ValueError if the shapes do not fit.
    """
    seqlen, d = x.shape[1], x.shape[-1]
    if freqs_cis.shape != (seqlen, d):
        raise ValueError(
            f"freqs_cis has shape {tuple(freqs_cis.shape)}, x of shape {tuple(x.shape)} needs {(seqlen, d)}"
        )
    return freqs_cis.view(1, seqlen, 1, d)


def apply_rotary_emb(
    query: torch.Tensor, key: torch.Tensor, head_dim: int, max_seq_len: int, theta: float = 10000.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate each adjacent pair of every query and key by an angle that grows with its position.

    Pair i (elements 2i and 2i + 1 of the last dimension) of the token at position m turns by the angle

        m · theta^(-2i / head_dim),   for i = 0 .. head_dim / 2 - 1, and m counted from 0.

    Turning (a, b) by an angle φ gives (a cos φ - b sin φ, a sin φ + b cos φ). The result goes back to where the pair
    stood: Llama's checkpoints rotate adjacent pairs, not the two halves of a head.

    Shapes: query (bs, seqlen, n_heads, head_dim), key (bs, seqlen, n_kv_heads, head_dim); the two results have the same
    shapes and dtypes. Raises ValueError if seqlen exceeds `max_seq_len`.
    """
    seqlen = query.shape[1]
    if seqlen > max_seq_len:
        raise ValueError(f"{seqlen} positions, but the model has max_seq_len = {max_seq_len}")
    # The elements with an even index and those with an odd index, each (bs, seqlen, n_heads, head_dim / 2).
    query_real, query_imag = query.float().reshape(*query.shape[:-1], -1, 2).unbind(-1)
    key_real, key_imag = key.float().reshape(*key.shape[:-1], -1, 2).unbind(-1)

    ### BEGIN SOLUTION rope
    pair = torch.arange(0, head_dim, 2, dtype=torch.float32, device=query.device)  # 2i, (head_dim / 2,)
    position = torch.arange(seqlen, dtype=torch.float32, device=query.device)  # m, (seqlen,)
    angle = torch.outer(position, theta ** (-pair / head_dim))  # (seqlen, head_dim / 2)
    cos = reshape_for_broadcast(angle.cos(), query_real)  # (1, seqlen, 1, head_dim / 2)
    sin = reshape_for_broadcast(angle.sin(), query_real)
    # (..., head_dim / 2, 2) -> (..., head_dim): the pairs stand side by side again
    query_out = torch.stack((query_real * cos - query_imag * sin, query_real * sin + query_imag * cos), -1).flatten(-2)
    key_out = torch.stack((key_real * cos - key_imag * sin, key_real * sin + key_imag * cos), -1).flatten(-2)
    ### END SOLUTION
    return query_out.type_as(query), key_out.type_as(key)
