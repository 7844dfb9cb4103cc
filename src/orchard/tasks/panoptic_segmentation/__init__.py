"""Panoptic segmentation: which thing or stuff does every pixel of an image belong to?"""

from orchard.tasks.record import Field, Image, Task
from orchard.training.metric import Metric

TASK = Task(
    name="panoptic-segmentation",
    summary="which thing or stuff every pixel of an image belongs to",
    data="panoptic",
    takes=(Image("image"),),
    gives=(Field("segments", "masks"),),
    metric=Metric("pq", larger_is_better=True, percent=True),
    evaluation="settings:EvaluationSettings",
    pipeline="pipeline:PanopticSegmenter",
    answer="answer:answer",
    entries="job:entries",
)
