"""Text as it comes: ids to pieces of text that stay as they are, and texts at which to stop.

decoder = IncrementalDecoder(tokenizer, prompt_ids)
for token in tokens:
    print(decoder.push(token), end="", flush=True)
print(decoder.flush())
"""

from collections.abc import Sequence

from tokenizer import Tokenizer

REPLACEMENT = "\ufffd"  # what a decoder writes for bytes that are no character, or not yet
MAX_PENDING = 3  # a character has at most four bytes in UTF-8, so at most three can wait for the rest


class IncrementalDecoder:
    """Turns ids into text as they come; all pieces together are what decoding all ids at once gives.

    An id cannot be decoded alone: SentencePiece drops the space in front of a word where a text begins, and a character
    may be spread over several tokens. So the ids since an anchor are decoded together each time, and an unfinished
    character is held back. The anchor is a token that is text by itself: what follows it no longer depends on what
    went before.
    """

    def __init__(self, tokenizer: Tokenizer, ids: Sequence[int]) -> None:
        """Start after `ids`, whose text counts as shown."""
        self._tokenizer = tokenizer
        self._ids = list(ids)  # from the anchor on
        self._shown = len(tokenizer.decode(self._ids))  # characters of their text

    def push(self, token: int) -> str:
        """Take the next id, and return the text that is certain now."""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        certain = len(text) - _pending(text)
        piece, self._shown = text[self._shown : certain], certain
        alone = self._tokenizer.decode([token])
        if certain == len(text) and alone and REPLACEMENT not in alone:
            self._ids, self._shown = [token], len(alone)
        return piece

    def flush(self) -> str:
        """Return the text that was held back: no further id will come."""
        text = self._tokenizer.decode(self._ids)
        piece, self._shown = text[self._shown :], len(text)
        return piece


def _pending(text: str) -> int:
    """Return how many characters at the end of `text` may still change with the next byte."""
    tail = text[-MAX_PENDING:]
    return len(tail) - len(tail.rstrip(REPLACEMENT))


class StopTexts:
    """Lets text through until one of the stop texts appears in it, and holds back what may be the start of one.

    Of several, the one that is complete first counts, however the text is cut into pieces.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        """Raises ValueError if a stop text is empty."""
        if "" in texts:
            raise ValueError("a stop text must not be empty: every text would end before it begins")
        self._texts = tuple(texts)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """Take the next piece of text, and return what is certain to stand in front of any stop text."""
        self._held += text
        places = [(place + len(stop), place) for stop in self._texts if (place := self._held.find(stop)) >= 0]
        self.found = bool(places)
        certain = min(places)[1] if places else len(self._held) - self._beginning()
        piece, self._held = self._held[:certain], self._held[certain:]
        return piece

    def flush(self) -> str:
        """Return the text that was held back: no further text will come."""
        piece, self._held = "" if self.found else self._held, ""
        return piece

    def _beginning(self) -> int:
        """Return the length of the longest end of the held text with which a stop text begins."""
        longest = max(map(len, self._texts), default=1) - 1
        lengths = range(min(longest, len(self._held)), 0, -1)
        return next((n for n in lengths if any(stop.startswith(self._held[-n:]) for stop in self._texts)), 0)
