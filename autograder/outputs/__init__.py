"""What did the submission's model write? Predictions, texts, and making them again."""
