"""Random numbers that are a function of what they are for, not of what was drawn before.

Order and augmentation must come out the same wherever a training starts and however its work is shared, so there is
no generator with a state: each number is a hash (splitmix64, doi:10.1145/2714064.2660195) of the seed, the epoch, the
record and a column. It is the same on every machine and with every version of every library.
"""

from __future__ import annotations

import numpy as np

COLUMNS = 64  # numbers one record may use in one epoch
_STEP = np.uint64(0x9E3779B97F4A7C15)
_PIECE = 2**20


def uniforms(seed: int, epoch: int, records: np.ndarray, columns: int = COLUMNS) -> np.ndarray:
    """(N, columns) float64 in [0, 1) for `records` (N,) int64: the same row for the same record, always."""
    key = _scramble(_scramble(np.array([seed % 2**64], np.uint64) + _STEP) + np.uint64(epoch) + _STEP)
    places = records.astype(np.uint64)[:, None] * np.uint64(COLUMNS) + np.arange(1, columns + 1, dtype=np.uint64)
    return (_scramble(key + places * _STEP) >> np.uint64(11)) * 2.0**-53


def shuffled(seed: int, epoch: int, count: int) -> np.ndarray:
    """(count,) int64, a permutation of 0 .. count - 1."""
    numbers = np.empty(count)
    for begin in range(0, count, _PIECE):  # piece by piece, as the hashes' own memory is many times the result's
        records = np.arange(begin, min(begin + _PIECE, count))
        numbers[begin : begin + _PIECE] = uniforms(seed, epoch, records, 1)[:, 0]
    return np.argsort(numbers, kind="stable")


def _scramble(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
