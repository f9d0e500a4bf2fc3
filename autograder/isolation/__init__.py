"""How does a stranger's code run? The judge's side of the sandbox."""
