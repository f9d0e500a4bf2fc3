"""What is checked? The hidden checks, their inputs, and the student's own reference tensors."""
