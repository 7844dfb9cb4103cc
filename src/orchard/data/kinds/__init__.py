"""Kinds of data: one file each, with a `KIND` that says how it is known by name, opened and checked. Needs no torch."""

from __future__ import annotations

import difflib
import functools
import glob
import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchard.errors import UsageError, unknown
from orchard.given import DATA, Given, given_name


@dataclass(frozen=True)
class Kind:
    """What tasks learn from.

    `named` are the sets known by name (`digits`, `multi30k:FOLDER`); `schemes` are prefixes of sources that are no
    files (`gym:CartPole-v1`). `open` is the place, `module:function`, of what opens a source, `recognise` of what tells
    whether a source is of this kind, `objects` of what looks at a Python object of this kind (a `Given`, which `open`
    takes in place of a source), `check` of what reports on it for `orchard data check`, and `mosaic` of what draws it
    there.
    """

    name: str
    named: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ()
    open: str = ""
    recognise: str = ""
    objects: str = ""
    check: str = ""
    mosaic: str = ""

    def load(self, place: str) -> Any:
        """What stands at `module:name`."""
        module, _, name = place.partition(":")
        return getattr(importlib.import_module(module), name)

    def take(self, data: Any) -> str | Given:
        """The source that a name or a path is, or a Python object looked at.

        Raises UsageError for what can be no data of this kind, OrchardError for a record that is not right.
        """
        if isinstance(data, str | Path):
            self.require(str(data))
            return str(data)
        if isinstance(data, Given):
            return data
        if not self.objects:
            raise UsageError(
                f"data of the kind '{self.name}' is read from files: name a file or a folder, not a "
                f"{type(data).__name__}"
            )
        return self.load(self.objects)(data)  # type: ignore[no-any-return]

    def is_of(self, data: Any) -> bool:
        """Whether data are of this kind, by their name or by the look of what is there; of an object, whether it can be
        read as such."""
        if isinstance(data, Given):
            return False  # it was taken as another kind
        if not isinstance(data, str | Path):
            try:
                return bool(self.objects) and self.take(data) is not None
            except UsageError:
                return False
        name = str(data).partition(":")[0]
        if name in self.named or name in self.schemes:
            return True
        return bool(self.recognise) and Path(data).expanduser().exists() and bool(self.load(self.recognise)(str(data)))

    def require(self, source: str) -> None:
        """UsageError where `source` can be no data of this kind: no set of that name, and nothing at that path."""
        if handed := given_name(source, DATA):
            raise UsageError(
                f"{source} is a Python object, of which nothing is stored: hand the same {handed} in again from "
                "Python, as in orchard.train(MODEL, DATA, out=RUN)"
            )
        name = source.partition(":")[0]
        if name in self.named or name in self.schemes or Path(source).expanduser().exists():
            return
        for part in source.split(","):
            path = Path(part.strip()).expanduser()
            if not path.exists() and not glob.glob(str(path), recursive=True):  # noqa: PTH207 Path.glob takes no absolute pattern
                near = difflib.get_close_matches(name.lower(), self.named, n=2, cutoff=0.6)
                known = f"sets known by name: {', '.join(self.named)}" if self.named else "name a file or a folder"
                if self.schemes:
                    known = f"expected {' or '.join(f'{scheme}:NAME' for scheme in self.schemes)}"
                advice = f"did you mean {' or '.join(near)}?" if near else known
                raise UsageError(f"there is no file or folder '{part.strip()}'; {advice}")


@functools.cache
def kinds() -> dict[str, Kind]:
    """Every kind by its name."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")
    found = [importlib.import_module(f"orchard.data.kinds.{name}").KIND for name in names]
    return {kind.name: kind for kind in found}


def kind_named(name: str) -> Kind:
    """One kind; UsageError with the nearest known names where there is none."""
    if name not in kinds():
        raise unknown("kind of data", name, kinds())
    return kinds()[name]


def kinds_by_name(source: str) -> list[Kind]:
    """The kinds that know a source by its name; none for a path."""
    name = source.partition(":")[0]
    return [kind for kind in kinds().values() if name in kind.named or name in kind.schemes]


def kind_by_look(source: str) -> Kind | None:
    """The kind that recognises what is at a path as its own. Images, captions and text are told apart by
    `check_text.kind_of`, where no other kind says that it is its own."""
    for kind in kinds().values():
        if kind.recognise and kind.load(kind.recognise)(source):
            return kind
    return None


def canonical_name(source: str) -> str:
    """The name by which recipes know a source: a named set's own, an environment's, else "images"."""
    name = source.partition(":")[0]
    for kind in kinds().values():
        if name in kind.named:
            return name
        if name in kind.schemes:
            return source
    return "images"


def data_name(source: str) -> str:
    """What folders and titles call a source: the name that recipes know it by, else that of its object or path."""
    if handed := given_name(source, DATA):
        return handed
    name = canonical_name(source)
    return name if name != "images" else Path(source).absolute().name.partition(".")[0] or name


def folder_name(*words: str) -> str:
    """Words as the name of one folder, whatever is in them."""
    return re.sub(r"[^\w.+-]+", "-", "-".join(words)).strip("-.")
