"""Global attention with input feeding (Luong, Pham and Manning 2015, arXiv:1508.04025).

A stacked LSTM reads the source; a second one, which starts from its last states, writes the target. The state after
each step is compared with all source states, what is read is joined with it into an attentional vector (equation 5),
and that one goes into the next step beside the next token (section 3.3). Legend: B sentences, S source tokens, T target
tokens, n width of states, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.language.luong_names import NAMES
from orchard.models.language.source_target import check_source, check_target, example_sentences
from orchard.nn.recurrent import Recurrent, advance
from orchard.nn.soft_attention import AdditiveScore, DotScore, GeneralScore, read

CELLS: dict[str, type[nn.LSTMCell] | type[nn.GRUCell]] = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}
SCORES: dict[str, Callable[[int], nn.Module]] = {
    "dot": lambda width: DotScore(),
    "general": lambda width: GeneralScore(width, width),
    "additive": lambda width: AdditiveScore(width, width, width, bias=True),
}


@dataclass(frozen=True)
class LuongConfig:
    width: int
    depth: int
    embedding: int
    vocabulary: int = 50000  # of the target
    source_vocabulary: int = 0  # where it is not the target's
    context: int = 50  # the most tokens of a sentence learned from
    pad: int = 0  # the id that fills up shorter sources
    score: Literal["dot", "general", "additive"] = "general"
    cell: Literal["lstm", "gru"] = "lstm"
    bidirectional: bool = False  # OpenNMT's encoder reads in both directions, half the width each
    bridge: bool = False  # OpenNMT's layer between the last states of the encoder and the first of the decoder
    input_feeding: bool = True
    dropout: float = 0.2  # between layers and of attentional vectors

    def __post_init__(self) -> None:
        for name in ("width", "depth", "embedding", "vocabulary", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more")
        for name, known in (("score", SCORES), ("cell", CELLS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is '{getattr(self, name)}', expected {', '.join(known)}")
        if self.bidirectional and self.width % 2:
            raise ValueError(f"a width of {self.width} does not divide into two directions")


@dataclass
class State:
    """What the decoder keeps between two steps."""

    layers: list[tuple[Tensor, ...]]  # of each layer its state, (B, n), of an LSTM two
    memory: Tensor  # (B, S, n)
    keys: Tensor  # its share in the scores
    mask: Tensor  # (B, S), true at tokens
    fed: Tensor  # the last attentional vector, (B, n)
    attention: Tensor | None = None  # the weights of the last step, (B, S)

    def reorder(self, rows: Tensor) -> None:
        """Keep `rows` (N,) int64 of the B sentences, in this order; a row may be taken several times."""
        self.layers = [tuple(tensor[rows] for tensor in layer) for layer in self.layers]
        self.memory, self.keys, self.mask = self.memory[rows], self.keys[rows], self.mask[rows]
        self.fed = self.fed[rows]
        self.attention = None if self.attention is None else self.attention[rows]


class LuongAttention(nn.Module):
    """Source (B, S) and target (B, T), int64, to the logits of the token after each target token, (B, T, V)."""

    def __init__(self, config: LuongConfig):
        super().__init__()
        self.config = c = config
        cell, ways = CELLS[c.cell], (False, True) if c.bidirectional else (False,)
        self.source_token = nn.Embedding(c.source_vocabulary or c.vocabulary, c.embedding)
        self.target_token = nn.Embedding(c.vocabulary, c.embedding)
        widths = [c.embedding] + [c.width] * (c.depth - 1)
        self.encoder: Any = nn.ModuleList(
            nn.ModuleList(Recurrent(cell(width, c.width // len(ways)), backward=backward) for backward in ways)
            for width in widths
        )
        bridges = 0 if not c.bridge else 2 if c.cell == "lstm" else 1  # one for each tensor of a state
        self.bridge = nn.ModuleList(nn.Linear(c.depth * c.width, c.depth * c.width) for _ in range(bridges))
        widths[0] += c.width if c.input_feeding else 0
        self.decoder = nn.ModuleList(cell(width, c.width) for width in widths)
        self.score: Any = SCORES[c.score](c.width)
        additive = c.score == "additive"  # OpenNMT joins with a bias and without tanh where the score is additive
        self.join = nn.Linear(2 * c.width, c.width, bias=additive)
        self.activation = nn.Identity() if additive else nn.Tanh()
        self.dropout = nn.Dropout(c.dropout)
        self.head = nn.Linear(c.width, c.vocabulary)
        self.initialise()

    def initialise(self) -> None:
        """Uniform within ±0.1 (section 4.1)."""
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)

    def forward(self, source: Tensor, target: Tensor, source_mask: Tensor | None = None) -> Tensor:
        """`source_mask` (B, S) bool is true at tokens and false at padding, which follows them, by default where the
        source is not `pad`. Raises ValueError for anything but (B, S) and (B, T) int64 ids of the vocabularies."""
        check_target(target, source.shape[0], vocabulary=self.config.vocabulary, most=None)
        return self.step(target, self.start(source.shape[0], target.shape[1], source=source, source_mask=source_mask))

    def start(self, batch: int, length: int, *, source: Tensor, source_mask: Tensor | None = None) -> State:
        """Read `batch` sources (B, S). Targets may be of any `length`."""
        c = self.config
        check_source(source, source_mask, vocabulary=c.source_vocabulary or c.vocabulary, most=None)
        if source.shape[0] != batch:
            raise ValueError(f"expected {batch} sources, got {len(source)}")
        mask = source != c.pad if source_mask is None else source_mask
        memory, layers = self._encode(self.source_token(source), mask)
        return State(layers, memory, self.score.project(memory), mask, memory.new_zeros(batch, c.width))

    def _encode(self, x: Tensor, mask: Tensor) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        """Embeddings (B, S, E) to the memory (B, S, n) and the states that the decoder's layers start from."""
        layers = []
        for n, ways in enumerate(self.encoder):
            outputs, last = zip(*(way(self.dropout(x) if n else x, mask) for way in ways), strict=True)
            x = torch.cat(outputs, dim=-1)
            layers.append(tuple(torch.cat(tensors, dim=-1) for tensors in zip(*last, strict=True)))
        if self.config.bridge:
            sides = zip(self.bridge, zip(*layers, strict=True), strict=True)  # of all layers side by side
            moved = [layer(torch.cat(tensors, dim=-1)).relu().chunk(len(layers), dim=-1) for layer, tensors in sides]
            layers = list(zip(*moved, strict=True))
        return x, layers

    def step(self, tokens: Tensor, state: State) -> Tensor:
        """The next `tokens` (B, T) of the targets → logits (B, T, V) of what follows each; `state` takes them in."""
        vectors = []
        for x in self.target_token(tokens).unbind(1):
            x = torch.cat([x, state.fed], dim=-1) if self.config.input_feeding else x
            for n, cell in enumerate(self.decoder):
                state.layers[n] = advance(cell, self.dropout(x) if n else x, state.layers[n])
                x = state.layers[n][0]
            context, weights = read(self.score(x[:, None], state.keys), state.memory, state.mask)
            joined = self.join(torch.cat([context[:, 0], x], dim=-1))
            state.fed, state.attention = self.dropout(self.activation(joined)), weights[:, 0]
            vectors.append(state.fed)
        return self.head(torch.stack(vectors, dim=1))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        return [
            ("source_token.",),
            ("encoder.", "bridge."),
            ("target_token.", "decoder.", "score.", "join."),
            ("head.",),
        ]


VARIANTS = {
    # ours: four thousand byte pairs, for a laptop
    "luong_nano": LuongConfig(128, 1, 96, vocabulary=4000, context=128),
    "luong_global": LuongConfig(1000, 4, 1000),
}
LANDMARK = Landmark(model=LuongAttention, variants=VARIANTS, names=NAMES, example=example_sentences)
