"""Tagged text: words, and for each of them a tag (entities, parts of speech)."""

from orchard.data.tagged_text.contracts import Sentence, TaggedSplit, TaggedText
from orchard.data.tagged_text.sources import open_tagged

__all__ = ["Sentence", "TaggedSplit", "TaggedText", "open_tagged"]
