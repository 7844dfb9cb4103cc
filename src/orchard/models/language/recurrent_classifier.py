"""Recurrent classifiers of texts: RNN, GRU and LSTM by their last state, and a BiLSTM with attention (Zhou et al. 2016,
"Attention-based bidirectional long short-term memory networks for relation classification", ACL P16-2034)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.language.text_encoder import PLAIN, check_text, example_texts
from orchard.nn.bidirectional import BidirectionalLSTM

CELLS: dict[str, Callable[..., nn.Module]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


@dataclass(frozen=True)
class RecurrentConfig:
    vocabulary: int = 20000
    embedding: int = 100  # width of word vectors
    width: int = 256  # of the state, in each direction
    cell: Literal["rnn", "gru", "lstm"] = "lstm"
    attention: bool = False  # over the states of both directions, in place of the last state of one
    embedding_dropout: float = 0.3
    dropout: float = 0.5  # of what the head reads
    context: int = 1024
    pad: int = 0
    head: str = "text-classification"
    num_classes: int = 2

    def __post_init__(self) -> None:
        if self.attention and self.cell != "lstm":
            raise ValueError(f"attention is over the states of a bidirectional lstm, not of a {self.cell}")


class RecurrentClassifier(nn.Module):
    """A recurrent network over words, and a linear layer on what it keeps of them.

    tokens (B, T) int64 → logits (B, num_classes). With attention the states h of both directions are added, and read by
    the softmax of wᵀ tanh(h); what is read goes through a tanh (the paper's equations 9 to 12).
    """

    template: ClassVar[tuple[str, str]] = PLAIN
    head_name: ClassVar[str] = "head"

    def __init__(self, config: RecurrentConfig):
        super().__init__()
        if config.head != "text-classification":
            raise ValueError(f"a recurrent classifier has one vector for a text, and no head for {config.head}")
        self.config = config
        self.token = nn.Embedding(config.vocabulary, config.embedding, padding_idx=config.pad)
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)
        self.rnn: nn.Module
        if config.attention:
            self.rnn = BidirectionalLSTM(config.embedding, config.width)
            self.attention = nn.Linear(config.width, 1, bias=False)
        else:
            self.rnn = CELLS[config.cell](config.embedding, config.width, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.width, config.num_classes)
        nn.init.normal_(self.token.weight, std=0.1)
        with torch.no_grad():
            self.token.weight[config.pad] = 0

    def features(self, tokens: Tensor, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """(B, width): the state after the last word, or what attention reads."""
        check_text(self.config, tokens, mask, segments)
        there = tokens != self.config.pad if mask is None else mask
        x = self.embedding_dropout(self.token(tokens))
        if not self.config.attention:
            states, _ = self.rnn(x)
            last = (there.sum(1) - 1).clamp_min(0)
            return states.gather(1, last[:, None, None].expand(-1, 1, states.shape[2]))[:, 0]
        states, weights = self.read(x, there)
        return torch.tanh((weights[:, None] @ states)[:, 0])

    def read(self, x: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """The states of both directions together (B, T, width), and how much of each is read (B, T)."""
        right, left = self.rnn(x, there).chunk(2, dim=-1)
        states = right + left
        scores = self.attention(torch.tanh(states))[..., 0].masked_fill(~there, float("-inf"))
        return states, scores.softmax(-1)

    def forward(self, tokens: Tensor, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        return self.head(self.dropout(self.features(tokens, mask, segments)))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head."""
        return [("token.",), ("rnn.", "attention."), ("head.",)]


VARIANTS = {
    "rnn_classifier": RecurrentConfig(cell="rnn"),
    "gru_classifier": RecurrentConfig(cell="gru"),
    "lstm_classifier": RecurrentConfig(),
    "bilstm_attention": RecurrentConfig(attention=True),
    # ours: for some thousand sentences
    "gru_classifier_nano": RecurrentConfig(vocabulary=8000, embedding=64, width=64, cell="gru"),
    "lstm_classifier_nano": RecurrentConfig(vocabulary=8000, embedding=64, width=64),
    "bilstm_attention_nano": RecurrentConfig(vocabulary=8000, embedding=64, width=64, attention=True),
}
LANDMARK = Landmark(model=RecurrentClassifier, variants=VARIANTS, example=example_texts)
