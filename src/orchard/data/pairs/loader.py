"""Batches of pairs of like lengths. A batch is a pure function of (seed, epoch, number): nothing is kept between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from orchard.data.batches import Batch, Padded
from orchard.data.counter_rng import Order, uniforms
from orchard.data.indexed import IndexedBatches
from orchard.data.pairs.contracts import Pairs
from orchard.data.tokenizers import Tokenizer
from orchard.errors import OrchardError

POOL = 32  # batches whose pairs are sorted by length together
KEPT = 2**17  # pairs whose tokens are remembered; of more, those of a pool
ROLES = ("pad", "begin", "end")  # the special tokens that pairs need
Encoded = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class PairBatch(Batch):
    """Pairs of texts as tokens.

    source: (B, S) int64, each source with its end;
    target: (B, T + 1) int64, begin, the target and its end; a model reads the first T and predicts the last T;
    indices: (B,) int64.
    """

    source: Padded
    target: Padded
    indices: Tensor

    @property
    def inputs(self) -> Tensor:
        return self.target.values[:, :-1]

    @property
    def targets(self) -> Tensor:
        return self.target.values[:, 1:]

    @property
    def weights(self) -> Tensor:
        """(B, T) bool, true where a token is to be predicted."""
        return self.target.mask[:, 1:]


class PairEncoder:
    """Texts to ids of one vocabulary, with the special tokens that pairs need, at most `length` of them.

    A text that is too long is cut; a target then has no end, as it does not end there. Raises OrchardError for a
    tokenizer without these tokens.
    """

    def __init__(self, tokenizer: Tokenizer, length: int):
        missing = [role for role in ROLES if role not in tokenizer.specials]
        if missing:
            raise OrchardError(f"the text tokenizer has no token for '{missing[0]}'; pairs need {', '.join(ROLES)}")
        self.tokenizer, self.length = tokenizer, length
        self.pad, self.begin, self.end = (tokenizer.specials[role] for role in ROLES)

    def tokens(self, text: str) -> int:
        """How many tokens a text has, its end among them; more than `length` are cut."""
        return len(self.tokenizer.encode(text)) + 1

    def source(self, text: str) -> list[int]:
        return [*self.tokenizer.encode(text)[: self.length - 1], self.end]

    def target(self, text: str) -> list[int]:
        return [self.begin, *self.tokenizer.encode(text), self.end][: self.length + 1]

    def pad_together(self, rows: Sequence[Sequence[int] | np.ndarray]) -> Padded:
        """Rows of ids as one batch."""
        lengths = np.array([len(row) for row in rows])
        values = np.full((len(rows), lengths.max()), self.pad, np.int64)
        mask = np.arange(values.shape[1]) < lengths[:, None]
        values[mask] = np.concatenate(rows)
        return Padded(torch.from_numpy(values), torch.from_numpy(mask))


class PairLoader(IndexedBatches[PairBatch]):
    """Pairs of a split as tokens.

    In training, pairs of like lengths come together: of every `POOL` batches in the order of the epoch, all pairs are
    sorted by the lengths of target and source, cut into batches, and these shuffled (as Bahdanau et al. 2014 do,
    arXiv:1409.0473, appendix B.2). In evaluation every pair comes once, in order.
    """

    def __init__(
        self,
        pairs: Pairs,
        encoder: PairEncoder,
        *,
        batch_size: int,
        seed: int,
        training: bool,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
    ):
        super().__init__(
            len(pairs), batch_size=batch_size, seed=seed, training=training, workers=workers, rank=rank, world=world,
            records="pairs",
        )  # fmt: skip
        self.pairs, self.encoder = pairs, encoder
        self.order = LengthOrder(self.order, self.batch_size, self.length, self._lengths)
        self._encoded: dict[int, Encoded] = {}  # of all pairs where they are few, else of a pool

    def _encode(self, index: int) -> Encoded:
        """The ids of a pair, which may be asked for again soon."""
        if index not in self._encoded:
            source, target = self.pairs[index]
            ids = self.encoder.source(source), self.encoder.target(target)
            self._encoded[index] = np.array(ids[0], np.uint32), np.array(ids[1], np.uint32)
        return self._encoded[index]

    def _lengths(self, indices: np.ndarray) -> np.ndarray:
        if self.count > KEPT:
            self._encoded.clear()
        return np.array([[len(row) for row in self._encode(int(index))[::-1]] for index in indices])

    def make(self, epoch: int, indices: np.ndarray, part: slice) -> PairBatch:
        mine = indices[part]
        sources, targets = zip(*(self._encode(int(index)) for index in mine), strict=True)
        if self.count > KEPT and not self.training:
            self._encoded.clear()
        together = self.encoder.pad_together
        return PairBatch(together(sources), together(targets), torch.from_numpy(mine.astype(np.int64)))


class LengthOrder(Order):
    """The order of an epoch in which each batch has records of like lengths."""

    def __init__(self, order: Order, batch_size: int, batches: int, lengths: Callable[[np.ndarray], np.ndarray]):
        """`order` is the one to begin with; `lengths` gives (N, K) of N records, the first column first to sort by."""
        super().__init__(order.seed, order.count)
        self.plain, self.batch_size, self.batches, self.lengths = order, batch_size, batches, lengths
        self.pool: tuple[int, int] | None = None
        self.rows = np.empty((0, 0), np.int64)  # (batches of the pool, batch_size)

    def __call__(self, epoch: int, first: int, last: int) -> np.ndarray:
        """The records of the batch that begins at `first`."""
        pool, number = divmod(first // self.batch_size, POOL)
        if self.pool != (epoch, pool):
            begin, end = pool * POOL, min((pool + 1) * POOL, self.batches)
            records = self.plain(epoch, begin * self.batch_size, end * self.batch_size)
            ranked = records[np.lexsort(self.lengths(records).T[::-1])].reshape(-1, self.batch_size)
            shuffled = np.argsort(uniforms(self.seed, epoch, self.count + np.arange(begin, end), 1)[:, 0])
            self.pool, self.rows = (epoch, pool), ranked[shuffled]
        return self.rows[number]
