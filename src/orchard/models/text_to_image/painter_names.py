"""The names of the painter's tensors in EasyNLP's checkpoints, and how such a file is taken apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from orchard.errors import OrchardError
from orchard.models import Rule
from orchard.nn.attention import causal_mask

if TYPE_CHECKING:
    from orchard.models.text_to_image.painter import PainterConfig

Table = list[Rule | tuple[str, str]]
TRANSFORMER, TOKENIZER = "transformer.", "first_stage_model."


def split_checkpoint(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """EasyNLP's `pytorch_model.bin` as the painter's part, under its names there, and the VQGAN's, under VQGAN's own.

    A file without a VQGAN comes back as it is. Raises OrchardError for a tensor that is of neither.
    """
    if not any(name.startswith(TOKENIZER) for name in state):
        return dict(state), {}
    painter = {name: tensor for name, tensor in state.items() if name.startswith(TRANSFORMER)}
    tokenizer = {name.removeprefix(TOKENIZER): tensor for name, tensor in state.items() if name.startswith(TOKENIZER)}
    strange = [name for name in state if not name.startswith((TRANSFORMER, TOKENIZER))]
    if strange:
        raise OrchardError(f"'{strange[0]}' of the checkpoint is neither {TRANSFORMER}* nor {TOKENIZER}*")
    return painter, tokenizer


def easynlp_names(config: PainterConfig) -> Table:
    """EasyNLP keeps queries, keys and values apart, and in every layer its causal mask, which ours are checked with."""
    block = TRANSFORMER + "blocks.{}."
    parts = tuple(block + f"attn.{part}." for part in ("query", "key", "value"))

    def mask(device: torch.device) -> Tensor:
        return causal_mask(config.context, device).float()[None, None]

    def join(query: Tensor, key: Tensor, value: Tensor, theirs: Tensor) -> Tensor:
        if not theirs.is_meta and not torch.equal(theirs.float(), mask(theirs.device)):
            raise OrchardError(
                f"the checkpoint's attention mask is not the causal one over {config.context} places; "
                f"set text_length and image_length to its own"
            )
        return torch.cat([query, key, value])

    return [
        ("tokens.weight", TRANSFORMER + "tok_emb.weight"),
        Rule("position", (TRANSFORMER + "pos_emb",), lambda table: table.squeeze(0), lambda table: (table[None],)),
        ("knowledge.{}", TRANSFORMER + "ent_emb.{}"),
        Rule(
            "stack.blocks.{}.attention.qkv.weight",
            (*(part + "weight" for part in parts), block + "attn.mask"),
            join,
            lambda tensor: (*tensor.chunk(3), mask(tensor.device)),
        ),
        Rule(
            "stack.blocks.{}.attention.qkv.bias",
            tuple(part + "bias" for part in parts),
            join=lambda *pieces: torch.cat(pieces),
            split=lambda tensor: tensor.chunk(3),
        ),
        ("stack.blocks.{}.attention.out.{}", block + "attn.proj.{}"),
        ("stack.blocks.{}.norm1.{}", block + "ln1.{}"),
        ("stack.blocks.{}.norm2.{}", block + "ln2.{}"),
        ("stack.blocks.{}.mlp.fc1.{}", block + "mlp.0.{}"),
        ("stack.blocks.{}.mlp.fc2.{}", block + "mlp.2.{}"),
        ("norm.{}", TRANSFORMER + "ln_f.{}"),
        ("head.weight", TRANSFORMER + "head.weight"),
    ]


NAMES = {"easynlp": easynlp_names}
