"""What a painter makes of captions that it never saw, beside the real pictures, and whether a CLIP tells them apart.

For every caption of a split some pictures are painted, and a CLIP trained on the same pairs puts the best first. Said
is how often the caption that a picture was painted for is among the 1, 5 and 10 (of all captions of the split)
that fit it best, for the first candidate and for the best of all; the same of the real pictures, and of those after the
tokenizer took them to codes and back; and how far painted pictures are from the nearest training picture (root mean
square of pixels, 0 to 1). The mosaic has a row for a caption: the real picture, that picture through codes, and the
painted ones.

    python benchmarks/held_out.py PAINTER --clip CLIP --data 'emoji_en.*.tsv' --mosaic emoji.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from recognised import nearest, pixels
from torch import Tensor

from orchard.data.captions import CaptionSettings, CaptionSplit, open_captions
from orchard.data.preprocess import fit
from orchard.inference.sampling import Sampling
from orchard.tasks.text_to_image.pipeline import TextToImagePipeline
from orchard.tasks.zero_shot_image_classification.matcher import Matcher

GAP, WORDS = 4, 190  # pixels between pictures, and for the caption of a row
AMONG = (1, 5, 10)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("painter", type=Path)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--count", type=int, default=8, help="candidates for each caption")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--mosaic", type=Path)
    parser.add_argument("--rows", type=int, default=16, help="captions in the mosaic")
    asked = parser.parse_args()
    pipeline = TextToImagePipeline(asked.painter, clip=asked.clip)
    assert pipeline.matcher is not None
    splits = open_captions(asked.data, CaptionSettings()).splits
    captions = [splits[asked.split].text(n) for n in range(len(splits[asked.split]))]
    real = pictures_of(splits[asked.split], pipeline)
    images = pipeline.tokenizer.preprocess.normalise(torch.stack([tensor_of(one) for one in real]))
    through = [pipeline.tokenizer.draw(codes) for codes in pipeline.tokenizer.encode(images)]
    sampling = Sampling(asked.temperature, asked.top_k or pipeline.sampling.top_k)
    told = list(pipeline.generate(captions, count=asked.count, sampling=sampling))
    groups = [told[first : first + asked.count] for first in range(0, len(told), asked.count)]
    first = [group[0].picture for group in groups]
    ranked = [[one.picture for one in pipeline.rank(group)] for group in groups]
    best = [group[0] for group in ranked]
    size = real[0].size
    known = pixels(pictures_of(splits["train"], pipeline), size)
    found = {
        "captions": len(captions),
        **{
            f"caption_found_{what}": recalls(pipeline.matcher, some, captions)
            for what, some in {"real": real, "through_codes": through, "painted": first, "best": best}.items()
        },
        "to_the_nearest_training_picture": nearest(pixels(first, size), known),
        "to_the_nearest_training_picture_of_real_pictures": nearest(pixels(real, size), known),
        "sampling": pipeline.words_of(sampling),
    }
    print(json.dumps(found, indent=2))
    if asked.mosaic:
        places = np.linspace(0, len(captions) - 1, min(asked.rows, len(captions))).astype(int)
        mosaic([(captions[n], [real[n], through[n], *ranked[n][:4]]) for n in places]).save(asked.mosaic)


def pictures_of(split: CaptionSplit, pipeline: TextToImagePipeline) -> list[Image.Image]:
    """The pictures of a split, as the tokenizer sees them."""
    found = []
    for number in range(len(split)):
        with split.open(number) as picture:
            array = fit(picture, pipeline.tokenizer.preprocess)
            found.append(Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array))
    return found


def tensor_of(picture: Image.Image) -> Tensor:
    """(C, H, W) uint8."""
    array = torch.from_numpy(np.array(picture))
    return array[None] if array.ndim == 2 else array.permute(2, 0, 1)


def recalls(matcher: Matcher, pictures: list[Image.Image], captions: list[str]) -> dict[str, float]:
    """How often a picture's own caption, or one of the same words, is among the best so many."""
    seen = matcher.image_features(torch.stack([tensor_of(picture) for picture in pictures]))
    order = (seen @ matcher.text_features(captions).T).argsort(dim=1, descending=True, stable=True).tolist()
    ranks = [
        next(rank for rank, place in enumerate(row) if captions[place] == captions[number])
        for number, row in enumerate(order)
    ]
    return {f"among_{best}": round(sum(rank < best for rank in ranks) / len(ranks), 3) for best in AMONG}


def mosaic(rows: list[tuple[str, list[Image.Image]]], columns: int = 2) -> Image.Image:
    """Rows of a caption and its pictures, in so many columns."""
    width, height = (side + GAP for side in rows[0][1][0].size)
    across, deep = WORDS + len(rows[0][1]) * width, -(-len(rows) // columns)
    page = Image.new("RGB", (columns * across, deep * height), "white")
    draw = ImageDraw.Draw(page)
    for number, (caption, pictures) in enumerate(rows):
        left, top = number // deep * across, number % deep * height
        draw.text((left + GAP, top + height // 2 - 6), caption[: WORDS // 6], fill="black")
        for place, picture in enumerate(pictures):
            page.paste(picture, (left + WORDS + place * width, top))
    return page


if __name__ == "__main__":
    main()
