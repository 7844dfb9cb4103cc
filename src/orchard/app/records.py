"""What a run knows of its records: that none is asked about that was learned from, and whether they are still there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchard.data.digests import count_known, digests_of, read_digests
from orchard.data.reading import can_break
from orchard.errors import OrchardError

if TYPE_CHECKING:
    from orchard.tasks.base import Job

MAY_CHANGE = 0.1  # share of the training records that may be mended or left out while a run is unfinished


def overlaps(job: Job) -> list[str]:
    """Lines that say which records are asked about though they were learned from, here or by the model begun with."""
    found = {name: digests_of(split) for name, split in job.records.items()}
    lines = []
    start = getattr(job.settings, "start_from", None)
    before = [read_digests(folder).get("train") for folder in (Path(start), Path(start).parent)] if start else []
    for name in job.final_splits:
        asked = found.get(name, np.empty(0, np.int64))
        if again := count_known(asked, [found["train"]] if "train" in found else []):
            lines.append(f"{again:,} of {len(asked):,} {name} records are among the training records too")
        if learned := count_known(asked, [one for one in before if one is not None]):
            lines.append(f"{start} has learned from {learned:,} of {len(asked):,} {name} records")
    return lines


def changed_records(
    before: Mapping[str, Any],
    job: Job,
    digests: Mapping[str, np.ndarray],
    kept: Mapping[str, np.ndarray],
    folder: Path,
) -> str:
    """A line about records that were mended or left out since a run was begun, which it goes on without.

    Raises OrchardError where it is other data: other classes, new records, too many that are not what they were, or a
    text, which is one whole.
    """
    now = job.manifest()
    old, new = kept.get("train", np.empty(0, np.int64)), digests.get("train", np.empty(0, np.int64))
    gone, added = int((~np.isin(old, new)).sum()), int((~np.isin(new, old)).sum())
    mended = (
        can_break(job.records.get("train"))
        and len(old)
        and len(new) <= len(old)
        and max(gone, added) <= max(1, MAY_CHANGE * len(old))
    )
    if not mended or list(before.get("classes", ())) != list(now.get("classes", ())):
        raise OrchardError(
            f"the data in {now['source']} has changed since {folder} was begun; name another folder with --out"
        )
    what = f"{gone:,} of {len(old):,} training records" if gone or added else "some records, none to learn from,"
    return f"{what} have been mended or left out since {folder} was begun; it goes on with what is there"
