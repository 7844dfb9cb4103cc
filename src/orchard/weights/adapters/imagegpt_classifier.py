"""Image GPT's classifier: official code is given colours, or ids with the start in front, where ours sees images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.nn.pixels import even_colours, nearest_colours
from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored


def stored(case: Stored) -> Stored:
    """Ids in int64, labels as numbers; of what is to be masked, which pixels. transformers' case is of two models."""
    tensors = {key: one.long() if not one.is_floating_point() else one for key, one in case.tensors.items()}
    if "in.Y" in tensors:
        tensors["in.labels"] = tensors["in.Y"].argmax(1)
        tensors["out.joint_loss"] = tensors["out.gen_loss"] + tensors["out.clf_loss"]  # as src/run.py adds them
        tensors["out.features"] = tensors["out.ln_f_out"].mean(1)
    if "in.uniform" in tensors:
        tensors["in.masked"] = tensors["in.uniform"] <= case.meta["constructor"]["bert_mask_prob"]
    state = {
        key.replace("classifier_score", "score"): one for key, one in case.state.items() if key != "lm_head.weight"
    }
    return replace(case, tensors=tensors, state=state)


def call(reference: Any, inputs: dict[str, Tensor]) -> Any:
    """transformers' model on the colours of images by the even palette, the start in front and the last pixel left
    out; its own is one id more than there are colours."""
    colours, images = reference.config.vocab_size - 1, inputs["images"]
    ids = nearest_colours(images, even_colours(colours, images.shape[1]))
    return reference(F.pad(ids[:, :-1], (1, 0), value=colours))


def run(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Any]:
    """The features, what they are made of, and the logits of pixels and classes."""
    classifier: Any = model
    if "images" in inputs:
        return {"classes": classifier(inputs["images"])}
    trunk = classifier.trunk
    if "tokens" in inputs:
        tokens = inputs["tokens"]
    elif "masked" in inputs:
        tokens = inputs["colours"].masked_fill(inputs["masked"], trunk.config.special)
    else:
        tokens = trunk.as_input(inputs["colours"])
    features = trunk.hidden(tokens).mean(1)
    return {"features": features, "pixels": trunk(tokens), "classes": classifier.head(features)}


ADAPTER = Adapter(stored=stored, run=run, call=call)
