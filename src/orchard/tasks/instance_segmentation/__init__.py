"""Instance segmentation: which objects are on an image, and which pixels belong to each?"""

from orchard.tasks.record import Field, Image, Task
from orchard.training.metric import Metric

TASK = Task(
    name="instance-segmentation",
    summary="which objects are on an image, and the mask of each",
    data="boxes",
    takes=(Image("image"),),
    gives=(Field("boxes", "boxes"), Field("masks", "masks")),
    metric=Metric("ap", larger_is_better=True, percent=True),
    evaluation="settings:EvaluationSettings",
    pipeline="pipeline:InstanceSegmenter",
    answer="answer:answer",
    entries="job:entries",
    peers="peers:bench",
)
