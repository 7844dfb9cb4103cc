"""BiLSTM-CRF: tags of words by what stands on both sides of them, and by one another (Huang, Xu and Yu 2015,
arXiv:1508.01991).

Every token's embedding is read from the left and from the right; a linear layer scores the tags of each (equation 1 to
3), and a CRF, where there is one, scores whole sequences of tags (section 2.4). Legend: B texts, T tokens, K tags.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.language.text_encoder import PLAIN, check_text, example_texts
from orchard.nn.bidirectional import BidirectionalLSTM
from orchard.nn.crf import LinearChainCRF


@dataclass(frozen=True)
class BiLSTMCRFConfig:
    embedding: int
    width: int  # of the state of each direction
    layers: int = 1
    crf: bool = True
    num_classes: int = 9  # tags: CoNLL-2003 has four types
    vocabulary: int = 8000
    pad: int = 0
    context: int = 512
    dropout: float = 0.0  # of what the LSTM reads and gives
    head: str = "token-classification"

    def __post_init__(self) -> None:
        for name in ("embedding", "width", "layers", "num_classes", "vocabulary", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more")
        if self.head != "token-classification":
            raise ValueError(f"head is '{self.head}', expected token-classification")


class TagHead(nn.Module):
    """Scores of K tags of what is known of each token, and a CRF over them, or none."""

    def __init__(self, inputs: int, tags: int, *, crf: bool):
        super().__init__()
        self.scores = nn.Linear(inputs, tags)
        self.crf = LinearChainCRF(tags) if crf else None

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.scores(x)
        return found


class BiLSTMCRF(nn.Module):
    """Ids (B, T) int64 to scores of the tags of each token, (B, T, K). `crf`, where it is not None, decodes them."""

    template = PLAIN
    head_name = "head"

    def __init__(self, config: BiLSTMCRFConfig):
        super().__init__()
        self.config = c = config
        self.token = nn.Embedding(c.vocabulary, c.embedding)
        self.lstm = BidirectionalLSTM(c.embedding, c.width, c.layers, c.dropout)
        self.head = TagHead(2 * c.width, c.num_classes, crf=c.crf)
        self.dropout = nn.Dropout(c.dropout)
        nn.init.uniform_(self.token.weight, -((3 / c.embedding) ** 0.5), (3 / c.embedding) ** 0.5)

    @property
    def crf(self) -> LinearChainCRF | None:
        return self.head.crf

    def forward(self, tokens: Tensor, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """`mask` (B, T) bool is true at tokens, by default where they are not `pad`; segments are not looked at.

        Raises ValueError for anything but ids of the vocabulary and a mask of their shape."""
        found: Tensor = self.head(self.dropout(self.hidden(tokens, mask, segments)))
        return found

    def hidden(self, tokens: Tensor, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """What both directions know at each token, (B, T, 2 width)."""
        check_text(self.config, tokens, mask, segments)
        mask = tokens != self.config.pad if mask is None else mask
        found: Tensor = self.lstm(self.dropout(self.token(tokens)), mask)
        return found

    def features(self, tokens: Tensor, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """The largest value of each unit over the tokens, (B, 2 width)."""
        seen = tokens != self.config.pad if mask is None else mask
        return self.hidden(tokens, mask, segments).masked_fill(~seen[..., None], -torch.inf).amax(1)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        return [("token.",), ("lstm.",), ("head.",)]


VARIANTS = {
    "bilstm_crf_nano": BiLSTMCRFConfig(100, 100, vocabulary=8000, dropout=0.5),  # ours: pieces of words, for a laptop
    "bilstm_nano": BiLSTMCRFConfig(100, 100, crf=False, vocabulary=8000, dropout=0.5),
    # the paper's widths (section 4.2), of a vocabulary of 130,000 words
    "bilstm_crf": BiLSTMCRFConfig(50, 300, vocabulary=130_000),
    "bilstm": BiLSTMCRFConfig(50, 300, crf=False, vocabulary=130_000),
}
LANDMARK = Landmark(model=BiLSTMCRF, variants=VARIANTS, example=example_texts)
