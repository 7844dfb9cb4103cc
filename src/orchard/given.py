"""What Python hands in where the command line names something: a data set, a module. Read without torch.

Settings, run.json and the folder of a model call it `object:NAME@DIGEST` or `module:NAME@DIGEST`. The digest is that of
the content of the data, and of the structure of the module, so that other data is never taken for the same. The object
itself is never stored: who goes on with the run hands it in again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

DATA, MODULE = "object", "module"
_SOURCE = re.compile(r"(object|module):([\w.+-]+)@[0-9a-f]{8}")


@dataclass(frozen=True)
class Given:
    """A data set as an object, which was looked at once; `content` is what its kind of data made of it."""

    source: str
    content: Any


def source_of(scheme: str, name: str, digest: str) -> str:
    """What settings call an object, such as `object:MNIST@1f0c33ab`."""
    return f"{scheme}:{re.sub(r'[^A-Za-z0-9_.+-]+', '-', name)}@{digest[:8]}"


def given_name(source: str, scheme: str) -> str | None:
    """The name of the object that a source or a model stands for; None where it is no object."""
    found = _SOURCE.fullmatch(source)
    return found[2] if found and found[1] == scheme else None
