"""What a language model writes, as text for those who read along."""

from __future__ import annotations

from collections.abc import Sequence

from orchard.data.tokenizers import LOST, Tokenizer


class StreamingDetokenizer:
    """Tokens to text as they come: whole characters only, and nothing from a stop word on."""

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int], stop: Sequence[str] = ()):
        """`before` is what the text follows, which decides about spaces in some tokenizers."""
        self.tokenizer, self.stop = tokenizer, tuple(stop)
        self.ids = list(before[-8:])
        self.said = len(self.ids)  # tokens whose text is out
        self.held = ""  # text that may be the beginning of a stop word
        self.ended = False

    def add(self, token: int) -> str:
        """The text that can be said now that this token is there; often empty in the middle of a character."""
        self.ids.append(token)
        found = self._unsaid()
        if not found or found.endswith(LOST):
            return ""
        self.ids, self.said = self.ids[self.said :], len(self.ids) - self.said
        return self._until_stop(found)

    def rest(self) -> str:
        """The text ends here: what was held back, a broken character included."""
        if self.ended:
            return ""
        text = self._until_stop(self._unsaid())
        if not self.ended:
            text, self.held, self.ended = text + self.held, "", True
        return text

    def _unsaid(self) -> str:
        return self.tokenizer.decode(self.ids)[len(self.tokenizer.decode(self.ids[: self.said])) :]

    def _until_stop(self, piece: str) -> str:
        text = self.held + piece
        places = [place for place in (text.find(word) for word in self.stop) if place >= 0]
        if places:
            self.ended, self.held = True, ""
            return text[: min(places)]
        longest = max(map(len, self.stop), default=0) - 1
        keep = next((n for n in range(min(longest, len(text)), 0, -1) if self._begins_stop(text[-n:])), 0)
        self.held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _begins_stop(self, text: str) -> bool:
        return any(word.startswith(text) for word in self.stop)
