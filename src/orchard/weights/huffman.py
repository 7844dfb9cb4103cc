"""Canonical Huffman codes (Huffman 1952) over small alphabets: code lengths say all of a code."""

from __future__ import annotations

import heapq
from itertools import count

import numpy as np

LONGEST = 24  # bits of a code: a window of 32 bits that begins at any bit of a byte holds it
CHUNK = 2**20  # bits that are decoded at a time


def code_lengths(counts: np.ndarray) -> np.ndarray:
    """Bits of each symbol's code, (A,) uint8, that make symbols seen `counts` (A,) times shortest; 0 for unseen ones.

    A symbol that is alone has one bit. Where rare symbols would have more than LONGEST bits, counts are evened out.
    """
    lengths = np.zeros(len(counts), np.uint8)
    seen = np.flatnonzero(counts)
    if len(seen) == 1:
        lengths[seen] = 1
    if len(seen) < 2:
        return lengths
    weights = counts[seen].astype(np.int64)
    while True:
        ties = count()  # equal counts are joined in the order in which they came to be
        heap: list[tuple[int, int, tuple[int, ...]]]
        heap = [(int(weight), next(ties), (place,)) for place, weight in enumerate(weights)]
        heapq.heapify(heap)
        depth = np.zeros(len(seen), np.int64)
        while len(heap) > 1:
            (a, _, left), (b, _, right) = heapq.heappop(heap), heapq.heappop(heap)
            depth[list(left + right)] += 1
            heapq.heappush(heap, (a + b, next(ties), left + right))
        if depth.max() <= LONGEST:
            lengths[seen] = depth
            return lengths
        weights = weights // 2 + 1


def canonical_codes(lengths: np.ndarray) -> np.ndarray:
    """The codes of symbols, (A,) uint32: shorter before longer ones, of one length in the order of the symbols.

    Raises ValueError for lengths that no code has.
    """
    used = np.flatnonzero(lengths)
    if len(used) and (lengths.max() > LONGEST or _share(lengths) != _whole(len(used))):
        raise ValueError("its code lengths are of no Huffman code")
    codes = np.zeros(len(lengths), np.uint32)
    code = previous = 0
    for symbol in used[np.argsort(lengths[used], kind="stable")].tolist():
        length = int(lengths[symbol])
        code <<= length - previous
        codes[symbol], previous = code, length
        code += 1
    return codes


def _share(lengths: np.ndarray) -> int:
    """How much of all codes of LONGEST bits these take (Kraft 1949)."""
    return int((1 << (LONGEST - lengths[lengths > 0].astype(np.int64))).sum())


def _whole(symbols: int) -> int:
    return 1 << (LONGEST - 1 if symbols == 1 else LONGEST)


def encode(symbols: np.ndarray, lengths: np.ndarray) -> bytes:
    """Symbols (N,) as bits, the first in the highest bit of the first byte; the last byte is filled with zeros."""
    codes, length = canonical_codes(lengths)[symbols], lengths[symbols].astype(np.int64)
    starts = np.cumsum(length) - length
    bits = np.zeros(int(length.sum()), np.uint8)
    for place in range(int(length.max(initial=0))):
        here = length > place
        bits[starts[here] + place] = codes[here] >> (length[here] - 1 - place).astype(np.uint32) & 1
    return np.packbits(bits).tobytes()


def decode(data: bytes, count: int, lengths: np.ndarray) -> np.ndarray:
    """The inverse: `count` symbols, int64. Raises ValueError where the bits are not exactly those of so many."""
    codes = canonical_codes(lengths)
    used = np.flatnonzero(lengths)
    if not (count <= 8 * len(data) and (count == 0 or len(used))):
        raise ValueError(f"it has {len(data):,} bytes for {count:,} symbols")
    order = used[np.argsort(lengths[used], kind="stable")]
    first = codes[order].astype(np.uint64) << (32 - lengths[order]).astype(np.uint64)  # of each code's windows
    raw = np.frombuffer(data + bytes(5), np.uint8).astype(np.uint64)
    found = np.empty(count, np.int64)
    position = done = 0
    while done < count:
        size = min(CHUNK, 8 * len(data) - position)
        if size <= 0:
            raise ValueError(f"its bits end after {done:,} of {count:,} symbols")
        bit = position + np.arange(size)
        byte, shift = bit >> 3, (bit & 7).astype(np.uint64)
        wide = raw[byte] << 32 | raw[byte + 1] << 24 | raw[byte + 2] << 16 | raw[byte + 3] << 8 | raw[byte + 4]
        places = np.searchsorted(first, wide >> (8 - shift) & 0xFFFFFFFF, side="right") - 1
        ahead = lengths[order][places].tolist()  # the code that would begin at each bit
        here, path = 0, list[int]()
        while here < size and done + len(path) < count:
            path.append(here)
            here += ahead[here]
        found[done : done + len(path)] = order[places[path]]
        done, position = done + len(path), position + here
    if not 0 <= 8 * len(data) - position < 8:
        raise ValueError(f"{count:,} symbols end at bit {position:,} of {8 * len(data):,}")
    return found
