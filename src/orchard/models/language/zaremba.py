"""The regularised LSTM language model (Zaremba, Sutskever and Vinyals 2014, arXiv:1409.2329).

Stacked LSTMs say what comes next; dropout is on what goes from layer to layer, never on what goes from one token to the
next (section 3.1), so that what was read long ago is not worn away. Legend: B texts, T tokens, n width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from orchard.models import Landmark, Rule
from orchard.nn.carried_state import CarriedState, check_tokens, example_segment
from orchard.nn.recurrent_layer import RecurrentLayer, with_state


@dataclass(frozen=True)
class ZarembaConfig:
    width: int
    depth: int = 2
    vocabulary: int = 10000
    context: int = 35  # tokens through which the gradient goes back
    dropout: float = 0.0
    bound: float = 0.1  # weights begin uniformly within it

    def __post_init__(self) -> None:
        for name in ("width", "depth", "vocabulary", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more")


class ZarembaLSTM(nn.Module):
    """Tokens (B, T) int64 to the logits of the token after each, (B, T, V)."""

    def __init__(self, config: ZarembaConfig):
        super().__init__()
        self.config = c = config
        self.token = nn.Embedding(c.vocabulary, c.width)
        self.layers = nn.ModuleList(RecurrentLayer(nn.LSTM(c.width, c.width, batch_first=True)) for _ in range(c.depth))
        self.dropout = nn.Dropout(c.dropout)
        self.head = nn.Linear(c.width, c.vocabulary)
        self.initialise()

    def initialise(self) -> None:
        """All weights and biases uniform within ±`bound`."""
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -self.config.bound, self.config.bound)

    def forward(self, tokens: Tensor) -> Tensor:
        """The text begins with these tokens. Raises ValueError for anything but (B, T) int64 ids of the vocabulary."""
        check_tokens(tokens, self.config.vocabulary)
        return self.step(tokens, self.start(tokens.shape[0], tokens.shape[1]))

    def start(self, batch: int, length: int) -> CarriedState:
        """Nothing is read yet: of each layer, state and cell (B, n) are zeros. Texts may be of any `length`."""
        zeros = self.token.weight.new_zeros(batch, self.config.width)
        return CarriedState([zeros for _ in range(2 * self.config.depth)])

    def step(self, tokens: Tensor, state: CarriedState) -> Tensor:
        """The next `tokens` (B, T) of the texts → logits (B, T, V) of what follows each; `state` takes them in."""
        return self.logits(self.hidden(tokens, state)[0])

    def hidden(self, tokens: Tensor, state: CarriedState) -> tuple[Tensor, Tensor]:
        """As `step`, the last layer's outputs (B, T, n): with dropout, from which the logits are, and without it."""
        raw = self.token(tokens)
        carried: list[Tensor] = []
        for layer, kept in with_state(self.layers, state.tensors):
            raw, kept = layer(self.dropout(raw), kept)
            carried += kept
        state.tensors = carried
        return self.dropout(raw), raw

    def logits(self, outputs: Tensor) -> Tensor:
        return self.head(outputs)  # type: ignore[no-any-return]

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        return [("token.",), *((f"layers.{n}.",) for n in range(self.config.depth)), ("head.",)]


TENSORS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
Table = list[Rule | tuple[str, str]]


def salesforce_names(config: Any) -> Table:
    """awd-lstm-lm's RNNModel without weight drop, each layer a module of its own."""
    return _names(*((f"layers.{{}}.rnn.{tensor}_l0", f"rnns.{{}}.{tensor}_l0") for tensor in TENSORS))


def pytorch_examples_names(config: Any) -> Table:
    """The word language model of PyTorch's examples, whose layers are one module."""
    return _names(*((f"layers.{{}}.rnn.{tensor}_l0", f"rnn.{tensor}_l{{}}") for tensor in TENSORS))


def _names(*layers: tuple[str, str]) -> Table:
    ends = [("token.weight", "encoder.weight"), ("head.weight", "decoder.weight"), ("head.bias", "decoder.bias")]
    return [*ends, *layers]


VARIANTS = {
    # ours: bytes, for a laptop
    "zaremba_nano": ZarembaConfig(128, vocabulary=256, context=32),
    "zaremba_small": ZarembaConfig(200, context=20),
    "zaremba_medium": ZarembaConfig(650, dropout=0.5, bound=0.05),
    "zaremba_large": ZarembaConfig(1500, dropout=0.65, bound=0.04),
}
LANDMARK = Landmark(
    model=ZarembaLSTM,
    variants=VARIANTS,
    names={"salesforce": salesforce_names, "pytorch_examples": pytorch_examples_names},
    example=example_segment,
)
