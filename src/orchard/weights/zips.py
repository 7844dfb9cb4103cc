"""Zip archives that strangers made (.npz, PyTorch's and TorchScript's files), looked at before anything is unpacked."""

from __future__ import annotations

import zipfile
from pathlib import Path

from orchard.errors import OrchardError, first_line
from orchard.packed import most_unpacked

PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what PyTorch and NumPy write


def check_zip(path: Path) -> None:
    """Raises OrchardError for an archive that is damaged, encrypted, packed otherwise, or unpacks to far too much."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:  # zipfile says it in many ways
        raise damaged(path, "a zip archive", error) from None
    for member in members:
        if member.flag_bits & 1:
            raise OrchardError(f"{path}: '{member.filename[:80]}' in it is encrypted; expected a plain archive")
        if member.compress_type not in PACKED:
            raise OrchardError(f"{path}: '{member.filename[:80]}' in it is packed in a way that is not read")
    total, size = sum(member.file_size for member in members), path.stat().st_size
    if total > most_unpacked(size):
        raise OrchardError(f"{path} has {size:,} bytes and would unpack to {total:,}, which is refused")


def damaged(path: Path, kind: str, error: Exception) -> OrchardError:
    """The line for a file that could not be read as what it should be."""
    return OrchardError(f"{path} is damaged or not {kind}: {first_line(error)}")
