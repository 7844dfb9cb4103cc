"""Text-to-text generation: one text is read, another is written (translation and its kin)."""

from orchard.tasks.record import Task, Text
from orchard.training.metric import Metric

TASK = Task(
    name="text2text-generation",
    summary="a text for a text, such as a translation",
    data="text-pairs",
    takes=(Text("source"),),
    gives=(Text("text"),),
    metric=Metric("bleu", larger_is_better=True),
    pipeline="pipeline:Text2TextGenerator",
    answer="answer:answer",
    peers="peers:bench",
    entries="job:entries",
)
