"""XLM (Lample & Conneau 2019, "Cross-lingual Language Model Pretraining", arXiv:1901.07291).

BERT for many languages: every token is told its language, and a sentence may stand beside its translation, so that what
is hidden in one can be found in the other. Legend: B texts, T tokens, D width, L languages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from orchard.models import Landmark, Rule
from orchard.models.config_json import ConfigJson, only
from orchard.models.language import bert, bert_names
from orchard.models.language.bert import Bert, BertConfig
from orchard.models.language.bert_names import Table, block_rules, classifier, one_of_two
from orchard.models.language.text_encoder import UNMARKED, example_texts
from orchard.nn.attention import Attention
from orchard.nn.position import sinusoids
from orchard.nn.text_heads import TokenLogits


@dataclass(frozen=True)
class XlmConfig(BertConfig):
    vocabulary: int = 30145
    pad: int = 2
    segments: int = 0
    pairs: bool = False
    languages: int = 1  # with one there is no table of them
    positions: Literal["learned", "sinusoids"] = "learned"
    causal: bool = False  # no token sees a later one: the paper's CLM

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.languages < 1 or self.positions not in ("learned", "sinusoids"):
            raise ValueError(f"languages is {self.languages} and positions '{self.positions}', expected 1 or more and "
                             "learned or sinusoids")  # fmt: skip

    @property
    def pooled(self) -> bool:
        """Classes are told from the first token's state alone."""
        return False


class Xlm(Bert):
    """Tokens (B, T) int64 to what the head says; `languages` and `positions` (B, T) int64 are rows of their tables, by
    default 0 and 0, 1, ... (a translation counts from 0 again)."""

    config: XlmConfig
    template: ClassVar[tuple[str, str]] = UNMARKED

    def make_tables(self, width: int) -> dict[str, nn.Embedding]:
        c = self.config
        positions = nn.Embedding(c.context, width)
        languages = {"languages": nn.Embedding(c.languages, width)} if c.languages > 1 else {}
        return {"positions": positions, **languages}

    def make_attention(self) -> nn.Module:
        c = self.config
        return Attention(
            c.width, c.heads, bias=True, causal=c.causal, dropout=c.attention_dropout, out_dropout=c.dropout
        )  # fmt: skip

    def make_token_logits(self) -> TokenLogits:
        return TokenLogits(self.config.vocabulary, nn.Identity())

    def initialise(self) -> None:
        """Tables normal with 1 / √D, linear layers as torch begins them, as in the authors' code."""
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=self.config.width**-0.5)
        nn.init.zeros_(self.embedding.tokens.weight[self.config.pad])
        if self.config.positions == "sinusoids":
            table: Any = self.embedding.tables["positions"]
            table.weight = nn.Parameter(
                sinusoids(self.config.context, self.config.width, interleaved=True), requires_grad=False
            )

    def embed(
        self, tokens: Tensor, mask: Tensor, segments: Tensor, languages: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        _check_rows("languages", languages, tokens, self.config.languages)
        _check_rows("positions", positions, tokens, self.config.context)
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)
        languages = torch.zeros_like(tokens) if languages is None else languages
        return self.embedding(tokens, {"positions": positions, "languages": languages}) * mask[..., None]

    def encode(self, x: Tensor, sees: Tensor) -> Tensor:
        """Padding stays zero."""
        tokens = sees[:, 0, 0, :, None]
        for block in self.blocks:
            x = block(x, sees) * tokens
        return x


def _check_rows(name: str, rows: Tensor | None, tokens: Tensor, count: int) -> None:
    """Raise ValueError unless `rows` (B, T) int64 are rows of a table of `count`; numbers are looked at on the CPU."""
    if rows is None:
        return
    if rows.shape != tokens.shape or rows.dtype != torch.int64:
        raise ValueError(f"expected {name} {tuple(tokens.shape)} int64, got {tuple(rows.shape)} {rows.dtype}")
    if rows.device.type == "cpu" and not torch.compiler.is_compiling() and rows.numel():
        low, high = rows.aminmax()
        if low < 0 or high >= count:
            raise ValueError(f"expected {name} from 0 to {count - 1}, got {int(low)} to {int(high)}")


