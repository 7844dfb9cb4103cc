"""Reinforcement learning: which action leads to the largest return?"""

from orchard.tasks.record import Field, Task
from orchard.training.metric import Metric

TASK = Task(
    name="reinforcement-learning",
    summary="which action leads to the largest return",
    data="environments",
    takes=(),
    gives=(Field("episodes", "table"), Field("film", "video")),
    metric=Metric("mean_return", larger_is_better=True),
    pipeline="pipeline:Player",
    answer="answer:answer",
    entries="job:entries",
)
