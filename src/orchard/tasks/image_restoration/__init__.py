"""Image restoration: an image without the noise or the rain that lies on it."""

from orchard.tasks.record import Image, Task
from orchard.training.metric import Metric

TASK = Task(
    name="image-restoration",
    summary="an image without the noise or the rain that lies on it",
    data="images",
    special_data=("resolutions",),
    takes=(Image("image"),),
    gives=(Image("image"),),
    metric=Metric("psnr", larger_is_better=True),
    evaluation="settings:EvaluationSettings",
    pipeline="pipeline:ImageRestorer",
    answer="answer:answer",
    entries="job:entries",
)
