"""Checkpoints that are whole or not there: written beside, flushed to disk, then renamed.

A checkpoint is a folder `step_00000123` with safetensors files and `state.json`, which holds the sha256 of each
of them and of the facts in it. A damaged one is recognised by its sums, named, and passed over for the one before it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from orchard.errors import OrchardError
from orchard.files import atomic, disk_error, read_as, write_json

FACTS = "facts"  # the name of their sum; checkpoints of version 0.1 lack it
KEPT = 2  # the newest, and the one before it in case the newest is damaged


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, warn: Callable[[str], None]):
        self.folder = folder
        self.warn = warn

    def newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step_*"), reverse=True)

    def save(self, step: int, groups: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]) -> None:
        """Write a checkpoint, then drop the oldest ones. On a full disk the earlier ones stay whole."""
        final = self.folder / f"step_{step:09d}"
        beside = self.folder / f".{final.name}.partial"
        try:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            sums = {}
            for name, tensors in groups.items():
                data = save({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()})
                sums[name] = hashlib.sha256(data).hexdigest()
                with atomic(beside / f"{name}.safetensors") as file:
                    file.write(data)
            write_json(beside / "state.json", {"step": step, "sha256": sums | {FACTS: _sum(facts)}, "facts": facts})
            shutil.rmtree(final, ignore_errors=True)
            beside.rename(final)
        except OSError as error:
            shutil.rmtree(beside, ignore_errors=True)
            kept = self.newest_first()
            where = f"the checkpoint {kept[0]} is whole" if kept else "there is no checkpoint yet"
            raise disk_error(error, final, f"{where}; make room and run the same command again") from None
        for old in self.newest_first()[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)

    def load_newest(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None:
        """The newest whole checkpoint, or None. A damaged one is named in a warning and passed over."""
        for path in self.newest_first():
            try:
                return read_checkpoint(path)
            except OrchardError as error:
                self.warn(f"{error}; using the checkpoint before it")
        return None


class _State(BaseModel):
    """state.json."""

    model_config = ConfigDict(extra="forbid", strict=True)

    step: int = Field(ge=0)
    sha256: dict[str, str]
    facts: dict[str, Any] = Field(min_length=1)


def _sum(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def read_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Tensors by group, and the facts. OrchardError where a file is missing or its sum is not the one written."""
    try:
        state = read_as(path / "state.json", _State)
        whole = state.sha256.pop(FACTS, None) in (None, _sum(state.facts))
        if not whole or state.facts.get("step", state.step) != state.step:
            raise OrchardError(f"checkpoint {path / 'state.json'} is damaged: its content is not what was written")
        groups = {}
        for name, wanted in state.sha256.items():
            file = path / f"{name}.safetensors"
            if file.parent != path or hashlib.sha256(file.read_bytes()).hexdigest() != wanted:
                raise OrchardError(f"checkpoint {file} is damaged: its content is not what was written")
            groups[name] = load_file(file)
        return groups, state.facts
    except (OSError, ValueError, SafetensorError) as error:
        raise OrchardError(f"checkpoint {path} is damaged: {error}") from None
