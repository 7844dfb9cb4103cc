"""Text classification: which of K classes is a text or a pair of texts, which of them are, or which numbers has it?"""

from orchard.tasks.record import Classes, Task, Text
from orchard.training.metric import Metric

TASK = Task(
    name="text-classification",
    summary="which of K classes is a text or a pair of texts, which of them are (multi-label), or which numbers it has",
    data="labelled-text",
    takes=(Text("text"),),
    gives=(Classes("classes"),),
    metric=Metric("accuracy", larger_is_better=True, percent=True),
    other_metrics=(Metric("map", larger_is_better=True, percent=True), Metric("mae", larger_is_better=False)),
    pipeline="pipeline:TextClassifier",
    answer="answer:answer",
    peers="peers:bench",
    explain="explain:explain",
    entries="job:entries",
)
