"""Image classification: which of K classes is on an image, or which of them are, or which numbers has it?"""

from orchard.tasks.record import Classes, Image, Task
from orchard.training.metric import Metric

TASK = Task(
    name="image-classification",
    summary="which of K classes is on an image, which of them are (multi-label), or which numbers it has (regression)",
    data="images",
    takes=(Image("image"),),
    gives=(Classes("classes"),),
    metric=Metric("accuracy", larger_is_better=True, percent=True),
    other_metrics=(Metric("map", larger_is_better=True, percent=True), Metric("mae", larger_is_better=False)),
    pipeline="pipeline:ImageClassifier",
    answer="answer:answer",
    evaluation="settings:EvaluationSettings",
    peers="peers:bench",
    entries="job:entries",
    own_metrics=True,
    ensembles=True,
    pixel_entries="job:pixel_entries",
    compress="compress:CompressJob",
    explain="explain:explain",
)
