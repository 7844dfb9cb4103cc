"""Super-resolution: an image at several times its height and width."""

from orchard.tasks.record import Image, Task
from orchard.training.metric import Metric

TASK = Task(
    name="super-resolution",
    summary="an image at several times its height and width",
    data="images",
    special_data=("resolutions",),
    takes=(Image("image"),),
    gives=(Image("image"),),
    metric=Metric("psnr", larger_is_better=True),
    pipeline="pipeline:ImageUpscaler",
    answer="answer:answer",
    importer="importer:complete",
    evaluate="measuring:evaluate_loaded",
    entries="job:entries",
)
