"""Official translators, whose networks lie in files of their own: `latest_net_G.pth`, `latest_net_D_A.pth`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from orchard.errors import UsageError
from orchard.models import create_model, landmark_of
from orchard.tasks.image_to_image.objective import family_of
from orchard.tasks.importing import Checkpoint, Imported
from orchard.weights.foreign import read_checkpoint
from orchard.weights.official import export_official
from orchard.weights.portable import save_portable

NETWORK = re.compile(r"net_?(?:local)?([GD](?:_[AB])?)(?=[._])")


def complete(wanted: Checkpoint) -> Imported:
    """Write a model's folder from the files of its networks; those that are not named are fresh, which is said.

    Which network a file holds is in its name (`latest_net_G_A.pth`); one that says nothing is the first generator's.
    Raises UsageError for two files of one network and for what has no place in the model.
    """
    if wanted.vocabulary or wanted.tokenizer:
        raise UsageError(f"{wanted.name} has no text and no image tokenizer; leave them out")
    with torch.device("meta"):
        model = create_model(wanted.name, **wanted.overrides)
    prefixes = family_of(model).NETWORKS
    if not prefixes or any(name.startswith(tuple(prefixes.values())) for name in wanted.tensors):  # one file with all
        official = wanted.read()
        save_portable(wanted.out, official.model, official.about)
        return Imported(official)
    found: dict[str, Mapping[str, Tensor]] = {_network(wanted.file, prefixes): wanted.tensors}
    for path in wanted.others:
        if (name := _network(path, prefixes)) in found:
            raise UsageError(f"{path} is a second file of the network {name}; name each once, as latest_net_{name}.pth")
        found[name] = read_checkpoint(path)
    tensors = {f"{prefixes[name]}{key}": one for name, own in found.items() for key, one in own.items()}
    missing = [name for name in prefixes if name not in found]
    if missing:
        torch.manual_seed(0)
        source = wanted.source or next(iter(landmark_of(wanted.name).names))
        fresh = export_official(create_model(wanted.name, **wanted.overrides), source)
        before = tuple(prefixes[name] for name in missing)
        tensors |= {name: tensor for name, tensor in fresh.items() if name.startswith(before)}
    official = wanted.read(tensors)
    save_portable(wanted.out, official.model, official.about)
    remark = f"fresh networks: {', '.join(missing)}, as no file was named for them; --files names more"
    return Imported(official, remarks=(remark,) if missing else ())


def _network(path: Path, prefixes: Mapping[str, str]) -> str:
    """Which network a file holds, by its name."""
    match = NETWORK.search(path.name)
    name = match[1] if match else next(iter(prefixes))
    if name not in prefixes:
        raise UsageError(f"{path} holds a network {name}; this model has {', '.join(prefixes)}")
    return name
