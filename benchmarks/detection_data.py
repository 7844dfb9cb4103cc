"""Images with boxes for training, and COCO's evaluation: ours beside torchvision's pipeline and plain pycocotools.

Training data: JPEGs with a COCO file, made here; decoded, mirrored, resized to one of DETR's shorter sides, normalised
and padded into batches. The reference is torchvision's: CocoDetection as tv_tensors, transforms.v2, DataLoader with as
many workers. Evaluation: the same detections of N images without pixels, by our metrics and by pycocotools alone, as
its own demo calls it; the figures must be equal.

    python benchmarks/detection_data.py [--count 256] [--workers 2] [--evaluated 2000]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.ops import box_convert
from torchvision.transforms import v2

from orchard.data import DataSettings, Preprocess
from orchard.data.boxes.contracts import DetectionRecord, DetectionSplit, Objects
from orchard.data.boxes.loader import BoxLoader
from orchard.data.boxes.settings import BoxAugmentSettings
from orchard.data.boxes.sources import open_boxes
from orchard.data.sizing import Sizing, pad
from orchard.inference.hardware import hardware
from orchard.tasks.object_detection.metrics import evaluate_boxes
from orchard.tasks.object_detection.objective import Predictions

BATCH, ROUNDS, CLASSES = 4, 3, 20
SIDES, LONGEST = tuple(range(480, 801, 32)), 1333
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FIGURES = (  # in COCO's order
    "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
    "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip


def random_boxes(chance: np.random.Generator, count: int, width: int, height: int) -> np.ndarray:
    """(count, 4) float32, left, top, right, bottom, inside of an image."""
    sides = chance.uniform(0.05, 0.5, (count, 2)) * (width, height)
    corner = chance.uniform(0, 1, (count, 2)) * ((width, height) - sides)
    return np.concatenate([corner, corner + sides], 1).astype(np.float32)


def coco_file(all_objects: list[tuple[np.ndarray, np.ndarray]], width: int, height: int) -> dict[str, Any]:
    """COCO's form of boxes and labels (places in the classes) of images of one size."""
    annotations = [
        {
            "id": 0, "image_id": n + 1, "category_id": int(label) + 1, "iscrowd": 0,
            "bbox": [float(x) for x in (*box[:2], *(box[2:] - box[:2]))], "area": float((box[2:] - box[:2]).prod()),
        }
        for n, (boxes, labels) in enumerate(all_objects)
        for box, label in zip(boxes, labels, strict=True)
    ]  # fmt: skip
    for n, annotation in enumerate(annotations):
        annotation["id"] = n + 1
    images = [
        {"id": n + 1, "file_name": f"{n:05}.jpg", "width": width, "height": height} for n in range(len(all_objects))
    ]
    categories = [{"id": n + 1, "name": f"class {n:02}"} for n in range(CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def make_data(folder: Path, count: int, width: int, height: int) -> tuple[Path, Path]:
    """The images and the COCO file of photograph-like JPEGs, seven objects on each."""
    chance = np.random.default_rng(0)
    (folder / "train").mkdir()
    found = []
    for n in range(count):
        coarse = chance.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        image = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
        image = np.clip(image + chance.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
        Image.fromarray(image).save(folder / "train" / f"{n:05}.jpg", quality=88)
        found.append((random_boxes(chance, 7, width, height), chance.integers(0, CLASSES, 7)))
    (folder / "annotations").mkdir()
    path = folder / "annotations" / "instances_train.json"
    path.write_text(json.dumps(coco_file(found, width, height)))
    return folder / "train", path


def collate(samples: list[tuple[Tensor, dict[str, Any]]]) -> tuple[Tensor, list[dict[str, Any]]]:
    """Padded to the largest, as the transform inside of torchvision's detectors does it."""
    images, targets = zip(*samples, strict=True)
    return pad(list(images)).values, list(targets)


def compare_loading(count: int, workers: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images, annotations = make_data(folder, count, 640, 480)
        split = open_boxes(name, DataSettings(validation_fraction=0.01)).splits["train"]
        preprocess = Preprocess((800, 1066), 3, MEAN, STD)
        transform = v2.Compose([
            v2.RandomHorizontalFlip(), v2.RandomShortestSize(list(SIDES), LONGEST), v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD), v2.SanitizeBoundingBoxes(),
        ])  # fmt: skip
        theirs_data = wrap_dataset_for_transforms_v2(
            CocoDetection(str(images), str(annotations), transforms=transform), target_keys=("boxes", "labels")
        )

        def ours() -> Iterator[int]:
            augment, sizing = BoxAugmentSettings(flip=True, sides=SIDES), Sizing(800, LONGEST)
            loader = BoxLoader(split, preprocess, sizing, augment, batch_size=BATCH, seed=0, workers=workers)
            return (len(batch) for batch in loader.batches(0))

        def theirs() -> Iterator[int]:
            loader = DataLoader(
                theirs_data, BATCH, shuffle=True, drop_last=True, num_workers=workers, collate_fn=collate
            )
            return (len(batch) for batch, _ in loader)

        seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
        for _ in range(ROUNDS):
            for side, start in (("ours", ours), ("theirs", theirs)):
                counts = start()
                next(counts)  # the workers have started
                began = time.perf_counter()
                seen = sum(counts)
                seconds[side].append((time.perf_counter() - began) / seen)
                del counts
    print_rates(seconds, workers)


def print_rates(seconds: dict[str, list[float]], workers: int) -> None:
    rates = {side: 1 / statistics.median(values) for side, values in seconds.items()}
    ratio = statistics.median(b / a for a, b in zip(seconds["ours"], seconds["theirs"], strict=True))
    print(
        f"loading 640x480, {workers} workers: ours {rates['ours']:.1f}, torchvision's {rates['theirs']:.1f} images/s, "
        f"ratio {ratio:.2f}"
    )


class Known(DetectionSplit):
    """Objects of images that nobody looks at."""

    def __init__(self, objects: list[Objects]):
        self.all = objects

    def __len__(self) -> int:
        return len(self.all)

    def record(self, index: int) -> DetectionRecord:
        return DetectionRecord(torch.zeros(3, 480, 640, dtype=torch.uint8), self.all[index], self.key(index))

    def objects(self, index: int) -> Objects:
        return self.all[index]

    def key(self, index: int) -> str:
        return str(index)


def made_up(count: int) -> tuple[Known, Predictions]:
    """Seven objects on each image, and a hundred detections: each object a few times nearby, and what is not there."""
    chance = np.random.default_rng(0)
    objects, boxes, labels = [], [], []
    for _ in range(count):
        real = random_boxes(chance, 7, 640, 480)
        names = chance.integers(0, CLASSES, 7)
        objects.append(Objects(real, names, np.zeros(7, bool)))
        near = np.repeat(real, 4, 0) + chance.normal(0, 8, (28, 4)).astype(np.float32)
        near = np.concatenate([np.minimum(near[:, :2], near[:, 2:] - 1), near[:, 2:]], 1)
        boxes.append(np.concatenate([near, random_boxes(chance, 72, 640, 480)]))
        labels.append(np.concatenate([np.repeat(names, 4), chance.integers(0, CLASSES, 72)]))
    found = Predictions(
        scores=torch.from_numpy(chance.uniform(0, 1, (count, 100)).astype(np.float32)),
        labels=torch.from_numpy(np.stack(labels)), boxes=torch.from_numpy(np.stack(boxes)),
        losses=torch.zeros(count), indices=torch.arange(count),
    )  # fmt: skip
    return Known(objects), found


def plain_coco(truth: Known, said: Predictions) -> list[float]:
    """COCO's twelve figures, by pycocotools alone."""
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = coco_file([(one.boxes, one.labels) for one in truth.all], 640, 480)
        known.createIndex()
        boxes = box_convert(said.boxes, "xyxy", "xywh").tolist()
        rows = [
            {"image_id": n + 1, "category_id": label + 1, "bbox": box, "score": score}
            for n, columns in enumerate(zip(said.labels.tolist(), boxes, said.scores.tolist(), strict=True))
            for label, box, score in zip(*columns, strict=True)
        ]
        evaluation = COCOeval(known, known.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    figures: list[float] = evaluation.stats.tolist()
    return figures


def compare_evaluation(count: int) -> None:
    truth, said = made_up(count)
    classes = [f"class {n:02}" for n in range(CLASSES)]
    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: evaluate_boxes(said, truth, classes).figures, "plain": lambda: plain_coco(truth, said),
    }  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    found: dict[str, Any] = {}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            began = time.perf_counter()
            found[name] = call()
            seconds[name].append(time.perf_counter() - began)
    for name, theirs in zip(FIGURES, found["plain"], strict=True):
        ours = found["ours"].get(name, -1.0)  # sizes without objects are left out
        if abs(ours - theirs) > 1e-6:
            raise SystemExit(f"{name} is {ours} by ours and {theirs} by pycocotools; nothing is reported")
    ours_s, plain_s = (statistics.median(seconds[name]) for name in ("ours", "plain"))
    print(
        f"evaluating {count:,} images, {100 * count:,} detections: ours {ours_s:.1f} s, pycocotools alone "
        f"{plain_s:.1f} s, ratio {plain_s / ours_s:.2f}; AP {found['ours']['ap']:.4f} by both"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--evaluated", type=int, default=2000)
    options = parser.parse_args()
    compare_evaluation(options.evaluated)
    compare_loading(options.count, options.workers)
    print(hardware())


if __name__ == "__main__":
    main()
