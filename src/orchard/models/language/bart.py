"""BART (Lewis et al. 2019, "BART: Denoising Sequence-to-Sequence Pre-training", arXiv:1910.13461).

The Transformer with learned positions and a norm on its embeddings. It learns to write a text that was spoiled (words
masked or taken out, sentences in another order) as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.config_json import ConfigJson, only
from orchard.models.language.source_target import example_sentences
from orchard.models.language.transformer import Transformer, TransformerConfig, infer_config
from orchard.models.language.transformer_names import SIZES, Table, marian_names

OFFSET = 2  # rows of a table of positions before the first that is used
COPIES = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")


@dataclass(frozen=True)
class BartConfig(TransformerConfig):
    vocabulary: int = 50265
    context: int = 1024
    pad: int = 1
    norm: Literal["post", "pre"] = "post"
    interleaved: bool = False  # there are no sinusoids
    activation: Literal["relu", "silu", "gelu"] = "gelu"
    output_bias: bool = True
    norm_eps: float = 1e-5


class Bart(Transformer):
    """Source (B, S) and target (B, T), int64, to the logits of the token after each target token, (B, T, V)."""

    def __init__(self, config: BartConfig):
        super().__init__(config)
        self.positions: Tensor | None = None
        self.source_position = nn.Embedding(config.context + OFFSET, config.width)
        self.target_position = nn.Embedding(config.context + OFFSET, config.width)
        self.source_norm, self.target_norm = self._norm(), self._norm()
        self.initialise()

    def initialise(self) -> None:
        """Normal with a standard deviation of 0.02; biases and the padding's row zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.token.weight[self.config.pad] = 0

    def embed_source(self, source: Tensor) -> Tensor:
        return self._embedded(source, 0, self.source_position, self.source_norm)

    def embed_target(self, tokens: Tensor, first: int) -> Tensor:
        return self._embedded(tokens, first, self.target_position, self.target_norm)

    def _embedded(self, tokens: Tensor, first: int, table: nn.Embedding, norm: nn.Module) -> Tensor:
        positions = torch.arange(OFFSET + first, OFFSET + first + tokens.shape[1], device=tokens.device)
        return self.dropout(norm(self.token(tokens) + table(positions)))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        first, *others = super().layer_groups()
        return [(*first, "source_position.", "target_position.", "source_norm.", "target_norm."), *others]


def hf_names(config: BartConfig) -> Table:
    """The tensors of BartForConditionalGeneration."""
    return [*marian_names(config, COPIES, ()), *MORE]


def hf_file_names(config: BartConfig) -> Table:
    """The file that save_pretrained writes: the table once."""
    return [*marian_names(config, (), ()), *MORE]


MORE: Table = [
    ("source_position.weight", "model.encoder.embed_positions.weight"),
    ("target_position.weight", "model.decoder.embed_positions.weight"),
    ("source_norm.{}", "model.encoder.layernorm_embedding.{}"),
    ("target_norm.{}", "model.decoder.layernorm_embedding.{}"),
]
CONFIG_JSON: ConfigJson = {
    **SIZES,
    "activation_function": {"gelu": {"activation": "gelu"}, "relu": {"activation": "relu"}},
    "scale_embedding": only(False),
    "tie_word_embeddings": only(True),
}
VARIANTS = {
    # ours: four thousand pieces, for a laptop
    "bart_nano": BartConfig(128, 2, 4, 256, vocabulary=4000, context=128, dropout=0.0),
    "bart_base": BartConfig(768, 6, 12, 3072),
    "bart_large": BartConfig(1024, 12, 16, 4096),
}
LANDMARK = Landmark(
    model=Bart,
    variants=VARIANTS,
    names={"hf_file": hf_file_names, "hf": hf_names},
    infer_config=lambda config, source, lookup: {
        key: value for key, value in infer_config(config, source, lookup).items() if key == "vocabulary"
    },
    config_json=CONFIG_JSON,
    example=example_sentences,
)
