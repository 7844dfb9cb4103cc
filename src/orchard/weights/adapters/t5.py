"""T5 beside transformers': targets are the labels moved one place, masks are bool, and version 1.1 has its own head."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import nn

from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored

IGNORED = -100  # a label that is not asked for, which a target has as padding


def stored(case: Stored) -> Stored:
    labels, mask = case.tensors["in.labels"], case.tensors["in.attention_mask"]
    target = F.pad(labels.clamp_min(0), (1, 0))[:, :-1]
    return replace(case, tensors={**case.tensors, "in.decoder_input_ids": target, "in.attention_mask": mask.bool()})


def build(**settings: Any) -> nn.Module:
    """Version 1.1 with the output layer that transformers 5.23 ties whatever is asked: it is put in its place here."""
    transformers: Any = importlib.import_module("transformers")
    model: nn.Module = transformers.T5ForConditionalGeneration(
        transformers.T5Config(**settings, tie_word_embeddings=False)
    )
    model.lm_head = nn.Linear(settings["d_model"], settings["vocab_size"], bias=False)
    return model


ADAPTER = Adapter(stored=stored, build=build)
