"""Object detection: which objects are on an image, and where?"""

from orchard.tasks.record import Field, Image, Task
from orchard.training.metric import Metric

TASK = Task(
    name="object-detection",
    summary="which objects are on an image, and a box around each",
    data="boxes",
    takes=(Image("image"),),
    gives=(Field("boxes", "boxes"),),
    metric=Metric("ap", larger_is_better=True, percent=True),
    evaluation="settings:EvaluationSettings",
    pipeline="pipeline:ObjectDetector",
    answer="answer:answer",
    entries="job:entries",
    peers="peers:bench",
)
