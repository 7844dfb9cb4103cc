"""An official checkpoint with what lies beside it, as a task's importer gets it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from orchard.weights.by_name import Found
from orchard.weights.official import read_official
from orchard.weights.portable import Official


@dataclass(frozen=True)
class Checkpoint:
    """What a person wants imported: `tensors` of what was `found`, as variant `name`, into the folder `out`."""

    name: str
    found: Found
    tensors: Mapping[str, Tensor]
    source: str | None
    overrides: Mapping[str, Any]
    vocabulary: Sequence[Path]  # files of a text tokenizer
    others: Sequence[Path]  # further checkpoints
    tokenizer: str | None  # a variant, or a run or model folder, of an image tokenizer
    out: Path

    def read(self, tensors: Mapping[str, Tensor] | None = None) -> Official:
        """The model with the weights of the checkpoint, or with those of its tensors that are its own."""
        own = self.tensors if tensors is None else tensors
        found = self.found
        return read_official(self.name, own, self.source, self.overrides, str(found.file), found.origin, found.beside)

    @property
    def file(self) -> Path:
        return self.found.file


@dataclass(frozen=True)
class Imported:
    """What was written, and what a person should know of it."""

    official: Official
    words: str = ""  # which files the text tokenizer was made of; empty where there is none
    pictures: Official | None = None  # the image tokenizer that came with it
    remarks: tuple[str, ...] = ()
