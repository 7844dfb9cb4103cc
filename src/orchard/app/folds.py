"""K-fold cross-validation: one training for each part of the data, which is its validation split (Stone 1974)."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.app.train import resolve_training, train
from orchard.data.kinds import data_name, folder_name, kind_named
from orchard.errors import UsageError
from orchard.files import disk_error, write_json
from orchard.given import MODULE, given_name
from orchard.training.settings import flatten, known_keys
from orchard.weights.folders import FOLDS, fold_folder

if TYPE_CHECKING:
    from torch import Tensor, nn

SPLITS = ("validation", "test")


def train_folds(
    model: str | nn.Module,
    data: Any,
    folds: int,
    out: Path | str | None = None,
    *,
    recipe: str | None = None,
    task: str | None = None,
    callbacks: Sequence[Any] = (),
    metrics: Mapping[str, Callable[[Tensor, Tensor], float]] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Train a classifier of images once for each of `folds` parts of its training and validation images.

    Each part is the validation split of one run and is learned from in the others; a test split is in none and the
    same for all. Folds of the same settings that are finished are kept, so that a stopped call goes on where it was.
    The runs together are an ensemble: `evaluate` and `pipeline` take their folder.

    Args:
        model, data, recipe, task, callbacks, metrics, settings: as `train` takes them, for each run.
        folds: at least 2, and no more than a class has images.
        out: the folder of the runs fold-0, fold-1, ...; default: runs/MODEL-DATA-folds.

    Returns what folds.json in the folder says: the names of the "runs", the "metric" that selects checkpoints, and for
    each split the metrics of all runs, by name: "values" by fold, their "mean" and "std" (of a sample, ddof 1); and the
    folder under "folder". Raises UsageError for a wrong call and data that cannot be cut so, OrchardError as `train`.
    """
    if given := {"data.folds", "data.fold"} & flatten(settings).keys():
        raise UsageError(f"{min(given)} is set by the cross-validation itself; leave it out")
    if folds < 2:
        raise UsageError(f"{folds} folds are asked for; expected at least 2")
    resolved, learned = resolve_training(model, data, settings, recipe, metrics, task)
    if "data.folds" not in known_keys(type(resolved.settings)):
        raise UsageError(f"{resolved.settings.model} is for {learned.name}, whose data are not cut into folds; train "
                         "without them")  # fmt: skip
    if resolved.settings.devices * resolved.settings.nodes > 1:
        raise UsageError("folds are trained one after another on one device; leave out devices and nodes")
    name, source = resolved.settings.model, resolved.settings.data.source
    base = folder_name(given_name(name, MODULE) or name, data_name(source)) + "-folds"
    folder = Path(out) if out else Path("runs") / base
    if (folder / "run.json").exists():
        raise UsageError(f"{folder} is a run; name another folder for the folds with --out")
    if resolved.objects.data is None:
        kind_named(learned.data).require(source)
    from orchard.tasks.base import say

    runs = []
    for fold in range(folds):
        say(f"fold-{fold}, {fold + 1} of {folds}")
        cut: dict[str, Any] = {"data.folds": folds, "data.fold": fold}
        path = fold_folder(folder, fold)
        runs.append(
            train(
                model,
                resolved.source,
                path,
                recipe=recipe,
                task=task,
                callbacks=callbacks,
                metrics=metrics,
                **settings,
                **cut,
            )
        )
    table = {
        "model": name,
        "task": learned.name,
        "data": data_name(source),
        "metric": learned.metric.name,
        **table_of(runs),
    }
    try:
        write_json(folder / FOLDS, table)
    except OSError as error:
        raise disk_error(error, folder / FOLDS, "make room and run the same command again") from None
    return {**table, "folder": str(folder)}


def table_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What several runs' metrics come to; the mean of what one of them has not is left out."""
    found: dict[str, Any] = {"runs": [Path(run["run"]).name for run in runs]}
    if "metric" in runs[0]:
        found["metric"] = runs[0]["metric"]
    for split in SPLITS:
        if not all(run.get(split) for run in runs):
            continue
        found[split] = {}
        for name in runs[0][split]:
            values = [run[split].get(name) for run in runs]
            whole = None not in values
            mean, std = (statistics.fmean(values), statistics.stdev(values)) if whole else (None, None)
            found[split][name] = {"values": values, "mean": mean, "std": std}
    return found
