"""Unconditional image generation: images out of noise, like those of a set."""

from orchard.tasks.record import Image, Task
from orchard.training.metric import Metric

TASK = Task(
    name="unconditional-image-generation",
    summary="images out of noise, like those of a set",
    data="images",
    takes=(),
    gives=(Image("image"),),
    metric=Metric("fid", larger_is_better=False),
    evaluation="settings:GenerationSettings",
    evaluation_key="generation",
    pipeline="pipeline:ImageGenerator",
    answer="answer:answer",
    importer="importer:complete",
    entries="job:entries",
)
