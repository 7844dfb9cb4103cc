"""Image classification: which of K classes is on an image?"""

from orchard.tasks.record import Classes, Image, Task
from orchard.training.metric import Metric

TASK = Task(
    name="image-classification",
    summary="which of K classes is on an image",
    data="images",
    takes=(Image("image"),),
    gives=(Classes("classes"),),
    metric=Metric("accuracy", larger_is_better=True, percent=True),
    pipeline="pipeline:ImageClassifier",
    answer="answer:answer",
    peers="peers:bench",
    entries="job:entries",
    own_metrics=True,
    pixel_entries="job:pixel_entries",
    explain="explain:explain",
)
