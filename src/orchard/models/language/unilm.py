"""UniLM (Dong et al. 2019, "Unified Language Model Pre-training", arXiv:1905.03197).

One network reads a text in both directions, from the left, from the right, or as a source that is followed by what is
written about it. Which of these it does, its segments say: they decide who sees whom. Legend: B texts, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from orchard.models import Landmark
from orchard.models.language.bert import Bert, BertConfig, infer_config
from orchard.models.language.bert_names import CONFIG_JSON, Table, bert_rules, tied
from orchard.models.language.text_encoder import example_texts

TO_THE_RIGHT, TO_THE_LEFT, SOURCE, TARGET = 2, 3, 4, 5  # segments; of 0 and 1, a pair, all tokens see each other


@dataclass(frozen=True)
class UnilmConfig(BertConfig):
    vocabulary: int = 28996
    segments: int = 6
    norm_eps: float = 1e-5


class Unilm(Bert):
    """Tokens (B, T) int64 to what the head says, each text read as its `segments` say."""

    def initialise(self) -> None:
        """As BERT, with the last layers of the n-th block's branches divided by √(2n)."""
        super().initialise()
        for n, block in enumerate(self.blocks, 1):
            branches: Any = block
            for layer in (branches.attention.out, branches.mlp.fc2):
                with torch.no_grad():
                    layer.weight.div_((2 * n) ** 0.5)

    def sees(self, mask: Tensor, segments: Tensor) -> Tensor:
        """(B, 1, T, T): a source sees itself; a target the source and what is before; others as their segment says."""
        T = mask.shape[1]
        places = torch.arange(T, device=mask.device)
        before = places[None, :] <= places[:, None]  # (T, T), itself too
        kind = segments[:, :, None]
        seen = torch.ones(1, T, T, dtype=torch.bool, device=mask.device)
        seen = seen.where((kind != TO_THE_RIGHT) & (kind != TARGET), before)
        seen = seen.where(kind != TO_THE_LEFT, before.T)
        seen = seen.where(kind != SOURCE, (segments == SOURCE)[:, None, :])
        return (seen & mask[:, None, :])[:, None]


def microsoft_names(config: UnilmConfig) -> Table:
    """The authors' code, whose tied table has two names."""
    both = tied("cls.predictions.", "bert.embeddings.word_embeddings.weight", config)
    return [*both[:1], *microsoft_file_names(config)]


def microsoft_file_names(config: UnilmConfig) -> Table:
    """The same with the table once."""
    return bert_rules(config, "bert.")


def example(config: UnilmConfig, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    """Ids at random; text n is of kind n % 4: a pair, from the left, from the right, a source and its target."""
    found = example_texts(config, count, generator)
    kinds = torch.tensor([[0, 1], [TO_THE_RIGHT] * 2, [TO_THE_LEFT] * 2, [SOURCE, TARGET]])
    rows = kinds[torch.arange(count) % 4].gather(1, found["segments"])
    return {**found, "segments": rows.where(found["mask"], 0)}


VARIANTS = {
    # ours: four thousand pieces of words, for a laptop
    "unilm_nano": UnilmConfig(128, 3, 4, 512, vocabulary=4096, context=128, dropout=0.0, attention_dropout=0.0),
    "unilm_base": UnilmConfig(768, 12, 12, 3072),
    "unilm_large": UnilmConfig(1024, 24, 16, 4096),
}
LANDMARK = Landmark(
    model=Unilm,
    variants=VARIANTS,
    names={"microsoft_file": microsoft_file_names, "microsoft": microsoft_names},
    infer_config=infer_config,
    not_weights=dict.fromkeys(("microsoft_file", "microsoft"), ("*.position_ids",)),
    config_json=CONFIG_JSON,
    example=example,
)
