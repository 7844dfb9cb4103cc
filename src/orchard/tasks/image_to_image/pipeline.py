"""A trained translator at work on pictures in files or in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from orchard.errors import OrchardError, UsageError
from orchard.inference.fast import Precision, plain_precision
from orchard.inference.image_files import item_name, read_ahead
from orchard.inference.loading import Loaded
from orchard.models.translation.contract import Direction
from orchard.tasks import base
from orchard.tasks.image_to_image import TASK
from orchard.tasks.image_to_image.filling import Filler
from orchard.tasks.image_to_image.filling_windows import WindowFiller
from orchard.tasks.image_to_image.painting import Painter
from orchard.tasks.image_to_image.translating import Translation, Translator, choose_direction


@dataclass(frozen=True)
class TranslatedPicture:
    """One picture as it was given to the model, what that made of it and where it looked; or why there is nothing."""

    picture: str
    given: Image.Image | None = None
    image: Image.Image | None = None
    heat: Image.Image | None = None
    error: str = ""


class PictureTranslator:
    """Pictures of one side made into the other: `pipeline(RUN)("cat.png")`.

    `direction` is for a model that knows both; `keep_size` translates a picture at its own size, where by default its
    shorter side becomes that of the training. `heat` is for a model that attends: `predict` gives where it looked, over
    what it was given. `precision` "auto" is float32 on a processor, bf16 on a GPU that has it.
    """

    def __init__(
        self, loaded: Loaded, *, direction: str | None = None, keep_size: bool = False, heat: bool = False,
        precision: Precision = "auto",
    ):  # fmt: skip
        """Raises UsageError for a model of another task, for a direction that it did not learn, and for what it cannot
        do."""
        if loaded.task != TASK.name:
            raise UsageError(f"{loaded.folder} is for {loaded.task}; pictures are translated by {TASK.name}")
        model, device = base.on_device(loaded.model)
        self.direction = choose_direction(model, loaded.facts.get("direction", "AtoB"), direction)
        bf16 = plain_precision(precision, device) == "bf16"
        self.translator = make_translator(
            model, self.direction, loaded.facts, keep_size=keep_size, heat=heat, bf16=bf16
        )

    def __call__(self, image: Any, mask: Any = None) -> Image.Image:
        """One image, a path, the bytes of a file, a PIL image, uint8 numpy (H, W) or (H, W, C) or a uint8 tensor
        (C, H, W), translated: mode L or RGB. A model that fills holes takes a `mask` in any of these forms, white where
        there is one. Raises OrchardError for an image that cannot be read or is too small."""
        (found,) = self.predict([image], None if mask is None else [mask])
        if found.image is None:
            raise OrchardError(f"{found.picture}: {found.error}")
        return found.image

    def predict(self, items: Sequence[Any], masks: Sequence[Any] | None = None) -> Iterator[TranslatedPicture]:
        """One answer for each path or image in memory, in order. UsageError for masks that the model does not take."""
        if masks is not None and not self.translator.takes_mask:
            raise UsageError("option 'mask' is for models that fill holes; this one takes pictures alone")
        pairs = list(zip(items, masks or [None] * len(items), strict=True))
        for number, ((pair, pixels),) in enumerate(read_ahead(pairs, 1, lambda pair: self.translator.read(*pair))):
            read, name = pixels.result(), item_name(pair[0], number)
            if isinstance(read, str):
                yield TranslatedPicture(name, error=read)
                continue
            given = self.translator.prepare(read)
            try:
                made = self.translator(given)
                found = made if isinstance(made, Translation) else Translation(made)
                yield TranslatedPicture(name, given, found.image, found.heat)
            except ValueError as error:
                yield TranslatedPicture(name, error=str(error))


def make_translator(
    model: Any, direction: Direction, facts: Mapping[str, Any], *, keep_size: bool, heat: bool, bf16: bool
) -> Translator | Filler | Painter:
    """What brings pictures of any size through a model, by what that offers. UsageError for what it cannot do."""
    if heat and not hasattr(model, "attend"):
        raise UsageError("this model attends to nothing that it could show; leave out the option 'heat'")
    if hasattr(model, "fill"):
        kind = WindowFiller if model.needs_window else Filler
        return kind(model, direction, keep_size=keep_size, bf16=bf16, side=facts.get("side"))
    if hasattr(model, "classes"):
        return Painter(model, direction, keep_size=keep_size, bf16=bf16)
    return Translator(model, direction, keep_size=keep_size, heat=heat, bf16=bf16)
