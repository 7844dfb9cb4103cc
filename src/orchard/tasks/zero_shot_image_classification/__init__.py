"""Zero-shot image classification: which sentence belongs to an image, and which image to a sentence?"""

from orchard.tasks.record import Classes, Image, Task
from orchard.training.metric import Metric

TASK = Task(
    name="zero-shot-image-classification",
    summary="which of some labels, given in words, fits an image; search among images",
    data="captions",
    takes=(Image("image"),),
    gives=(Classes("classes"),),
    metric=Metric("mean_reciprocal_rank", larger_is_better=True),
    pipeline="pipeline:classifier",
    answer="answer:answer",
    importer="importer:complete",
    entries="job:entries",
    whole_batch=True,
)
