"""Semantic segmentation: what does every pixel of an image belong to?"""

from orchard.tasks.record import Field, Image, Task
from orchard.training.metric import Metric

TASK = Task(
    name="semantic-segmentation",
    summary="what every pixel of an image belongs to",
    data="masks",
    takes=(Image("image"),),
    gives=(Field("mask", "masks"),),
    metric=Metric("miou", larger_is_better=True, percent=True),
    pipeline="pipeline:Segmenter",
    answer="answer:answer",
    entries="job:entries",
)
