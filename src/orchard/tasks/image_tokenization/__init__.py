"""Image tokenization: images as grids of codes, and back."""

from orchard.tasks.record import Field, Image, Task
from orchard.training.metric import Metric

TASK = Task(
    name="image-tokenization",
    summary="images as grids of codes, and back",
    data="images",
    takes=(Image("image"),),
    gives=(Field("codes", "table"),),
    metric=Metric("psnr", larger_is_better=True),
    peers="peers:bench",
    entries="job:entries",
)
