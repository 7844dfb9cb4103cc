"""Masked language modelling: which word was hidden?"""

from orchard.tasks.record import Field, Task, Text
from orchard.training.metric import Metric

TASK = Task(
    name="fill-mask",
    summary="the words that fit where a text has [MASK]",
    data="text",
    takes=(Text("text"),),
    gives=(Field("tokens", "classes"),),
    metric=Metric("loss", larger_is_better=False),
    pipeline="pipeline:MaskFiller",
    answer="answer:answer",
    importer="importer:complete",
    peers="peers:bench",
    entries="job:entries",
)
