"""Do painted pictures show what was asked for, and do they differ?

A painter trained on a named set paints pictures for wordings that its training never saw; a classifier that was trained
apart, on real pictures, says what it sees in them. Diversity is the root mean square difference of pixels, from 0 to 1:
between pictures of one class, and from a picture to the nearest of the training split; beside each, the same of real
test pictures.

    python benchmarks/recognised.py PAINTER CLASSIFIER --data fashion-mnist:FOLDER --language zh --sheet painted.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from orchard.data import DataSettings, open_data
from orchard.data.captions import prompts
from orchard.data.preprocess import fit
from orchard.inference.loading import Loaded, load
from orchard.inference.sampling import Sampling
from orchard.tasks.text_to_image.pipeline import TextToImagePipeline


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("painter", type=Path)
    parser.add_argument("classifier", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--language", default="en")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--clip", type=Path, help="a CLIP that chooses the best of some candidates for each picture")
    parser.add_argument("--candidates", type=int, default=1)
    parser.add_argument("--sheet", type=Path)
    asked = parser.parse_args()
    pipeline = TextToImagePipeline(asked.painter, clip=asked.clip)
    sampling = Sampling(asked.temperature, asked.top_k or pipeline.sampling.top_k)
    wordings = prompts(asked.data.partition(":")[0], asked.language, held_out=True)
    each = -(-asked.count // len(wordings))
    told = list(pipeline.generate([text for text, _ in wordings], count=each * asked.candidates, sampling=sampling))
    groups = [told[first : first + asked.candidates] for first in range(0, len(told), asked.candidates)]
    wanted = torch.tensor([label for _, label in wordings]).repeat_interleave(each)
    pictures = [pipeline.rank(group)[0].picture for group in groups]

    classifier = load(asked.classifier)
    real = open_data(asked.data, DataSettings())
    test, train = real.splits["test"], real.splits["train"]
    said = answers(classifier, pictures)
    test_pictures = [to_pil(test.image(i)) for i in range(min(len(test), 1000))]
    test_labels = torch.from_numpy(test.labels[: len(test_pictures)])
    size = pictures[0].size
    ours, theirs = pixels(pictures, size), pixels(test_pictures, size)
    known = pixels([to_pil(train.image(i)) for i in range(len(train))], size)
    result = {
        "pictures": len(pictures),
        "recognised": float((said == wanted).float().mean()),
        "recognised_of_real_pictures": float((answers(classifier, test_pictures) == test_labels).float().mean()),
        "by_class": {
            name: round(float((said == wanted)[wanted == k].float().mean()), 3) for k, name in enumerate(real.classes)
        },
        "within_a_class": within(ours, wanted),
        "within_a_class_of_real_pictures": within(theirs, test_labels),
        "to_the_nearest_training_picture": nearest(ours, known),
        "to_the_nearest_training_picture_of_real_pictures": nearest(theirs, known),
        "sampling": pipeline.words_of(sampling) + (f", best of {asked.candidates} by CLIP" if asked.clip else ""),
    }
    print(json.dumps(result, indent=2, ensure_ascii=False))
    if asked.sheet:
        sheet(pictures, each, len(wordings)).save(asked.sheet)


def to_pil(image: Tensor) -> Image.Image:
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def answers(classifier: Loaded, pictures: list[Image.Image]) -> Tensor:
    """The most likely class of each picture, (N,) int64."""
    arrays = [torch.from_numpy(fit(picture, classifier.pictures).copy()).permute(2, 0, 1) for picture in pictures]
    with torch.no_grad():
        parts = [classifier.model(classifier.pictures.normalise(torch.stack(arrays[n : n + 256]))).argmax(1)
                 for n in range(0, len(arrays), 256)]  # fmt: skip
    return torch.cat(parts)


def pixels(pictures: list[Image.Image], size: tuple[int, int]) -> Tensor:
    """Grey pixels in [0, 1], (N, H·W)."""
    rows = [
        np.asarray(picture.convert("L").resize(size, Image.Resampling.BILINEAR), np.float32) for picture in pictures
    ]
    return torch.from_numpy(np.stack(rows)).flatten(1) / 255


def within(rows: Tensor, labels: Tensor) -> float:
    """Mean difference of two pictures of a class."""
    means = []
    for label in torch.unique(labels):
        some = rows[labels == label][:200]
        between = torch.cdist(some, some) / rows.shape[1] ** 0.5
        means.append(between.sum() / (len(some) * (len(some) - 1)))
    return float(torch.stack(means).mean())


def nearest(rows: Tensor, known: Tensor) -> float:
    """Mean difference from each row to the nearest of the known ones."""
    parts = [torch.cdist(rows[n : n + 100], known).amin(1) for n in range(0, len(rows), 100)]
    return float(torch.cat(parts).mean()) / rows.shape[1] ** 0.5


def sheet(pictures: list[Image.Image], each: int, rows: int, columns: int = 12) -> Image.Image:
    """The first pictures of every wording, one row for each."""
    width, height = pictures[0].size
    page = Image.new("L", (columns * width, rows * height))
    for row in range(rows):
        for column in range(min(columns, each)):
            page.paste(pictures[row * each + column], (column * width, row * height))
    return page


if __name__ == "__main__":
    main()
