"""Errors of detectors by kind, worked out by hand; four images in one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from orchard.data.boxes.augment import MIDDLE_X, MIDDLE_Y, SHIFTS, mosaic
from orchard.data.boxes.contracts import DetectionRecord, DetectionSplit, Objects
from orchard.data.boxes.loader import BoxLoader
from orchard.data.boxes.object_masks import Masks
from orchard.data.boxes.settings import BoxAugmentSettings
from orchard.data.contracts import Preprocess
from orchard.data.counter_rng import COLUMNS
from orchard.data.sizing import Sizing
from orchard.tasks.object_detection.errors import ImageErrors, Wrong, find_errors
from orchard.tasks.object_detection.objective import Predictions
from orchard.tasks.object_detection.report import by_kind

FLOATS, LABELS = np.float32, np.int64


def objects_of(boxes: list[list[float]], labels: list[int], ignored: tuple[int, ...] = ()) -> Objects:
    which = np.isin(np.arange(len(labels)), ignored)
    return Objects(np.array(boxes, FLOATS).reshape(-1, 4), np.array(labels, LABELS), which)


def errors_of(scores: np.ndarray, labels: np.ndarray, boxes: np.ndarray, objects: Objects) -> ImageErrors:
    """By boxes, of the answers that are likely."""
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= 0.5]
    overlaps = box_iou(torch.from_numpy(boxes[order]), torch.from_numpy(objects.boxes))
    return find_errors(order, labels, overlaps.numpy(), objects)


def test_one_error_of_each_kind() -> None:
    there = [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10], [80, 0, 90, 10]]
    objects = objects_of(there, [0, 1, 0, 0, 1], ignored=(3,))
    answers = [
        (0.30, 1, [80, 0, 90, 10]),  # not confident enough: object 4 is missed
        (0.95, 0, [0, 0, 10, 10]),  # right
        (0.90, 0, [0, 0, 10, 9]),
        (0.85, 0, [20, 0, 30, 10]),
        (0.80, 0, [40, 0, 50, 3]),  # overlaps by 0.3
        (0.75, 1, [0, 0, 10, 4]),  # by 0.4, an object of another class
        (0.70, 0, [90, 90, 99, 99]),
        (0.65, 0, [60, 0, 70, 10]),  # on the ignored object
    ]
    scores, labels, boxes = (np.array(column) for column in zip(*answers, strict=True))
    found = errors_of(scores.astype(FLOATS), labels, boxes.astype(FLOATS), objects)
    assert found.errors == [
        Wrong("duplicate", 2, 0), Wrong("classification", 3, 1), Wrong("localisation", 4, 2), Wrong("both", 5, 0),
        Wrong("background", 6, None), Wrong("missed", None, 4),
    ]  # fmt: skip
    assert found.unmatched == 3 and found.count("both") == 1


def test_the_first_kind_of_several_that_fit_is_taken() -> None:
    """An answer of class 0 that overlaps one of its class by 0.25 and another class's by 0.6; and one that the more
    confident of two has taken, which overlaps another class's as much: the class is wrong before it is a duplicate."""
    objects = objects_of([[0, 0, 10, 2.5], [0, 0, 10, 6]], [0, 1])
    boxes = np.array([[0, 0, 10, 10]], FLOATS)
    (error,) = errors_of(np.array([0.9], FLOATS), np.array([0]), boxes, objects).errors[:1]
    assert error == Wrong("localisation", 0, 0)
    objects = objects_of([[0, 0, 10, 10], [0, 0, 10, 9]], [0, 1])
    two = errors_of(np.array([0.9, 0.8], FLOATS), np.array([0, 0]), np.repeat(boxes, 2, 0), objects)
    assert two.errors == [Wrong("classification", 1, 1)] and two.unmatched == 1


def test_images_without_objects_or_without_answers() -> None:
    nothing, one = objects_of([], []), objects_of([[0, 0, 5, 5]], [1])
    scores, labels, boxes = np.array([0.9], FLOATS), np.array([0]), np.array([[0, 0, 4, 4]], FLOATS)
    assert errors_of(scores, labels, boxes, nothing).errors == [Wrong("background", 0, None)]
    empty = errors_of(scores[:0], labels[:0], boxes[:0], one)
    assert empty.errors == [Wrong("missed", None, 0)] and empty.unmatched == 1


