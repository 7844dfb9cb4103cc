"""Question answering: the part of a text that answers a question."""

from orchard.tasks.record import Task, Text
from orchard.training.metric import Metric

TASK = Task(
    name="question-answering",
    summary="the part of a text that answers a question",
    data="questions",
    takes=(Text("question"), Text("context")),
    gives=(Text("answer"),),
    metric=Metric("f1", larger_is_better=True),
    pipeline="pipeline:QuestionAnswerer",
    answer="answer:answer",
    entries="job:entries",
)
