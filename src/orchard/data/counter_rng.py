"""Random numbers that are a function of what they are for, not of what was drawn before.

Order and augmentation must come out the same wherever a training starts and however its work is shared, so there is
no generator with a state: each number is a hash (splitmix64, doi:10.1145/2714064.2660195) of the seed, the epoch, the
record and a column. It is the same on every machine and with every version of every library.
"""

from __future__ import annotations

import numpy as np

COLUMNS = 64  # numbers one record may use in one epoch
_STEP = np.uint64(0x9E3779B97F4A7C15)
_ROUNDS = 6
_STRETCH = 2**14


def uniforms(seed: int, epoch: int, records: np.ndarray, columns: int = COLUMNS) -> np.ndarray:
    """(N, columns) float64 in [0, 1) for `records` (N,) int64: the same row for the same record, always."""
    places = records.astype(np.uint64)[:, None] * np.uint64(COLUMNS) + np.arange(1, columns + 1, dtype=np.uint64)
    return (_scramble(_key(seed, epoch) + places * _STEP) >> np.uint64(11)) * 2.0**-53


def permuted(seed: int, epoch: int, places: np.ndarray, count: int) -> np.ndarray:
    """The records (N,) int64 at `places` (N,) of an order of 0 .. count - 1, which is nowhere written down.

    A Feistel network (Luby and Rackoff 1988, doi:10.1137/0217022) permutes the numbers below a power of four; what it
    sends beyond `count` it is given again, until it is within (Black and Rogaway 2002, "cycle walking").
    """
    half = np.uint64(max(1, (int(count - 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half) - np.uint64(1)
    keys = _scramble(_key(seed, epoch) + np.arange(1, _ROUNDS + 1, dtype=np.uint64) * _STEP)
    found = places.astype(np.uint64)
    walking = np.arange(len(found))
    while len(walking):
        left, right = found[walking] >> half, found[walking] & mask
        for key in keys:
            left, right = right, left ^ (_scramble(right * _STEP + key) & mask)
        found[walking] = left << half | right
        walking = walking[found[walking] >= count]
    return found.astype(np.int64)


class Order:
    """The order of `count` records in every epoch, of which a stretch at a time is kept in memory."""

    def __init__(self, seed: int, count: int):
        self.seed, self.count = seed, count
        self.epoch, self.begin, self.kept = -1, 0, np.empty(0, np.int64)

    def __call__(self, epoch: int, first: int, last: int) -> np.ndarray:
        """The records (last - first,) int64 that stand at the places from `first` to before `last`."""
        if epoch != self.epoch or first < self.begin or last > self.begin + len(self.kept):
            places = np.arange(first, max(last, min(first + _STRETCH, self.count)))
            self.epoch, self.begin, self.kept = epoch, first, permuted(self.seed, epoch, places, self.count)
        return self.kept[first - self.begin : last - self.begin]


def _key(seed: int, epoch: int) -> np.ndarray:
    """(1,) uint64."""
    return _scramble(_scramble(np.array([seed % 2**64], np.uint64) + _STEP) + np.uint64(epoch) + _STEP)


def _scramble(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