def test_a_report_counts_errors_and_shows_the_most_confident_answers_and_the_largest_objects() -> None:
    """Three images of one object each: two answers of the wrong class, and one object that nobody finds."""
    split, classes = Plain(), [str(n) for n in range(8)]
    scores = torch.tensor([[0.6, 0.1], [0.9, -1.0], [0.2, -1.0]])
    labels, boxes = torch.tensor([[1, 1], [0, 0], [2, 2]]), torch.tensor([0.0, 0, 30, 24]).expand(3, 2, 4)
    predictions = Predictions(scores, labels, boxes, torch.zeros(3), torch.tensor([0, 1, 6]))
    errors = [
        errors_of(scores[n].numpy(), labels[n].numpy(), boxes[n].numpy(), split.objects(index))
        for n, index in enumerate((0, 1, 6))
    ]
    kinds = {one.name: one for one in by_kind(predictions, split, classes, errors)}
    assert {name: one.count for name, one in kinds.items() if one.count} == {"classification": 2, "missed": 1}
    assert kinds["classification"].share == 1 and kinds["missed"].share == 0.5
    assert [key for key, _ in kinds["classification"].worst] == ["1", "0"]  # the more confident first
    assert kinds["missed"].worst[0][0] == "6" and kinds["missed"].worst[0][1].startswith("data:image/")


# Mosaic


def plain(value: int, height: int, width: int) -> Tensor:
    return torch.full((3, height, width), value, dtype=torch.uint8)


def filled(boxes: np.ndarray, height: int, width: int) -> Tensor:
    """A mask for each box with all its pixels."""
    dense = torch.zeros(len(boxes), height, width, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(dense, boxes.astype(int).tolist(), strict=True):
        mask[top:bottom, left:right] = True
    return dense


def test_four_images_meet_at_a_point_and_boxes_are_cut() -> None:
    """The point is in the middle of 20 x 16 pixels. The second image is as wide as two of its quarter: shifted by
    nothing, its right half is out; the third is half as large and is doubled; the fourth has nothing."""
    numbers = np.zeros(COLUMNS)
    numbers[[MIDDLE_X, MIDDLE_Y]] = 0.5
    pieces = [
        (plain(1, 16, 20), objects_of([[0, 0, 20, 16], [18, 14, 20, 16]], [0, 5])),  # the other is 1 x 1 when halved
        (plain(2, 8, 20), objects_of([[2, 2, 8, 6], [8, 0, 20, 8], [9, 0, 20, 8], [10, 0, 12, 8]], [1, 2, 3, 4])),
        (plain(3, 4, 5), objects_of([[1, 1, 3, 4]], [6], ignored=(0,))),
        (plain(4, 16, 20), objects_of([], [])),
    ]
    image, found = mosaic(pieces, numbers)
    assert image.shape == (3, 16, 20)
    assert [image[:, y, x].tolist() for y, x in ((7, 9), (7, 10), (8, 9), (8, 10))] == [[n] * 3 for n in (1, 2, 3, 4)]
    # Of the second's boxes one keeps 2 of 12 pixels across, one only one pixel, and one is gone.
    assert found.labels.tolist() == [0, 1, 2, 6] and found.ignored.tolist() == [False, False, False, True]
    assert found.boxes.tolist() == [[0, 0, 10, 8], [12, 2, 18, 6], [18, 0, 20, 8], [2, 10, 6, 16]]
    masked = [
        (image, replace(objects, masks=Masks.of(filled(objects.boxes, *image.shape[1:])))) for image, objects in pieces
    ]
    masks = mosaic(masked, numbers)[1].masks
    assert masks is not None and torch.equal(masks.dense(), filled(found.boxes, 16, 20))
    numbers[SHIFTS] = 0.999
    assert mosaic(pieces, numbers)[1].labels.tolist() == [0, 2, 3, 4, 6]  # now the second's left half is out


class Plain(DetectionSplit):
    """Eight images of one value and one box each."""

    def __len__(self) -> int:
        return 8

    def record(self, index: int) -> DetectionRecord:
        return DetectionRecord(plain(20 * index, 24, 30 + index), self.objects(index), self.key(index))

    def objects(self, index: int) -> Objects:
        return objects_of([[0, 0, 30 + index, 24]], [index])

    def key(self, index: int) -> str:
        return str(index)


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_mosaics_are_pure_functions_of_the_index(chance: float) -> None:
    preprocess = Preprocess(size=(24, 30), channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)

    def batches(batch_size: int, workers: int, **settings: float) -> list[tuple[int, Tensor, Tensor]]:
        loader = BoxLoader(
            Plain(), preprocess, Sizing(24, 64), BoxAugmentSettings(**settings), batch_size=batch_size, seed=3,
            workers=workers,
        )  # fmt: skip
        return sorted(
            (
                (int(index), image[:, : 24, : 30], labels)
                for batch in loader.batches(1)
                for index, image, labels in zip(batch.indices, batch.images.values, batch.labels.rows(), strict=True)
            ),
            key=lambda row: row[0],
        )  # fmt: skip

    one, other = batches(4, 0, mosaic=chance), batches(2, 1, mosaic=chance)
    assert all(torch.equal(a[1], b[1]) and torch.equal(a[2], b[2]) for a, b in zip(one, other, strict=True))
    several = sum(len(labels) == 4 for _, _, labels in one)
    assert several == (8 if chance else 0)
    if not chance:  # as without the setting
        before = batches(4, 0)
        assert all(torch.equal(a[1], b[1]) for a, b in zip(one, before, strict=True))
