"""`model.dc`: weights as Deep Compression stores them (Han, Mao and Dally 2015, arXiv:1510.00149, sections 2 to 4).

The file. A number N is written in groups of seven bits, the lowest first, the high bit set in all but the last:

    "orchdc", byte 0, byte 1          the last is the version
    N tensors, and for each:
      N bytes, the name in UTF-8      its name in the state dict
      N axes, N for each              its shape
      byte kind                       a number of DTYPES: the values follow, little-endian, row after row
                                      255: a shared weight follows
        byte b                        bits of an index
        N values, float32 for each    the codebook; its first value has code 1
        N entries, and for them:      the non-zero weights in the order of the rows, and fillers
          table, N bytes, bits        their codes, Huffman-coded; 0 is a filler, a weight of zero
          table, N bytes, bits        zeros since the entry before, below 2**b, Huffman-coded
    4 bytes                           CRC-32 of all before, little-endian

A run of 2**b zeros or more is broken by fillers; fillers behind the last weight leave fewer than 2**b zeros. A table
is N and so many lengths of codes in five bits each, the highest bits first: the lengths of a canonical Huffman code.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from orchard.errors import OrchardError
from orchard.files import atomic, disk_error, open_regular
from orchard.weights import huffman

MAGIC = b"orchdc\x00\x01"
SHARED = 255
DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool,
)  # fmt: skip
INDEX_BITS = range(3, 13)
MOST_AXES, MOST_BITS, LONGEST_NAME = 16, 12, 4096
MOST_TIMES = 1000  # as large as the file, with SPARE bytes beside, are the weights at most
SPARE = 2**26


@dataclass(frozen=True)
class SharedWeight:
    """A weight of few values: `codes` of its shape, 0 where it is zero, i where it is `centroids[i - 1]`, float32."""

    centroids: Tensor
    codes: Tensor

    def dense(self) -> Tensor:
        """The weight itself, float32."""
        return torch.cat([self.centroids.new_zeros(1), self.centroids])[self.codes]


@dataclass(frozen=True)
class Parts:
    """Bytes of what a shared weight is stored as."""

    codebook: int
    tables: int
    values: int  # Huffman-coded
    indices: int  # Huffman-coded


def write_encoded(tensors: Mapping[str, Tensor | SharedWeight], path: Path) -> dict[str, Parts]:
    """Write a state dict; what its shared weights take. OrchardError where the disk is full."""
    data, parts = encode(tensors)
    try:
        with atomic(path) as file:
            file.write(data)
    except OSError as error:
        raise disk_error(error, path, "make room and run the same command again") from None
    return parts


def read_encoded(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, bit for bit. OrchardError names a file that is missing, damaged or none of ours."""
    try:
        with open_regular(path) as file:
            return decode(file.read())
    except FileNotFoundError:
        raise OrchardError(f"{path} is missing") from None
    except OSError as error:
        raise OrchardError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise OrchardError(f"{path} is damaged or no file of Deep Compression: {error}") from None


def encode(tensors: Mapping[str, Tensor | SharedWeight]) -> tuple[bytes, dict[str, Parts]]:
    """The file's bytes, and what each shared weight takes of them, with the index width that makes it smallest."""
    out, parts = bytearray(MAGIC + _number(len(tensors))), {}
    for name, tensor in tensors.items():
        shape = tuple(tensor.codes.shape if isinstance(tensor, SharedWeight) else tensor.shape)
        out += _number(len(name.encode())) + name.encode() + _number(len(shape)) + b"".join(map(_number, shape))
        if isinstance(tensor, SharedWeight):
            found = [_encode_shared(tensor, bits) for bits in INDEX_BITS]
            data, parts[name] = min(found, key=lambda one: len(one[0]))
            out += bytes([SHARED]) + data
        else:
            plain = tensor.detach().cpu().contiguous()
            out += bytes([DTYPES.index(plain.dtype)]) + plain.flatten().view(torch.uint8).numpy().tobytes()
    return bytes(out + zlib.crc32(out).to_bytes(4, "little")), parts


