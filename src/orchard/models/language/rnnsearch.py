"""RNNsearch: translation that learns to align (Bahdanau, Cho and Bengio 2014, arXiv:1409.0473).

An encoder reads the source in both directions and keeps one annotation a word. Before every word that it writes, the
decoder scores all annotations against its state and reads their weighted mean. Equations are those of appendix A; where
the paper leaves the order of a step open, it is that of the authors' program (GroundHog). Legend: B sentences, S source
tokens, T target tokens, E width of embeddings, n of states, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.language.rnnsearch_names import NAMES
from orchard.models.language.source_target import check_source, check_target, example_sentences
from orchard.nn.recurrent import GRUCell, Recurrent
from orchard.nn.soft_attention import AdditiveScore, read


@dataclass(frozen=True)
class RNNSearchConfig:
    width: int  # of the state of each direction of the encoder, and of the decoder
    embedding: int
    alignment: int  # hidden units of the network that scores
    maxout: int  # pairs of units before the output layer
    vocabulary: int = 30000  # of each language; the tables are two
    context: int = 50  # the most tokens of a sentence learned from
    pad: int = 0  # the id that fills up shorter sources
    dropout: float = 0.0  # of embeddings and of the maxout layer; the paper has none

    def __post_init__(self) -> None:
        for name in ("width", "embedding", "alignment", "maxout", "vocabulary", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more")


@dataclass
class State:
    """What the decoder keeps between two steps."""

    hidden: Tensor  # (B, n)
    memory: Tensor  # the annotations, (B, S, 2n)
    keys: Tensor  # their share in the scores, (B, S, alignment)
    mask: Tensor  # (B, S), true at tokens
    context: Tensor | None = None  # what the last step read, (B, 2n); none before the first
    attention: Tensor | None = None  # the weights that it read with, (B, S)

    def reorder(self, rows: Tensor) -> None:
        """Keep `rows` (N,) int64 of the B sentences, in this order; a row may be taken several times."""
        for name, tensor in vars(self).items():
            if tensor is not None:
                setattr(self, name, tensor[rows])


class RNNSearch(nn.Module):
    """Source (B, S) and target (B, T), int64, to the logits of the token after each target token, (B, T, V).

    The first target token says that nothing has been written yet, whatever its id: no embedding stands for it.
    """

    def __init__(self, config: RNNSearchConfig):
        super().__init__()
        self.config = c = config
        self.source_token = nn.Embedding(c.vocabulary, c.embedding)
        self.target_token = nn.Embedding(c.vocabulary, c.embedding)
        self.forward_input = nn.Linear(c.embedding, 3 * c.width, bias=False)  # W_z, W_r, W of each direction
        self.forward_encoder = Recurrent(GRUCell(c.width), backward=False)
        self.backward_input = nn.Linear(c.embedding, 3 * c.width, bias=False)
        self.backward_encoder = Recurrent(GRUCell(c.width), backward=True)
        self.first_state = nn.Linear(c.width, c.width)  # W_s
        self.score = AdditiveScore(c.width, 2 * c.width, c.alignment, bias=False)  # W_a, U_a, v_a
        self.feedback = nn.Linear(c.embedding, 3 * c.width, bias=False)  # W_z, W_r, W
        self.reading = nn.Linear(2 * c.width, 3 * c.width, bias=False)  # C_z, C_r, C
        self.cell = GRUCell(c.width)  # U_z, U_r, U
        self.deep_state = nn.Linear(c.width, 2 * c.maxout)  # U_o
        self.deep_token = nn.Linear(c.embedding, 2 * c.maxout, bias=False)  # V_o
        self.deep_context = nn.Linear(2 * c.width, 2 * c.maxout, bias=False)  # C_o
        self.head = nn.Linear(c.maxout, c.vocabulary)  # W_o
        self.dropout = nn.Dropout(c.dropout)
        self.initialise()

    def initialise(self) -> None:
        """Appendix B.1: recurrent matrices orthogonal, v_a and biases zero, the rest normal, 0.01 (W_a, U_a 0.001)."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.01)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, GRUCell):
                for square in (*module.gates.weight.chunk(2), module.candidate.weight):
                    nn.init.orthogonal_(square)
        for layer in (self.score.query, self.score.memory):
            nn.init.normal_(layer.weight, std=0.001)
        nn.init.zeros_(self.score.out.weight)

    def forward(self, source: Tensor, target: Tensor, source_mask: Tensor | None = None) -> Tensor:
        """`source_mask` (B, S) bool is true at tokens and false at padding, by default where the source is not `pad`.

        Raises ValueError for anything but (B, S) and (B, T) int64 ids of the vocabulary.
        """
        check_source(source, source_mask, vocabulary=self.config.vocabulary, most=None)
        check_target(target, source.shape[0], vocabulary=self.config.vocabulary, most=None)
        return self.step(target, self._read(source, source_mask))

    def start(self, batch: int, length: int, *, source: Tensor, source_mask: Tensor | None = None) -> State:
        """Read `batch` sources (B, S). Targets may be of any `length`."""
        check_source(source, source_mask, vocabulary=self.config.vocabulary, most=None)
        if source.shape[0] != batch:
            raise ValueError(f"expected {batch} sources, got {len(source)}")
        return self._read(source, source_mask)

    def _read(self, source: Tensor, source_mask: Tensor | None) -> State:
        mask = source != self.config.pad if source_mask is None else source_mask
        x = self.dropout(self.source_token(source))
        forward, _ = self.forward_encoder(self.forward_input(x), mask)
        backward, (at_first_token,) = self.backward_encoder(self.backward_input(x), mask)
        memory = torch.cat([forward, backward], dim=-1)
        return State(self.first_state(at_first_token).tanh(), memory, self.score.project(memory), mask)

    def step(self, tokens: Tensor, state: State) -> Tensor:
        """The next `tokens` (B, T) of the targets → logits (B, T, V) of what follows each; `state` takes them in.

        A token goes into the state together with the context that it was chosen by; the new state then decides what is
        read for the next one, which is scored by state, context and token.
        """
        embedded = self.dropout(self.target_token(tokens))
        if state.context is None:
            first = torch.arange(tokens.shape[1], device=tokens.device) == 0
            embedded = embedded.masked_fill(first[:, None], 0.0)
        hidden, contexts = [], []
        for x in self.feedback(embedded).unbind(1):
            if state.context is not None:
                state.hidden = self.cell(x + self.reading(state.context), state.hidden)
            scores = self.score(state.hidden[:, None], state.keys)
            context, weights = read(scores, state.memory, state.mask)
            state.context, state.attention = context[:, 0], weights[:, 0]
            hidden.append(state.hidden)
            contexts.append(state.context)
        deep = self.deep_state(torch.stack(hidden, 1)) + self.deep_token(embedded)
        deep = deep + self.deep_context(torch.stack(contexts, 1))
        return self.head(self.dropout(deep.unflatten(-1, (-1, 2)).amax(-1)))  # maxout of neighbours

    def alignments(self, source: Tensor, target: Tensor, source_mask: Tensor | None = None) -> Tensor:
        """Which source tokens each target token is written from: the weights (B, T, S) of every step."""
        state, weights = self._read(source, source_mask), []
        for token in target.unbind(1):
            self.step(token[:, None], state)
            weights.append(state.attention)
        return torch.stack(weights, dim=1)  # type: ignore[arg-type]

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        return [
            ("source_token.",),
            ("forward_", "backward_"),
            ("target_token.", "first_state.", "score.", "feedback.", "reading.", "cell."),
            ("deep_state.", "deep_token.", "deep_context.", "head."),
        ]


def infer_config(config: RNNSearchConfig, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """The vocabulary of a checkpoint."""
    head = lookup("head.bias")
    return {} if head is None else {"vocabulary": len(head)}


VARIANTS = {
    # ours: four thousand byte pairs, for a laptop
    "rnnsearch_nano": RNNSearchConfig(128, 96, 96, 64, vocabulary=4000, context=128),
    "rnnsearch_30": RNNSearchConfig(1000, 620, 1000, 500, context=30),
    "rnnsearch_50": RNNSearchConfig(1000, 620, 1000, 500, context=50),
}
LANDMARK = Landmark(
    model=RNNSearch, variants=VARIANTS, names=NAMES, infer_config=infer_config, example=example_sentences
)
