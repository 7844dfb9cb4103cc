"""Feature extraction: a vector for each text, by any model that reads texts."""

from orchard.tasks.record import Field, Task, Text
from orchard.training.metric import Metric

TASK = Task(
    name="feature-extraction",
    summary="a vector for each text, by any model that reads texts",
    data="labelled-text",
    takes=(Text("text"),),
    gives=(Field("features", "embedding"),),
    metric=Metric("accuracy", larger_is_better=True, percent=True),
    job=None,
    evaluate="probe:evaluate_loaded",
    pipeline="pipeline:FeatureExtractor",
    answer="answer:answer",
    models_of=("fill-mask", "text-classification", "sentence-similarity", "token-classification", "question-answering"),
)
