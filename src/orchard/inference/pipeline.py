"""A trained model ready for its task, whatever that is."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from orchard.errors import UsageError, unknown
from orchard.inference.loading import load

PIPELINES = {
    "image-classification": "predicting:Predictor",
    "zero-shot-image-classification": "zero_shot:predictor",
    "text-generation": "writing:Writer",
    "text-to-image": "painting:PaintingPipeline",
}


def pipeline(task_or_run: str | Path, model: str | Path | None = None, **options: Any) -> Any:
    """What answers for a run or a model's folder: `pipeline(RUN)` or `pipeline("text-to-image", RUN)`.

    A Predictor, a Writer or a PaintingPipeline, by the model's task; `options` are those of its class, and for a CLIP
    `labels`, the classes to choose from. Raises UsageError for a task nobody knows and for a model of another one.
    """
    task = None if model is None else str(task_or_run)
    if task is not None and task not in PIPELINES:
        raise unknown("task", task, PIPELINES)
    loaded = load(task_or_run if model is None else model)
    if task is not None and loaded.task != task:
        raise UsageError(f"{loaded.folder} is for {loaded.task}, not for {task}")
    if loaded.task not in PIPELINES:
        raise UsageError(f"{loaded.folder} is for {loaded.task}; pipelines are for {', '.join(PIPELINES)}")
    module, _, name = PIPELINES[loaded.task].partition(":")
    return getattr(importlib.import_module(f"orchard.inference.{module}"), name)(loaded, **options)
