"""Text in pairs: one text is read, the other written."""

from orchard.data.pairs.contracts import Pairs, TextPairs
from orchard.data.pairs.loader import PairBatch, PairLoader
from orchard.data.pairs.sources import open_pairs

__all__ = ["PairBatch", "PairLoader", "Pairs", "TextPairs", "open_pairs"]
