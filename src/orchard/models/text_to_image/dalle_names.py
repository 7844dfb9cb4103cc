"""The names of DALL-E's tensors in DALLE-pytorch's checkpoints, and how such a file is taken apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from orchard.models import Rule

if TYPE_CHECKING:
    from orchard.models.text_to_image.dalle import DalleConfig

Table = list[Rule | tuple[str, str]]
TOKENIZER = "vae."


def split_checkpoint(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The `weights` of such a file: DALL-E's own under their names there, the image tokenizer's without `vae.`."""
    own = {name: tensor for name, tensor in state.items() if not name.startswith(TOKENIZER)}
    return own, {name.removeprefix(TOKENIZER): tensor for name, tensor in state.items() if name not in own}


def dalle_pytorch_names(config: DalleConfig) -> Table:
    """Wrappers, one `fn` each, stand around the branches there: norm and cache, and two more with token shift."""
    layer = "transformer.layers.layers.{}."
    attention = layer + ("0.fn.fn.fn.fn.fn." if config.shift else "0.fn.fn.fn.")
    mlp = layer + ("1.fn.fn.fn.fn.net." if config.shift else "1.fn.fn.net.")

    def flat(ours: str, theirs: str, *shape: int) -> Rule:
        """A table that has axes of one beside its own there."""
        return Rule(
            ours,
            (theirs,),
            join=lambda t: t.reshape(-1, config.width),
            split=lambda t: (t.reshape(1, *shape, config.width),),
        )

    def gain(ours: str, theirs: str) -> Rule:
        return Rule(ours, (theirs,), join=lambda t: t.flatten(), split=lambda t: (t[None, None],))

    return [
        Rule(
            "tokens.weight",
            ("text_emb.weight", "image_emb.weight"),
            join=lambda words, codes: torch.cat([words, codes]),
            split=lambda table: torch.split(table, [config.text_ids, config.codes]),
        ),
        ("text_position", "text_pos_emb.weight"),
        flat("row_position", "image_pos_emb.weights.0", config.side, 1),
        flat("column_position", "image_pos_emb.weights.1", 1, config.side),
        Rule("rotary.angles", ("transformer.pos_emb",), lambda table: table.squeeze(0), lambda table: (table[None],)),
        ("blocks.{}.attention.qkv.{}", attention + "to_qkv.{}"),
        ("blocks.{}.attention.out.{}", attention + "to_out.0.{}"),
        ("blocks.{}.norm1.{}", layer + "0.fn.norm.{}"),
        ("blocks.{}.norm2.{}", layer + "1.fn.norm.{}"),
        gain("blocks.{}.scale1.gain", layer + "0.scale"),
        gain("blocks.{}.scale2.gain", layer + "1.scale"),
        ("blocks.{}.mlp.fc1.{}", mlp + "0.{}"),
        ("blocks.{}.mlp.fc2.{}", mlp + "3.{}"),
        ("norm.{}", "to_logits.0.{}"),
        ("head.{}", "to_logits.1.{}"),
    ]


NAMES = {"dalle_pytorch": dalle_pytorch_names}
