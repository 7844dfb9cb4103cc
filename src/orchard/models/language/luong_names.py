"""The names of the tensors of a recurrent translator in OpenNMT-py's checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchard.models import Rule

if TYPE_CHECKING:
    from orchard.models.language.luong import LuongConfig


def opennmt_names(config: LuongConfig) -> list[Rule | tuple[str, str]]:
    """With input feeding its decoder is a stack of cells, without it one module of torch's."""
    table = "make_embedding.emb_luts.0.weight"
    tensors = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    layer = "model.decoder.rnn.layers.{}.%s" if config.input_feeding else "model.decoder.rnn.%s_l{}"
    query = "linear_query" if config.score == "additive" else "linear_in"
    return [
        ("source_token.weight", f"model.encoder.embeddings.{table}"),
        ("target_token.weight", f"model.decoder.embeddings.{table}"),
        ("bridge.{}", "model.encoder.bridge.{}"),
        *((f"encoder.{{}}.0.cell.{tensor}", f"model.encoder.rnn.{tensor}_l{{}}") for tensor in tensors),
        *((f"encoder.{{}}.1.cell.{tensor}", f"model.encoder.rnn.{tensor}_l{{}}_reverse") for tensor in tensors),
        *((f"decoder.{{}}.{tensor}", layer % tensor) for tensor in tensors),
        ("score.query.{}", f"model.decoder.attn.{query}.{{}}"),
        ("score.memory.{}", "model.decoder.attn.linear_context.{}"),
        ("score.out.{}", "model.decoder.attn.v.{}"),
        ("join.{}", "model.decoder.attn.linear_out.{}"),
        ("head.{}", "generator.{}"),
    ]


NAMES = {"opennmt": opennmt_names}
