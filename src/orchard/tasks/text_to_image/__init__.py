"""Text to image: an image for a prompt, sampled as codes of an image tokenizer."""

from orchard.tasks.record import Image, Task, Text
from orchard.training.metric import Metric

TASK = Task(
    name="text-to-image",
    summary="an image for a prompt",
    data="captions",
    takes=(Text("prompt"),),
    gives=(Image("image"),),
    metric=Metric("bits_per_code", larger_is_better=False),
    pipeline="pipeline:TextToImagePipeline",
    answer="answer:answer",
    importer="importer:complete",
    peers="peers:bench",
    entries="job:entries",
)
