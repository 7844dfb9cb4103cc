"""`evaluate`: a trained model on any data of the same classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from orchard.data import Loader, open_data
from orchard.data.contracts import DataSettings
from orchard.errors import OrchardError, UsageError
from orchard.inference.loading import load
from orchard.tasks.image_classification import ImageClassification, Predictions, predict_split


def evaluate(run: Path, source: str, split: str, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Figures of the model of `run` on one split of `source`.

    `settings` are those of the data, such as {"bad_records": "skip"}. The data's classes must be among the
    model's, by name. Raises OrchardError with the first that is not.
    """
    loaded = load(run)
    try:
        data_settings = DataSettings.model_validate({k.removeprefix("data."): v for k, v in (settings or {}).items()})
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"setting 'data.{'.'.join(map(str, first['loc']))}': {first['msg']}") from None
    data = open_data(source, data_settings)
    if split not in data.splits:
        raise UsageError(f"{source} has no {split} split; it has {', '.join(data.splits)}")
    strange = [name for name in data.classes if name not in loaded.classes]
    if strange:
        raise OrchardError(
            f"the model of {run} does not know the class '{strange[0]}' of {source}; it was not trained on it"
        )
    place = torch.tensor([loaded.classes.index(name) for name in data.classes])
    loader = Loader(data.splits[split], loaded.pictures, None, batch_size=64, seed=0, workers=data_settings.workers)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = loaded.model.to(device).eval()
    said = predict_split(model, (batch.to(device) for batch in loader.batches(0)))
    said = Predictions(said.logits, place[said.labels], said.indices)
    figures = ImageClassification(loaded.classes).score(said)
    return {"model": loaded.name, "data": data.name, "source": source, "pictures": len(said.labels), split: figures}
