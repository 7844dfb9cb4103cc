"""From a picture of any size to the pixels a model is given, the same for training, evaluation and prediction."""

from __future__ import annotations

import dataclasses
from itertools import islice

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from orchard.data.contracts import ImageData, ImageSplit, Preprocess
from orchard.data.pictures import plain
from orchard.data.settings import PreprocessSettings
from orchard.errors import UsageError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, what PIL's conversion to grey uses
DRAFT_SPARE = 2.0  # of a JPEG that is decoded smaller than it is, at least so many times the pixels wanted on each side
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels of the picture


def default_preprocess(data: ImageData, image_size: int | tuple[int, int], channels: int) -> Preprocess:
    """The preprocessing for a model that eats `channels` (1 or 3) at `image_size` (height, width; or one for both).

    Mean and standard deviation: of a set in memory (digits, mnist, cifar10, ...), measured on its training split;
    of RGB files, ImageNet's; of grey files, measured on 256 training pictures. Small pictures are resized as a whole,
    others so that the shorter side is the model's side / 0.875, of which the middle is kept.
    """
    from orchard.data.splits import ArraySplit  # here, as it needs torch

    size = (image_size, image_size) if isinstance(image_size, int) else (image_size[0], image_size[1])
    train = data.splits["train"]
    if isinstance(train, ArraySplit) or data.channels == 1:
        mean, std = _measure(train)
    else:
        mean, std = IMAGENET_MEAN, IMAGENET_STD
    if len(mean) == 1 and channels == 3:
        mean, std = mean * 3, std * 3
    elif len(mean) == 3 and channels == 1:
        # Of the three channels' deviations the weighted mean is an upper bound, close where colours are pale.
        mean, std = (float(np.dot(LUMA, mean)),), (float(np.dot(LUMA, std)),)
    small = train.small
    return Preprocess(size, channels, mean, std, 1.0 if small else 0.875, "stretch" if small else "shorter-side")


def with_settings(preprocess: Preprocess, settings: PreprocessSettings) -> Preprocess:
    """The same with what a person has set. UsageError for as many values of mean or std as there are no channels."""
    given = settings.model_dump(exclude_none=True)
    for key in ("mean", "std"):
        if key in given and len(given[key]) not in (1, preprocess.channels):
            expected = "one value" if preprocess.channels == 1 else f"one value or {preprocess.channels}"
            raise UsageError(f"setting 'preprocessing.{key}': expected {expected}, got {len(given[key])}")
        if key in given and len(given[key]) == 1:
            given[key] *= preprocess.channels
    if given.get("resize", preprocess.resize) not in ("shorter-side", preprocess.resize):
        given.setdefault("crop", 1.0)  # a share that was meant for the shorter side
    return dataclasses.replace(preprocess, **given)


def _measure(split: ImageSplit) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel in [0, 1], over the whole split if it is in memory."""
    from orchard.data.splits import ArraySplit

    if isinstance(split, ArraySplit):
        pictures = iter(split.pictures.numpy())
    else:
        pictures = (split.image(int(i)).numpy() for i in np.unique(np.linspace(0, len(split) - 1, 256).astype(int)))
    count, total, squares = 0, np.zeros(1), np.zeros(1)
    while chunk := list(islice(pictures, 256)):
        for shape in {picture.shape for picture in chunk}:
            levels = np.stack([picture for picture in chunk if picture.shape == shape]).astype(np.float64) / 255
            count += levels.size // levels.shape[1]
            total = total + levels.sum((0, 2, 3))  # of as many channels as there are
            squares = squares + np.square(levels).sum((0, 2, 3))
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1e-6))  # a set of one colour has none
    return tuple(mean.round(4).tolist()), tuple(std.round(4).tolist())


def kept_box(width: int, height: int, preprocess: Preprocess) -> Box:
    """The part of a picture that evaluation keeps, in the picture's pixels."""
    if preprocess.resize != "shorter-side":
        box_w, box_h = width * preprocess.crop, height * preprocess.crop
    else:
        rows, columns = preprocess.size
        pixel = min(height / rows, width / columns) * preprocess.crop  # side of one pixel of the result
        box_w, box_h = columns * pixel, rows * pixel
    left, top = (width - box_w) / 2, (height - box_h) / 2
    return max(left, 0.0), max(top, 0.0), min(left + box_w, width), min(top + box_h, height)


def cut(picture: Image.Image, box: Box, preprocess: Preprocess, spare: float = DRAFT_SPARE) -> np.ndarray:
    """The pixels in `box`, resized and with the right channels: (H, W, C) uint8.

    A JPEG much larger than needed is scaled down by 2, 4 or 8 while it is decoded, as long as `spare` times the
    pixels that are asked for remain on each side.
    """
    rows, columns = preprocess.size
    if isinstance(picture, JpegImageFile):
        width, height = picture.size
        share = spare * max(columns / (box[2] - box[0]), rows / (box[3] - box[1]))
        wanted = (int(width * share) + 1, int(height * share) + 1)
        drafted = picture.draft("L" if preprocess.channels == 1 else "RGB", wanted) if share < 1 else None
        if drafted:
            shrunk = drafted[1][2] / width  # the box that `draft` gives is the whole picture in the new pixels
            box = (box[0] * shrunk, box[1] * shrunk, box[2] * shrunk, box[3] * shrunk)
    picture = plain(picture, preprocess.channels)
    if box != (0, 0, columns, rows) or picture.size != (columns, rows):
        picture = picture.resize((columns, rows), Image.Resampling[preprocess.interpolation.upper()], box=box)
    pixels = np.asarray(picture)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def fit(picture: Image.Image, preprocess: Preprocess) -> np.ndarray:
    """A picture as evaluation and prediction see it: (H, W, C) uint8."""
    box = kept_box(*picture.size, preprocess)
    if preprocess.resize != "letterbox":
        return cut(picture, box, preprocess)
    top, left, rows, columns = letterbox(box, preprocess.size)
    pixels = np.empty((*preprocess.size, preprocess.channels), np.uint8)
    pixels[:] = preprocess.fill
    inner = dataclasses.replace(preprocess, size=(rows, columns))
    pixels[top : top + rows, left : left + columns] = cut(picture, box, inner)
    return pixels


def letterbox(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Where `box` of a picture stands in `size` (rows, columns): top, left, rows, columns, in whole pixels."""
    across, down = box[2] - box[0], box[3] - box[1]
    scale = min(size[0] / down, size[1] / across)
    rows, columns = max(round(down * scale), 1), max(round(across * scale), 1)
    return (size[0] - rows) // 2, (size[1] - columns) // 2, rows, columns