def _names(config: XlmConfig, prefix: str, head: str) -> Table:
    """`prefix` stands before the model's names, `head` before those of the projection, whose table is tied."""
    table = Rule(
        "embedding.tokens.weight", (prefix + "embeddings.weight", head + "proj.weight"), one_of_two,
        lambda tensor: (tensor, tensor),
    )  # fmt: skip
    return [
        table if config.head == "fill-mask" else ("embedding.tokens.weight", prefix + "embeddings.weight"),
        ("embedding.tables.positions.{}", prefix + "position_embeddings.{}"),
        ("embedding.tables.languages.{}", prefix + "lang_embeddings.{}"),
        ("embedding.norm.{}", prefix + "layer_norm_emb.{}"),
        *block_rules(
            prefix,
            ("attentions.{}.q_lin", "attentions.{}.k_lin", "attentions.{}.v_lin"),
            "attentions.{}.out_lin",
            ("layer_norm1.{}", "ffns.{}.lin1", "ffns.{}.lin2", "layer_norm2.{}"),
        ),
        ("head.tokens.bias", head + "proj.bias"),
        ("head.{}", classifier(config)),
    ]


def official_names(config: XlmConfig) -> Table:
    """The authors' model, which is its encoder and the projection in one."""
    return _names(config, "", "pred_layer.")


def hf_names(config: XlmConfig) -> Table:
    """The tensors of XLMWithLMHeadModel and its kin."""
    return _names(config, "" if config.head == bert_names.FEATURES else "transformer.", "pred_layer.")


def infer_config(config: Any, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """As BERT's, and the languages."""
    languages = lookup("embedding.tables.languages.weight")
    return {**bert.infer_config(config, source, lookup), "languages": 1 if languages is None else len(languages)}


def example(config: XlmConfig, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    """Ids at random; every second text is a quarter padding. Where there are several, languages at random."""
    found = example_texts(config, count, generator)
    del found["segments"]
    if config.languages > 1:
        found["languages"] = torch.randint(config.languages, found["tokens"].shape, generator=generator)
    return found


VARIANTS = {
    # ours: four thousand pieces of words, for a laptop
    "xlm_nano": XlmConfig(128, 3, 4, 512, vocabulary=4096, context=128, dropout=0.0, attention_dropout=0.0),
    "xlm_en_2048": XlmConfig(2048, 12, 16, 8192),
    "xlm_enfr_1024": XlmConfig(1024, 6, 8, 4096, vocabulary=64139, languages=2),
    "xlm_xnli15_1024": XlmConfig(1024, 12, 8, 4096, vocabulary=95000, languages=15),
    "xlm_17_1280": XlmConfig(1280, 16, 16, 5120, vocabulary=200000),
    "xlm_100_1280": XlmConfig(1280, 16, 16, 5120, vocabulary=200000),
}
CONFIG_JSON: ConfigJson = {
    "emb_dim": "width",
    "n_layers": "depth",
    "n_heads": "heads",
    "vocab_size": "vocabulary",
    "max_position_embeddings": "context",
    "pad_index": "pad",
    "n_langs": "languages",
    "layer_norm_eps": "norm_eps",
    "gelu_activation": {True: {"activation": "gelu"}, False: {"activation": "relu"}},
    "sinusoidal_embeddings": {True: {"positions": "sinusoids"}, False: {"positions": "learned"}},
    "causal": "causal",
    "asm": only(False),
}
LANDMARK = Landmark(
    model=Xlm,
    variants=VARIANTS,
    names={"hf": hf_names, "official": official_names},
    infer_config=infer_config,
    not_weights={"hf": ("*.position_ids",)},
    config_json=CONFIG_JSON,
    example=example,
)
