"""Checkpoints that are whole or not there: written beside, flushed to disk, then renamed.

A checkpoint is a folder `step_00000123` with safetensors files and `state.json`, which holds the sha256 of each
of them and of the facts in it. A damaged one is recognised by its sums, named, and passed over for the one before it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from orchard.errors import OrchardError
from orchard.files import atomic, atomic_folder, disk_error, json_text, read_as, write_json

NAME = re.compile(r"step_\d{9,}")
STATE, ENDING = "state.json", ".safetensors"  # what is in its folder
FACTS = "facts"  # the name of their sum; checkpoints of version 0.1 lack it
KEPT = 2  # the newest, and the one before it in case the newest is damaged


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, warn: Callable[[str], None]):
        self.folder = folder
        self.warn = warn

    def newest_first(self) -> list[Path]:
        """Ours alone: folders (not links) of a name that we write, with what a checkpoint says of itself."""
        ours = [path for path in self.folder.glob("step_*") if NAME.fullmatch(path.name) and not path.is_symlink()]
        return sorted((p for p in ours if (p / STATE).is_file()), key=lambda p: int(p.name[5:]), reverse=True)

    def save(self, step: int, groups: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]) -> None:
        """Write a checkpoint, then drop the oldest ones. On a full disk the earlier ones stay whole."""
        final = self.folder / f"step_{step:09d}"
        try:
            with atomic_folder(final) as beside:
                sums = {}
                for name, tensors in groups.items():
                    data = save({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()})
                    sums[name] = hashlib.sha256(data).hexdigest()
                    with atomic(beside / f"{name}{ENDING}") as file:
                        file.write(data)
                write_json(beside / STATE, {"step": step, "sha256": sums | {FACTS: _sum(facts)}, "facts": facts})
                _remove(final)
        except OSError as error:
            kept = self.newest_first()
            where = f"the checkpoint {kept[0]} is whole" if kept else "there is no checkpoint yet"
            raise disk_error(error, final, f"{where}; make room and run the same command again") from None
        for old in self.newest_first()[KEPT:]:
            _remove(old)

    def load_newest(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None:
        """The newest whole checkpoint, or None. A damaged one is named in a warning and passed over."""
        for path in self.newest_first():
            try:
                return read_checkpoint(path)
            except OrchardError as error:
                self.warn(f"{error}; using the checkpoint before it")
        return None


def _remove(checkpoint: Path) -> None:
    """Remove the files that we wrote, and the folder if nothing else is in it."""
    if checkpoint.is_symlink():
        return
    for file in (checkpoint / STATE, *checkpoint.glob(f"*{ENDING}")):
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        checkpoint.rmdir()


class _State(BaseModel):
    """state.json."""

    model_config = ConfigDict(extra="forbid", strict=True)

    step: int = Field(ge=0)
    sha256: dict[str, str]
    facts: dict[str, Any] = Field(min_length=1)


def _sum(facts: Mapping[str, Any]) -> str:
    as_read = json.loads(json_text(facts))
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()


def read_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Tensors by group, and the facts. OrchardError where a file is missing or its sum is not the one written."""
    try:
        state = read_as(path / STATE, _State)
        whole = state.sha256.pop(FACTS, None) in (None, _sum(state.facts))
        if not whole or state.facts.get("step", state.step) != state.step:
            raise OrchardError(f"checkpoint {path / STATE} is damaged: its content is not what was written")
        groups = {}
        for name, wanted in state.sha256.items():
            file = path / f"{name}{ENDING}"
            if file.parent != path or hashlib.sha256(file.read_bytes()).hexdigest() != wanted:
                raise OrchardError(f"checkpoint {file} is damaged: its content is not what was written")
            groups[name] = load_file(file)
        return groups, state.facts
    except (OSError, ValueError, SafetensorError) as error:
        raise OrchardError(f"checkpoint {path} is damaged: {error}") from None
