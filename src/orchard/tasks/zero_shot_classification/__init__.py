"""Zero-shot classification: which of the classes that a person names is a text, by a model of entailment?"""

from orchard.tasks.record import Classes, Task, Text
from orchard.training.metric import Metric

TASK = Task(
    name="zero-shot-classification",
    summary="which of the classes that a person names is a text, by a model that has learned entailment",
    data="labelled-text",
    takes=(Text("text"),),
    gives=(Classes("classes"),),
    metric=Metric("accuracy", larger_is_better=True, percent=True),
    job=None,
    evaluate="pipeline:evaluate_loaded",
    evaluation="settings:EvaluationSettings",
    pipeline="pipeline:ZeroShotClassifier",
    answer="answer:answer",
    models_of=("text-classification",),
)
