"""How is it made fast? The results of the root's simple code, by a KV cache, fewer products and fused steps."""
