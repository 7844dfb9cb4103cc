"""Image feature extraction: vectors that describe images, learned without labels."""

from orchard.tasks.record import Field, Image, Task
from orchard.training.metric import Metric

TASK = Task(
    name="image-feature-extraction",
    summary="vectors that describe images, learned without labels",
    data="images",
    takes=(Image("image"),),
    gives=(Field("features", "embedding"),),
    metric=Metric("contrastive_loss", larger_is_better=False),
    evaluation="settings:EvaluationSettings",
    pipeline="pipeline:FeatureExtractor",
    answer="answer:answer",
    entries="job:entries",
    whole_batch=True,
    models_of=("image-classification", "image-completion"),
)
