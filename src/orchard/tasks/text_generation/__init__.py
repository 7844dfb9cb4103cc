"""Text generation: what comes next in a text?"""

from orchard.tasks.record import Task, Text
from orchard.training.metric import Metric

TASK = Task(
    name="text-generation",
    summary="text that continues a prompt",
    data="text",
    takes=(Text("prompt"),),
    gives=(Text("text"),),
    metric=Metric("loss", larger_is_better=False),
    pipeline="pipeline:TextGenerator",
    answer="answer:answer",
    importer="importer:complete",
    peers="peers:bench",
    entries="job:entries",
)
