"""Words between spaces: the tokens by which word-level language models are compared (PTB, WikiText)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from orchard.data.tokenizers import Tokenizer
from orchard.errors import UsageError

LINE_END, UNKNOWN = "<eos>", "<unk>"


class Words(Tokenizer):
    """One id per word, one for the end of every line (`<eos>`), and one for words that are not known (`<unk>`).

    A text that has `<unk>` and `<eos>` in it, as PTB and WikiText do, has these tokens. Several spaces come back as
    one, and none at the ends of lines.
    """

    kind = "whitespace"

    def __init__(self, words: Sequence[str]):
        """`words` in the order of their ids; both signs are among them."""
        if len(set(words)) != len(words) or not {LINE_END, UNKNOWN} <= set(words):
            raise UsageError(f"a tokenizer of words needs each word once, {LINE_END} and {UNKNOWN} among them")
        self.words = tuple(words)
        self._ids = {word: n for n, word in enumerate(words)}
        self.vocabulary = len(words)
        self.specials = {"unknown": self._ids[UNKNOWN]}

    @classmethod
    def of(cls, texts: Iterable[str]) -> Words:
        """The words of some texts, in the order in which they come first."""
        found: dict[str, None] = {}
        for text in texts:
            found |= dict.fromkeys(_marked(text))
        return cls(list(found | dict.fromkeys((LINE_END, UNKNOWN))))

    def encode(self, text: str) -> list[int]:
        unknown = self._ids[UNKNOWN]
        return [self._ids.get(word, unknown) for word in _marked(text)]

    def decode(self, ids: Iterable[int]) -> str:
        tokens = [int(token) for token in ids]
        self._check(tokens)
        text: list[str] = []
        for token in tokens:
            word = self.words[token]
            begins = not text or text[-1] == "\n"
            text.append("\n" if word == LINE_END else word if begins else f" {word}")
        return "".join(text)

    def _files(self) -> dict[str, Any]:
        return {"text.json": {"kind": self.kind, "specials": [], "words": list(self.words)}}


def _marked(text: str) -> list[str]:
    """The words of a text, with a sign where a line ends."""
    return text.replace("\n", f" {LINE_END} ").split()