def relative_indices(codes: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Entries of flat codes: the code of each, and the zeros since the one before; fillers are 0 (figure 2)."""
    most = 2**bits
    places = np.flatnonzero(codes)
    gaps = np.diff(places, prepend=-1) - 1
    fillers = gaps // most
    entries = len(places) + int(fillers.sum())
    values, zeros = np.zeros(entries, np.int64), np.full(entries, most - 1, np.int64)
    at = np.cumsum(fillers + 1) - 1  # where the weights stand among their fillers
    values[at], zeros[at] = codes[places], gaps - fillers * most
    behind = (len(codes) - 1 - (places[-1] if len(places) else -1)) // most
    return np.pad(values, (0, behind)), np.pad(zeros, (0, behind), constant_values=most - 1)


def _encode_shared(weight: SharedWeight, bits: int) -> tuple[bytes, Parts]:
    codes, zeros = relative_indices(weight.codes.flatten().cpu().numpy(), bits)
    codebook = weight.centroids.detach().cpu().numpy().astype("<f4").tobytes()
    streams = [(codes, len(weight.centroids) + 1), (zeros, 2**bits)]
    lengths = [huffman.code_lengths(np.bincount(symbols, minlength=size)) for symbols, size in streams]
    tables = [_table(one) for one in lengths]
    coded = [huffman.encode(symbols, one) for (symbols, _), one in zip(streams, lengths, strict=True)]
    data = bytes([bits]) + _number(len(weight.centroids)) + codebook + _number(len(codes))
    for table, stream in zip(tables, coded, strict=True):
        data += table + _number(len(stream)) + stream
    return data, Parts(len(codebook), sum(map(len, tables)), *map(len, coded))


def _number(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _table(lengths: np.ndarray) -> bytes:
    """Up to the last symbol that is used."""
    used = lengths[: int(np.flatnonzero(lengths).max(initial=-1)) + 1]
    bits = (used[:, None] >> np.arange(4, -1, -1, dtype=np.uint8)) & 1
    return _number(len(used)) + np.packbits(bits.flatten()).tobytes()


class _Reader:
    """Bytes from the first to the last; ValueError where more are wanted than there are."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise ValueError(f"{count:,} bytes are wanted at byte {self.at:,} of {len(self.data):,}")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, most: int, what: str) -> int:
        value = shift = 0
        while shift < 63:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        if value > most:
            raise ValueError(f"{what} is {value:,} at byte {self.at:,}; expected at most {most:,}")
        return value

    def table(self, most: int) -> np.ndarray:
        count = self.number(most, "the size of an alphabet")
        raw = np.frombuffer(self.take(-(-5 * count // 8)), np.uint8)
        bits = np.unpackbits(raw)[: 5 * count].reshape(count, 5)
        return (bits << np.arange(4, -1, -1, dtype=np.uint8)).sum(1).astype(np.uint8)

    def symbols(self, count: int, alphabet: int) -> np.ndarray:
        lengths = self.table(alphabet)
        return huffman.decode(self.take(self.number(len(self.data), "the size of a stream")), count, lengths)


def decode(data: bytes) -> dict[str, Tensor]:
    """The inverse of `encode`. ValueError for bytes that are not exactly those of such a file.

    An entry of two bits may stand for 2**b weights, so that a small file could fill the memory: refused is one whose
    weights are more than MOST_TIMES as large as itself.
    """
    if not data.startswith(MAGIC):
        known = data.startswith(MAGIC[:-1]) and len(data) >= len(MAGIC)
        raise ValueError(f"it is of version {data[7]}, expected 1" if known else "it does not begin as one")
    if len(data) < len(MAGIC) + 5 or zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise ValueError("its checksum is wrong")
    reader, tensors = _Reader(data[:-4]), {}
    reader.take(len(MAGIC))
    room = MOST_TIMES * len(data) + SPARE
    for _ in range(reader.number(len(data), "the number of tensors")):
        name = reader.take(reader.number(LONGEST_NAME, "the length of a name")).decode()
        axes = reader.number(MOST_AXES, "the number of axes")
        shape = [reader.number(2**40, "an axis") for _ in range(axes)]
        kind = reader.take(1)[0]
        if kind != SHARED and kind >= len(DTYPES):
            raise ValueError(f"'{name}' is of the kind {kind}, which version 1 has not")
        room -= _size(shape) * (4 if kind == SHARED else 1)
        if room < 0:
            raise ValueError(f"'{name}' makes its weights over {MOST_TIMES} times as large as the file")
        if name in tensors:
            raise ValueError(f"it has '{name}' twice")
        tensors[name] = _shared(reader, name, shape) if kind == SHARED else _plain(reader, DTYPES[kind], shape)
    if reader.at != len(reader.data):
        raise ValueError(f"{len(reader.data) - reader.at:,} bytes follow the last tensor")
    return tensors


def _size(shape: list[int]) -> int:
    size = 1
    for side in shape:  # not numpy's product, which would run over
        size *= side
    return size


def _plain(reader: _Reader, dtype: torch.dtype, shape: list[int]) -> Tensor:
    raw = bytearray(reader.take(_size(shape) * dtype.itemsize))
    return torch.frombuffer(raw, dtype=dtype).view(shape) if raw else torch.empty(shape, dtype=dtype)


def _shared(reader: _Reader, name: str, shape: list[int]) -> Tensor:
    bits = reader.take(1)[0]
    if not 1 <= bits <= MOST_BITS:
        raise ValueError(f"'{name}' has indices of {bits} bits; expected 1 to {MOST_BITS}")
    count = reader.number(2**MOST_BITS, "the size of a codebook")
    table = np.concatenate([np.zeros(1, "<f4"), np.frombuffer(reader.take(4 * count), "<f4")]).astype(np.float32)
    entries = reader.number(8 * len(reader.data), "the number of entries")
    codes = reader.symbols(entries, count + 1)
    places = np.cumsum(reader.symbols(entries, 2**bits) + 1) - 1
    size = _size(shape)
    last = int(places[-1]) if entries else -1
    if not 0 <= size - 1 - last < 2**bits:
        raise ValueError(f"'{name}' has {size:,} weights, its entries end at {last + 1:,}")
    weight = np.zeros(size, np.float32)
    weight[places] = table[codes]
    return torch.from_numpy(weight).view(shape)
