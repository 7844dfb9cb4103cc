"""How well pixels are classified: IoU and accuracies out of one confusion matrix, and the F1 of boundaries.

Boundary F1 (Csurka et al. 2013, "What is a good evaluation measure for semantic segmentation?"): for each class that an
image has, the share of predicted boundary pixels with a true one of the class within a tolerance (precision), and of
true ones with a predicted one (recall); F1 of the two, averaged over the classes of an image and then over the images.
The tolerance is 0.75 % of the image's diagonal, as theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from orchard.data.masks.contracts import IGNORED

TOLERANCE = 0.0075  # of the diagonal


def confusion(truth: Tensor, said: Tensor, classes: int) -> Tensor:
    """Pixels of each pair of classes, (K, K) int64: rows are the truth, columns what was said; without ignored ones."""
    kept = truth != IGNORED
    pairs = truth[kept].long() * classes + said[kept].long()
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def iou_of(matrix: Tensor) -> Tensor:
    """Intersection over union of each class, (K,) float64; not a number where a class is neither true nor said."""
    right = matrix.diagonal().double()
    return right / (matrix.sum(0) + matrix.sum(1) - matrix.diagonal())


def figures_of(matrix: Tensor) -> dict[str, float]:
    """mIoU over the classes that are true or said, accuracy of all pixels, and its mean over the true classes."""
    right = matrix.diagonal().double()
    return {
        "miou": float(iou_of(matrix).nanmean()),
        "pixel_accuracy": float(right.sum() / matrix.sum().clamp(min=1)),
        "mean_accuracy": float((right / matrix.sum(1)).nanmean()),
    }


def class_figures(matrix: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """IoU by class, as `iou_NAME`, of those that are true or said."""
    pairs = zip(classes, iou_of(matrix).tolist(), strict=True)
    return {f"iou_{name}": value for name, value in pairs if value == value}


def boundary_f1(truth: np.ndarray, said: np.ndarray) -> float:
    """Boundary F1 of one image, of masks (H, W) uint8; not a number where no class has a boundary.

    A boundary pixel has one of another class above, below or beside it. Where the truth is ignored there are none,
    neither true nor said, and none beside it.
    """
    reach = TOLERANCE * float(np.hypot(*truth.shape))
    ignored = truth == IGNORED
    real, found = (_boundaries(mask, ignored) for mask in (truth, said))
    scores = []
    for number, points in real.items():
        others = found.get(number)
        if others is None:
            scores.append(0.0)
            continue
        precision, recall = _near(others, points, reach), _near(points, others, reach)
        scores.append(2 * precision * recall / max(precision + recall, 1e-12))
    return float(np.mean(scores)) if scores else float("nan")


def _boundaries(mask: np.ndarray, ignored: np.ndarray) -> dict[int, np.ndarray]:
    """The boundary pixels of each class that has some, (N, 2) rows and columns."""
    edge = np.zeros(mask.shape, bool)
    before, after = slice(None, -1), slice(1, None)
    for one, other in (((before,), (after,)), ((slice(None), before), (slice(None), after))):
        differ = (mask[one] != mask[other]) & ~ignored[one] & ~ignored[other]
        edge[one] |= differ
        edge[other] |= differ
    points, classes = np.argwhere(edge), mask[edge]
    return {int(number): points[classes == number] for number in np.unique(classes)}


def _near(points: np.ndarray, others: np.ndarray, reach: float) -> float:
    """The share of these points with another within reach."""
    distances, _ = KDTree(others).query(points, distance_upper_bound=reach * (1 + 1e-9))
    return float(np.isfinite(distances).mean())
