"""How is a checkpoint made? Tokenizer, corpus, training, sampling and export, from any text file."""
