"""Board games of two players: which move leads to a win?"""

from orchard.tasks.record import Field, Task, Text
from orchard.training.metric import Metric

TASK = Task(
    name="board-games",
    summary="which move wins a board game, learned from games with itself",
    data="games",
    takes=(Text("position"),),
    gives=(Text("move"), Field("value", "number"), Field("policy", "table")),
    metric=Metric("points", larger_is_better=True),
    evaluation="settings:Evaluation",
    pipeline="pipeline:MovePipeline",
    answer="answer:answer",
    play="play:play",
    entries="job:entries",
)
