"""ERNIE of Baidu (Sun et al. 2019, "ERNIE: Enhanced Representation through Knowledge Integration", arXiv:1904.09223).

BERT that is asked for whole phrases and names; version 2 (arXiv:1907.12412) learns one task after another and tells the
network by one more table which it is at. Legend: B texts, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.config_json import ConfigJson
from orchard.models.language import bert, bert_names
from orchard.models.language.bert import Bert, BertConfig
from orchard.models.language.bert_names import Table, bert_rules, tied
from orchard.models.language.text_encoder import example_texts


@dataclass(frozen=True)
class ErnieConfig(BertConfig):
    tasks: int = 0  # kinds of tasks that the table tells apart; 0 without the table, as in version 1


class Ernie(Bert):
    """Tokens (B, T) int64 to what the head says; `tasks` (B, T) int64 says at which task, by default the first."""

    config: ErnieConfig

    def make_tables(self, width: int) -> dict[str, nn.Embedding]:
        tasks = {"tasks": nn.Embedding(self.config.tasks, width)} if self.config.tasks else {}
        return {**super().make_tables(width), **tasks}

    def embed(self, tokens: Tensor, mask: Tensor, segments: Tensor, tasks: Tensor | None = None) -> Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        tasks = torch.zeros_like(tokens) if tasks is None else tasks
        return self.embedding(tokens, {"positions": positions, "segments": segments, "tasks": tasks})


def hf_names(config: ErnieConfig) -> Table:
    """The tensors of ErnieForPreTraining and its kin, whose tied table and bias have two names each."""
    return [*tied("cls.predictions.", "ernie.embeddings.word_embeddings.weight", config), *hf_file_names(config)]


def hf_file_names(config: ErnieConfig) -> Table:
    """The file that save_pretrained writes: what is tied stands in it once."""
    model = "" if config.head == bert_names.FEATURES else "ernie."
    tasks = ("embedding.tables.tasks.{}", model + "embeddings.task_type_embeddings.{}")
    return [tasks, *bert_rules(config, "ernie.")]


def infer_config(config: Any, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """As BERT's, and the kinds of tasks."""
    tasks = lookup("embedding.tables.tasks.weight")
    return {**bert.infer_config(config, source, lookup), "tasks": 0 if tasks is None else len(tasks)}


VARIANTS = {
    # ours: four thousand characters and pieces, for a laptop
    "ernie_nano": ErnieConfig(128, 3, 4, 512, vocabulary=4096, context=128, dropout=0.0, attention_dropout=0.0),
    "ernie_1_base": ErnieConfig(768, 12, 12, 3072, vocabulary=18000, context=513, activation="relu"),
    "ernie_2_base": ErnieConfig(768, 12, 12, 3072, segments=4),
    "ernie_2_large": ErnieConfig(1024, 24, 16, 4096, segments=4),
    "ernie_3_base": ErnieConfig(768, 12, 12, 3072, vocabulary=40000, context=2048, segments=4, tasks=3),
}
CONFIG_JSON: ConfigJson = {
    **bert_names.CONFIG_JSON,
    "use_task_id": lambda used, table: {"tasks": int(table.get("task_type_vocab_size", 3)) if used else 0},
}
LANDMARK = Landmark(
    model=Ernie,
    variants=VARIANTS,
    names={"hf_file": hf_file_names, "hf": hf_names},
    infer_config=infer_config,
    not_weights=dict.fromkeys(("hf_file", "hf"), ("*.position_ids",)),
    config_json=CONFIG_JSON,
    example=example_texts,
)
