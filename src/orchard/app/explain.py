"""`explain`: what a trained model looks at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.errors import UsageError
from orchard.tasks.registry import task_named, task_names
from orchard.weights.folders import require_model

if TYPE_CHECKING:
    from torch import nn


def explain(
    run: Path | str,
    images: Any = (),
    *,
    method: str | None = None,
    class_name: str | None = None,
    units: Sequence[str] = (),
    data: Any = None,
    out: Path | str | None = None,
    model: nn.Module | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """What the model of `run` looks at: of images as PNG files and one page, of texts word by word and as one page.

    Args:
        run: a run folder or a model's folder, of a classifier of images or of texts.
        images: for a heat map over each: paths, folders, patterns, or images in memory, as a pipeline takes them; or
            texts, tuples of two for a model of pairs.
        method: "grad-cam", "integrated-gradients" or "attention-rollout" for images; "features" makes images that
            classes or units respond to most; "atlas" lays out the activations of a data set. Default: what fits the
            model.
        class_name: the class to explain; default: the predicted one, or all for features.
        units: for features, such as "3:12": channel 12 (from 0) of stage 3 (from 1) of the feature maps.
        data: for the atlas, as `evaluate` takes it.
        out: the folder to write into; default: explained/RUN-METHOD.
        model: your own module, where the run is of one.
        say: is given one line about how the work is done.

    An image that cannot be read is named among the explanations, with its error. Raises UsageError for what does not go
    together or does not fit the model, OrchardError for data that cannot be used.
    """
    found = require_model(Path(run))
    task = task_named(found.task)
    if task.explain is None:
        able = ", ".join(name for name in task_names() if task_named(name).explain)
        raise UsageError(f"{found.folder} is for {task.name}; explained are models for {able}")
    items = list(images) if isinstance(images, list | tuple) else [images]
    name = Path(run).resolve().name
    folder = Path(out) if out else Path("explained") / f"{name}-{method}" if method else Path("explained") / name
    return task.load(task.explain)(  # type: ignore[no-any-return]
        found.folder, items, method=method, class_name=class_name, units=tuple(units), data=data, out=folder,
        model=model, say=say,
    )  # fmt: skip
