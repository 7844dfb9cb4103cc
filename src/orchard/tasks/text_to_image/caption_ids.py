"""Captions as rows of word ids, for the models that paint them."""

from __future__ import annotations

from dataclasses import dataclass

from orchard.data.tokenizers import Tokenizer


@dataclass(frozen=True)
class CaptionIds:
    """Word ids of captions, cut or padded to `length`.

    The models pad with 0 (`prompt` of the text-to-image models). Where 0 is a word of the tokenizer's, all its ids move
    up by one.
    """

    tokenizer: Tokenizer
    length: int

    @property
    def shift(self) -> int:
        return 0 if self.tokenizer.specials.get("pad") == 0 else 1

    @property
    def vocabulary(self) -> int:
        """Ids there are, the padding among them."""
        return self.tokenizer.vocabulary + self.shift

    def row(self, text: str) -> tuple[list[int], int]:
        """The ids of a caption, `length` of them, and how many it would have had."""
        found = self.tokenizer.encode(text)
        ids = [token + self.shift for token in found[: self.length]]
        return ids + [0] * (self.length - len(ids)), len(found)

    def kept(self, text: str) -> str:
        """What a caption says when it is cut."""
        return self.tokenizer.decode(self.tokenizer.encode(text)[: self.length])

    def strange(self, text: str) -> list[str]:
        """The characters of a text that the tokenizer does not know, each once."""
        unknown = self.tokenizer.specials.get("unknown")
        return [one for one in dict.fromkeys(text) if not one.isspace() and unknown in self.tokenizer.encode(one)]
