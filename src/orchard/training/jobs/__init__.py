"""From settings to a training that is ready to go: the job of the model's task."""

from __future__ import annotations

import importlib

import torch

from orchard.cards import card_of
from orchard.models.foreign import is_foreign
from orchard.training.jobs.base import Job
from orchard.training.settings import Resolved

JOBS = {
    "image-classification": "image_classification:ImageClassificationJob",
    "text-generation": "text_generation:TextGenerationJob",
    "image-tokenization": "image_tokenization:ImageTokenizationJob",
    "text-to-image": "text_to_image:TextToImageJob",
    "zero-shot-image-classification": "image_text:ImageTextJob",
}


def prepare(resolved: Resolved, device: torch.device) -> Job:
    """Read the data and build the model. Raises UsageError or OrchardError for all that does not fit."""
    model = resolved.settings.model
    task = "image-classification" if is_foreign(model) else card_of(model).task
    module, _, name = JOBS[task].partition(":")
    job: Job = getattr(importlib.import_module(f"orchard.training.jobs.{module}"), name)(resolved, device)
    return job
