"""Token classification: each word of a text has a tag, such as entities of several types."""

from orchard.tasks.record import Classes, Task, Text
from orchard.training.metric import Metric

TASK = Task(
    name="token-classification",
    summary="entities in a text (named entity recognition), parts of speech and other tags of words",
    data="tagged-text",
    takes=(Text("text"),),
    gives=(Classes("entities"),),
    metric=Metric("f1", larger_is_better=True),
    other_metrics=(Metric("accuracy", larger_is_better=True),),
    pipeline="pipeline:TokenClassifier",
    answer="answer:answer",
    entries="job:entries",
)
