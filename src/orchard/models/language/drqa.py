"""DrQA's document reader: which words of a text answer a question (Chen, Fisch, Weston and Bordes 2017,
arXiv:1704.00051, section 3.2).

Every token of the text is its embedding, whether the question has it, and the question's embeddings that it is like;
LSTMs read the text and the question; two bilinear forms of both score where an answer begins and ends. Legend: B texts,
T tokens of question and text together, D width of embeddings, n of states.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.language.text_encoder import BERT, check_text, example_texts
from orchard.nn.bidirectional import BidirectionalLSTM


@dataclass(frozen=True)
class DrQAConfig:
    embedding: int = 300
    width: int = 128  # of the state of each direction
    layers: int = 3  # of both LSTMs; what all of them give is put together
    vocabulary: int = 8000
    pad: int = 0
    context: int = 512
    dropout: float = 0.3
    num_classes: int = 0  # an answer is two places
    head: str = "question-answering"

    def __post_init__(self) -> None:
        for name in ("embedding", "width", "layers", "vocabulary", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more")
        if self.head != "question-answering":
            raise ValueError(f"head is '{self.head}', expected question-answering")


class SpanHead(nn.Module):
    """Where an answer begins and ends, by the text (B, T, M) and the question (B, M) → (B, T, 2).

    The paper's exp(p W q) for both ends; of the first token, which stands for no answer, two numbers of the question.
    """

    def __init__(self, width: int):
        super().__init__()
        self.begin = nn.Linear(width, width)
        self.end = nn.Linear(width, width)
        self.none = nn.Linear(width, 2)

    def forward(self, text: Tensor, question: Tensor) -> Tensor:
        keys = torch.stack([self.begin(question), self.end(question)], dim=-1)  # (B, M, 2)
        first = torch.arange(text.shape[1], device=text.device)[:, None] == 0
        return torch.where(first, self.none(question)[:, None], text @ keys)


class DrQA(nn.Module):
    """Ids (B, T) of a question (segment 0) and a text (segment 1) to scores of every token as the first and as the
    last of the answer, (B, T, 2). Those of the question's tokens mean nothing, but the first: it stands for no answer.
    """

    template = BERT
    head_name = "head"

    def __init__(self, config: DrQAConfig):
        super().__init__()
        self.config = c = config
        self.token = nn.Embedding(c.vocabulary, c.embedding)
        self.align = nn.Linear(c.embedding, c.embedding)  # alpha
        self.question = BidirectionalLSTM(c.embedding, c.width, c.layers, c.dropout)
        self.text = BidirectionalLSTM(2 * c.embedding + 1, c.width, c.layers, c.dropout)
        self.weigh = nn.Linear(2 * c.width * c.layers, 1, bias=False)  # w
        self.head = SpanHead(2 * c.width * c.layers)
        self.dropout = nn.Dropout(c.dropout)
        nn.init.normal_(self.token.weight, std=0.1)

    def forward(self, tokens: Tensor, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """`mask` (B, T) is true at tokens, by default where they are not `pad`; without segments all is the text.

        Raises ValueError for anything but ids of the vocabulary, and a mask and segments of their shape."""
        text, question = self._read(tokens, mask, segments)
        found: Tensor = self.head(self.dropout(text), self.dropout(question))
        return found

    def hidden(self, tokens: Tensor, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """What is known at each token of the text, (B, T, M); 0 at those of the question."""
        return self._read(tokens, mask, segments)[0]

    def features(self, tokens: Tensor, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """The question, (B, M)."""
        return self._read(tokens, mask, segments)[1]

    def _read(self, tokens: Tensor, mask: Tensor | None, segments: Tensor | None) -> tuple[Tensor, Tensor]:
        check_text(self.config, tokens, mask, segments)
        seen = tokens != self.config.pad if mask is None else mask
        segments = torch.ones_like(tokens) if segments is None else segments
        asked, told = seen & (segments == 0), seen & (segments == 1)
        x = self.dropout(self.token(tokens))
        question = torch.cat(self.question.layers(x, asked), dim=-1)
        weights = _softmax(self.weigh(question)[..., 0], asked)
        summary = (weights[:, None] @ question)[:, 0]
        same = tokens[:, :, None] == tokens[:, None, :]  # (B, T, T)
        exact = (same & asked[:, None]).any(-1, keepdim=True).to(x.dtype)
        likeness = self.align(x).relu()
        aligned = _softmax(likeness @ likeness.mT, asked[:, None].expand_as(same)) @ x
        # The text begins behind the question; the LSTM reads it as if it began a row.
        at = torch.arange(tokens.shape[1], device=tokens.device)
        begin = asked.sum(1, keepdim=True)
        ahead = ((at + begin) % tokens.shape[1])[..., None]
        back = ((at - begin) % tokens.shape[1])[..., None]
        known = torch.cat([x, exact, aligned], dim=-1)
        known = known.gather(1, ahead.expand_as(known))
        read = torch.cat(self.text.layers(known, told.gather(1, ahead[..., 0])), dim=-1)
        return read.gather(1, back.expand_as(read)).masked_fill(~told[..., None], 0), summary

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        return [("token.",), ("align.", "question.", "text.", "weigh."), ("head.",)]


def _softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Over the last axis where the mask is true; where it is nowhere true, zeros."""
    found = scores.masked_fill(~mask, -1e4).softmax(-1)
    return found.masked_fill(~mask, 0)


VARIANTS = {
    "drqa_nano": DrQAConfig(64, 48, 2, vocabulary=4000),  # ours: pieces of words, for a laptop
    "drqa": DrQAConfig(vocabulary=91_187),  # the paper's sizes; the vocabulary of SQuAD in its Glove vectors
}
LANDMARK = Landmark(model=DrQA, variants=VARIANTS, example=example_texts)
