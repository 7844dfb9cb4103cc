"""AWD-LSTM (Merity, Keskar and Socher 2017, arXiv:1708.02182): an LSTM language model, regularised everywhere.

Recurrent weights are dropped (DropConnect), dropout chooses once for a whole segment, words are left out of the table,
and the table is the head, too. Legend: B texts, T tokens, E embedding, n width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark, Rule
from orchard.nn.adaptive_softmax import log_probabilities
from orchard.nn.carried_state import CarriedState, check_tokens, example_segment
from orchard.nn.locked_dropout import LockedDropout, embed_with_dropout
from orchard.nn.recurrent_layer import RecurrentLayer, with_state

CELLS: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


@dataclass(frozen=True)
class AWDConfig:
    width: int = 1150
    depth: int = 3
    embedding: int = 400
    vocabulary: int = 10000
    context: int = 70  # tokens through which the gradient goes back
    cell: Literal["lstm", "gru"] = "lstm"
    tied_head: bool = True  # the head is the table, and the last layer as wide as an embedding
    cutoffs: tuple[int, ...] = ()  # where the clusters of an adaptive softmax begin; none: one softmax
    dropout: float = 0.4  # of the last layer's outputs
    hidden_dropout: float = 0.25  # between layers
    input_dropout: float = 0.4  # of embeddings
    word_dropout: float = 0.1  # of words in the table
    weight_drop: float = 0.5  # of recurrent weights

    def __post_init__(self) -> None:
        for name in ("width", "depth", "embedding", "vocabulary", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more")
        if self.cell not in CELLS:
            raise ValueError(f"cell is '{self.cell}', expected lstm or gru")
        bounds = (0, *self.cutoffs, self.vocabulary)
        if list(bounds) != sorted(set(bounds)):
            raise ValueError(f"cutoffs are {self.cutoffs}, expected to rise between 0 and {self.vocabulary}")

    @property
    def widths(self) -> list[int]:
        """Of what goes into each layer and comes out of the last."""
        last = self.embedding if self.tied_head else self.width
        return [self.embedding, *[self.width] * (self.depth - 1), last]


class AWDLSTM(nn.Module):
    """Tokens (B, T) int64 to the logits of the token after each, (B, T, V); with cutoffs to log-probabilities."""

    def __init__(self, config: AWDConfig):
        super().__init__()
        self.config = c = config
        self.token = nn.Embedding(c.vocabulary, c.embedding)
        self.layers = nn.ModuleList(
            RecurrentLayer(CELLS[c.cell](inputs, outputs, batch_first=True), weight_drop=c.weight_drop)
            for inputs, outputs in zip(c.widths[:-1], c.widths[1:], strict=True)
        )
        self.input_dropout = LockedDropout(c.input_dropout)
        self.hidden_dropout = LockedDropout(c.hidden_dropout)
        self.dropout = LockedDropout(c.dropout)
        self.head = None if c.tied_head else nn.Linear(c.widths[-1], c.vocabulary, bias=False)
        self.bias = nn.Parameter(torch.zeros(c.vocabulary))
        self.cluster_weight = nn.Parameter(torch.zeros(len(c.cutoffs), c.widths[-1])) if c.cutoffs else None
        self.cluster_bias = nn.Parameter(torch.zeros(len(c.cutoffs))) if c.cutoffs else None
        for matrix in (self.token, self.head):
            if matrix is not None:
                nn.init.uniform_(matrix.weight, -0.1, 0.1)

    def forward(self, tokens: Tensor) -> Tensor:
        """The text begins with these tokens. Raises ValueError for anything but (B, T) int64 ids of the vocabulary."""
        check_tokens(tokens, self.config.vocabulary)
        return self.step(tokens, self.start(tokens.shape[0], tokens.shape[1]))

    def start(self, batch: int, length: int) -> CarriedState:
        """Nothing is read yet: of each layer, state and cell (B, n) are zeros. Texts may be of any `length`."""
        each = 2 if self.config.cell == "lstm" else 1
        widths = [width for width in self.config.widths[1:] for _ in range(each)]
        return CarriedState([self.bias.new_zeros(batch, width) for width in widths])

    def step(self, tokens: Tensor, state: CarriedState) -> Tensor:
        """The next `tokens` (B, T) of the texts → logits (B, T, V) of what follows each; `state` takes them in."""
        return self.logits(self.hidden(tokens, state)[0])

    def hidden(self, tokens: Tensor, state: CarriedState) -> tuple[Tensor, Tensor]:
        """As `step`, the last layer's outputs (B, T, n): with dropout, from which the logits are, and without it."""
        raw = embed_with_dropout(self.token, tokens, self.config.word_dropout)
        carried: list[Tensor] = []
        for n, (layer, kept) in enumerate(with_state(self.layers, state.tensors)):
            raw, kept = layer(self.hidden_dropout(raw) if n else self.input_dropout(raw), kept)
            carried += kept
        state.tensors = carried
        return self.dropout(raw), raw

    def logits(self, outputs: Tensor) -> Tensor:
        table = self.token.weight if self.head is None else self.head.weight
        if not self.config.cutoffs:
            return F.linear(outputs, table, self.bias)
        bounds = (0, *self.config.cutoffs, self.config.vocabulary)

        def of_cluster(n: int, hidden: Tensor) -> Tensor:
            weight, bias = table[bounds[n] : bounds[n + 1]], self.bias[bounds[n] : bounds[n + 1]]
            if n == 0 and self.cluster_weight is not None and self.cluster_bias is not None:
                weight, bias = torch.cat([weight, self.cluster_weight]), torch.cat([bias, self.cluster_bias])
            return F.linear(hidden, weight, bias)

        return log_probabilities(outputs, of_cluster, self.config.cutoffs)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        layers = [(f"layers.{n}.",) for n in range(self.config.depth)]
        return [("token.",), *layers, ("head.", "bias", "cluster_")]


def salesforce_names(config: AWDConfig) -> list[Rule | tuple[str, str]]:
    """awd-lstm-lm's RNNModel; of its criterion, under `criterion.`, the clusters, which stand there the other way
    round."""
    inner = "module." if config.weight_drop else ""
    raw = "_raw" if config.weight_drop else ""
    tied = Rule("token.weight", ("encoder.weight", "decoder.weight"), lambda table, head: table, lambda t: (t, t))
    return [
        *([tied] if config.tied_head else [("token.weight", "encoder.weight"), ("head.weight", "decoder.weight")]),
        ("bias", "decoder.bias"),
        ("layers.{}.rnn.weight_hh_l0", f"rnns.{{}}.{inner}weight_hh_l0{raw}"),
        ("layers.{}.rnn.{}", f"rnns.{{}}.{inner}{{}}"),
        Rule("cluster_weight", ("criterion.tail_vectors",), lambda t: t.flip(0), lambda t: (t.flip(0),)),
        Rule("cluster_bias", ("criterion.tail_bias",), lambda t: t.flip(0), lambda t: (t.flip(0),)),
    ]


VARIANTS = {
    # ours: bytes, for a laptop
    "awd_lstm_nano": AWDConfig(
        128, 2, 128, vocabulary=256, context=32, dropout=0.05, hidden_dropout=0.05, input_dropout=0.05,
        word_dropout=0.0, weight_drop=0.1,
    ),
    "awd_lstm_ptb": AWDConfig(),
    "awd_lstm_wikitext2": AWDConfig(vocabulary=33278, hidden_dropout=0.2, input_dropout=0.65),
}  # fmt: skip
LANDMARK = Landmark(model=AWDLSTM, variants=VARIANTS, names={"salesforce": salesforce_names}, example=example_segment)
