"""Deep belief nets of yusugomori/DeepLearning, which writes no files: the arrays after training are outputs."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored


def stored(case: Stored) -> Stored:
    """The arrays of the pretrained layers and of the head that was trained on them; vectors as images of one pixel."""
    floats = {name: tensor.float() for name, tensor in case.tensors.items() if tensor.is_floating_point()}
    state = {
        name.removeprefix(stage): tensor
        for stage in ("out.pretrained.", "out.finetuned.")
        for name, tensor in floats.items()
        if name.startswith(stage)
    }
    return replace(case, state=state, tensors=floats | {"in.images": floats["in.x"][:, :, None, None]})


def run(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"probabilities": model(**inputs).softmax(1)}


ADAPTER = Adapter(stored=stored, run=run)
