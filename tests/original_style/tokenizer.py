import os
import struct
import argparse
from typing import List

from sentencepiece import SentencePieceProcessor

TOKENIZER_MODEL = "tokenizer.model"  # Llama's


class Tokenizer:
    def __init__(self, max_len=None, tokenizer_model=None):
        model_path = tokenizer_model if tokenizer_model else TOKENIZER_MODEL
        assert os.path.isfile(model_path), model_path
        self.sp_model = SentencePieceProcessor(model_file=model_path)
        self.model_path = model_path
        self.max_len = max_len

        self.n_words: int = self.sp_model.vocab_size()
        self.bos_id: int = self.sp_model.bos_id()
        self.eos_id: int = self.sp_model.eos_id()
        # Llama has no token for padding
        self.pad_id: int = self.sp_model.piece_to_id("<0x00>")

    def encode(self, s: str, bos: bool, eos: bool) -> List[int]:
        assert type(s) is str
        t = self.sp_model.encode(s)
        if self.max_len is not None:
            t = t[:self.max_len]
        if bos:
            t = [self.bos_id] + t
        if eos:
            t = t + [self.eos_id]
        return t

    def decode(self, t: List[int]) -> str:
        return self.sp_model.decode(t)

    def export(self):
        """Writes tokenizer.bin for llama2.c."""
        tokens, scores = [], []
        for i in range(self.n_words):
            piece = self.sp_model.id_to_piece(i)
            if i == self.bos_id:
                piece = '\n<s>\n'
            elif i == self.eos_id:
                piece = '\n</s>\n'
            tokens.append(piece.replace('\u2581', ' ').encode('utf-8'))
            scores.append(self.sp_model.get_score(i))

        with open(self.model_path.replace('.model', '.bin'), 'wb') as f:
            f.write(struct.pack("I", max(len(b) for b in tokens)))
            for b, score in zip(tokens, scores):
                f.write(struct.pack("fI", score, len(b)))
                f.write(b)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("-t", "--tokenizer-model", type=str, help="a tokenizer of one's own")
    args = parser.parse_args()
    Tokenizer(tokenizer_model=args.tokenizer_model).export()
