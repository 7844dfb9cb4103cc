"""Image to image: pictures made into the same in another kind, learned from pairs, two sets or pictures alone."""

from orchard.tasks.record import Image, Task
from orchard.training.metric import Metric

TASK = Task(
    name="image-to-image",
    summary="pictures of one kind made into the same in another: translated, with holes filled, in colours",
    data="picture-pairs",
    special_data=("unpaired-pictures", "pictures"),
    data_of="objective:data_of",
    takes=(Image("image"),),
    gives=(Image("image"),),
    # Neither selects: an image without detail has the least difference of pixels, and the papers keep the last weights.
    metric=Metric("l1", larger_is_better=False, selects=False),
    other_metrics=(Metric("fid", larger_is_better=False, selects=False),),
    pipeline="pipeline:PictureTranslator",
    answer="answer:answer",
    importer="importer:complete",
    entries="job:entries",
)
