"""What a classifier looks at: heat maps over images, what its classes and channels respond to, and an activation atlas.

Read without torch: a wrong call is answered before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orchard.errors import UsageError, unknown
from orchard.weights.folders import read_description

FOR_IMAGES = ("grad-cam", "integrated-gradients", "attention-rollout")
METHODS = (*FOR_IMAGES, "features", "atlas")


def explain(
    folder: Path,
    items: Sequence[Any],
    *,
    method: str | None,
    class_name: str | None,
    units: Sequence[str],
    data: Any,
    out: Path,
    model: Any,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """See `orchard.explain`; `folder` is the model's and `items` are images in files or in memory."""
    _check(folder, items, method, class_name, units, data)
    from orchard.inference.loading import load

    loaded = load(folder, model)
    if method == "features":
        from orchard.tasks.image_classification.explain.features import explain_features

        return explain_features(loaded, class_name, units, out)
    if method == "atlas":
        from orchard.tasks.image_classification.explain.atlas import explain_data

        return explain_data(loaded, data, out, say)
    from orchard.tasks.image_classification.explain.images import explain_images

    return explain_images(loaded, items, method, class_name, out, say)


def _check(
    folder: Path, items: Sequence[Any], method: str | None, class_name: str | None, units: Sequence[str], data: Any
) -> None:
    """UsageError for a method or class that there is not, and for what does not go together."""
    if method is not None and method not in METHODS:
        raise unknown("method", method, METHODS)
    classes = read_description(folder).classes
    if class_name is not None and class_name not in classes:
        raise unknown("class", class_name, classes)
    if method in ("features", "atlas"):
        if items:
            raise UsageError(f"{method} takes no images, got {items[0]}; leave it out")
    elif not items:
        raise UsageError("name an image to explain (a file, a folder or a pattern), or --method features or atlas")
    if units and (method != "features" or class_name is not None):
        raise UsageError("units are for --method features without a class; leave out --unit, or the class")
    if (data is not None) != (method == "atlas"):
        expected = "needs data, such as --data photos/" if method == "atlas" else "takes no --data; it is for the atlas"
        raise UsageError(f"{method or 'explaining images'} {expected}")
    if class_name is not None and method == "atlas":
        raise UsageError("the atlas shows all classes at once; leave out the class")
    if class_name is not None and method == "attention-rollout":
        raise UsageError(
            "attention roll-out is the same for every class; leave out the class, or take integrated-gradients"
        )
