"""Heat maps over images: where in each of them the model's answer comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from orchard.data.contracts import Preprocess
from orchard.data.pictures import plain
from orchard.data.preprocess import kept_box
from orchard.inference.image_files import find_items, item_name, opened_image, read_ahead, read_pixels
from orchard.inference.loading import Loaded
from orchard.inference.png_files import save_picture
from orchard.report.pictures import SMALL, data_uri, lay_heat, lay_signs
from orchard.tasks.image_classification.explain import attributions
from orchard.tasks.image_classification.explain.page import Shown, file_name, with_bar, write_gallery
from orchard.tasks.image_classification.pipeline import ImageClassifier

SIDE, ON_PAGE = 512, 320  # longer side in pixels of a heat map's file, and of it on the page
WORDS = {
    "grad-cam": (
        "Grad-CAM on the last feature map: channels weighted by the gradient of the class's logit. Bright is where "
        "they speak for the class; each image has its own scale."
    ),
    "integrated-gradients": (
        "Integrated gradients from a black image: how much each pixel adds to the class's logit (red) or takes from it "
        "(blue). All pixels together make up the logit's difference from that of the black image."
    ),
    "attention-rollout": (
        "Attention roll-out: how much of each patch reaches the output through the attention of all blocks, whatever "
        "the class. From the least (dark) to the most (bright) of each image."
    ),
}


def explain_images(
    loaded: Loaded,
    items: Sequence[Any],
    method: str | None,
    class_name: str | None,
    out: Path,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """A PNG for each image and a page with all. What cannot be read is named among the answers; Ctrl-C keeps the rest.

    Without a `class_name`, it is the predicted class of each image that is explained.
    """
    found = find_items(list(items))
    classifier = ImageClassifier(loaded)
    if method is None:
        method = attributions.default_method(classifier.model, class_name is not None)
        say(f"{method}: chosen for {loaded.name}; --method names another")
    attributions.require_fit(classifier.model, loaded.name, method)
    rows: list[dict[str, Any]] = []
    shown: list[Shown] = []
    taken: set[str] = set()
    try:
        ahead = read_ahead(found, 1, lambda item: read_pixels(item, loaded.pictures))
        for number, ((item, reading),) in enumerate(with_bar(ahead, f"{method}:", len(found))):
            name, pixels = item_name(item, number), reading.result()
            if isinstance(pixels, str):
                rows.append({"picture": name, "error": pixels})
                continue
            row, page_row, picture = _explain_one(classifier, item, pixels, method, class_name)
            stem = Path(name).stem if isinstance(item, str | Path) else name
            path = out / file_name(f"{stem}-{class_name}" if class_name else stem, taken)
            save_picture(picture, path)
            rows.append({"picture": name, **row, "file": str(path)})
            shown.append(Shown(Path(name).name, *page_row))
    finally:  # Ctrl-C too
        if shown:
            write_gallery(out, f"What {loaded.name} looks at", _lead(class_name), WORDS[method], shown)
    page = str(out / "explain.html") if shown else None
    return {"method": method, "page": page, "explanations": rows}


def _lead(class_name: str | None) -> str:
    return f"What speaks for “{class_name}”." if class_name else "What speaks for the predicted class of each image."


def _explain_one(
    classifier: ImageClassifier, item: Any, pixels: Tensor, method: str, class_name: str | None
) -> tuple[dict[str, Any], tuple[Any, ...], Image.Image]:
    """What is known of one image, what the page has of it, and the heat over it."""
    loaded, model = classifier.loaded, classifier.model
    images = loaded.pictures.normalise(pixels[None].to(classifier.device))
    with torch.no_grad():
        (answers,) = classifier.task.answer(model(images), len(loaded.classes))
    label = class_name or answers[0][0]
    probability = dict(answers)[label]
    targets = torch.tensor([loaded.classes.index(label)], device=classifier.device)
    row: dict[str, Any] = {"class": label, "probability": probability}
    base, note = shown_part(item, pixels, loaded.pictures), f"explained: {label}"
    if method == "integrated-gradients":
        black = loaded.pictures.normalise(torch.zeros_like(pixels[None]).to(classifier.device))
        values, missing = attributions.integrated_gradients(model, images, targets, black)
        picture = lay_signs(base, values[0].sum(0).cpu())
        row |= {"sum": float(values.sum()), "missing": float(missing[0])}
        note += f"; the pixels add up to {row['sum']:.3g}"
    elif method == "grad-cam":
        picture = lay_heat(base, attributions.grad_cam(model, images, targets)[0].cpu())
    else:
        rolled = attributions.attention_rollout(model, images)[0].cpu()
        picture = lay_heat(base, rolled - rolled.min())  # the residuals alone give every patch something
        note = ""
    pictures = (("image", data_uri(base, ON_PAGE)), (method, data_uri(picture, ON_PAGE)))
    return row, (pictures, tuple(answers[:3]), note), picture


def shown_part(item: Any, pixels: Tensor, preprocess: Preprocess) -> Image.Image:
    """The part of an image that the model is given, as sharp as it is stored; the model's own pixels (C, H, W) of a
    letterbox, which has a border that the file lacks."""
    if preprocess.resize == "letterbox":
        grey = pixels.shape[0] == 1
        picture = Image.fromarray((pixels[0] if grey else pixels.permute(1, 2, 0)).numpy()).convert("RGB")
        return _enlarged(picture, (0.0, 0.0, float(picture.width), float(picture.height)))
    with opened_image(item) as stored:
        return _enlarged(plain(stored, 3), kept_box(*stored.size, preprocess))


def _enlarged(picture: Image.Image, box: tuple[float, float, float, float]) -> Image.Image:
    width, height = box[2] - box[0], box[3] - box[1]
    scale = SIDE / max(width, height)
    how = Image.Resampling.NEAREST if max(width, height) <= SMALL else Image.Resampling.LANCZOS
    return picture.resize((max(round(width * scale), 1), max(round(height * scale), 1)), how, box=box)
