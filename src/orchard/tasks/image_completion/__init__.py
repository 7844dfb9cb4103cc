"""Image completion: images pixel by pixel, whole ones or what follows a given part."""

from orchard.tasks.record import Image, Task
from orchard.training.metric import Metric

TASK = Task(
    name="image-completion",
    summary="images pixel by pixel: whole ones, or what follows a given part",
    data="images",
    takes=(Image("image"),),
    gives=(Image("image"),),
    metric=Metric("bits_per_pixel", larger_is_better=False),
    pipeline="pipeline:ImageCompleter",
    answer="answer:answer",
    importer="importer:complete",
    entries="job:entries",
    image_encoder="encoder:image_encoder",
    as_trunk="trunk:as_trunk",
)
