"""Sentence similarity: vectors of sentences whose angle says how near their meanings are."""

from orchard.tasks.record import Field, Task, Text
from orchard.training.metric import Metric

TASK = Task(
    name="sentence-similarity",
    summary="how near two sentences are in meaning, by the angle between their vectors",
    data="labelled-text",
    takes=(Text("source"), Text("sentence")),
    gives=(Field("similarity", "number"),),
    metric=Metric("spearman", larger_is_better=True),
    pipeline="pipeline:SentenceSimilarity",
    answer="answer:answer",
    entries="job:entries",
)
