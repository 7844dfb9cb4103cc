"""Text from a trained language model: prompts go on, piece by piece, several at a time.

What a prompt gets depends on the prompt, the seed and the number of its candidate, not on what is written beside it (up
to the rounding of sums, which batches of other sizes may do in another order).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from orchard.data.counter_rng import uniforms
from orchard.data.tokenizers import Tokenizer, load_tokenizer
from orchard.errors import OrchardError, UsageError
from orchard.inference.decoding import Decoder, Precision, writing_precision
from orchard.inference.detokenizer import StreamingDetokenizer
from orchard.inference.kernels import build_kernels
from orchard.inference.loading import Loaded, load
from orchard.inference.sampling import Sampling, choose
from orchard.inference.state_decoder import StateDecoder
from orchard.nn.carried_state import carries_state
from orchard.nn.pointer_cache import PointerCache
from orchard.tasks.text_generation.streams import read_stream

TOKENIZER = "text_tokenizer"  # the folder beside the weights
MOST_ROWS = 64  # written side by side; more wait their turn
ROOM = 64  # the memory's length is a multiple of it, so that like calls find the decoder ready


class TextGenerator:
    """Goes on with text.

    >>> TextGenerator("runs/gpt2_tiny-shakespeare")("ROMEO:", length=200, sampling=Sampling(temperature=0.8))

    `precision` is that of the decoder; "auto" is bf16 where the hardware multiplies it and the model is large enough.
    `say` is told, in a line, what a person should know of their prompts. Raises UsageError for a model of another task
    and OrchardError for one without a tokenizer.
    """

    def __init__(
        self,
        loaded: Loaded | str | Path,
        *,
        precision: Precision | Literal["auto"] = "auto",
        say: Callable[[str], None] | None = None,
    ):
        loaded = loaded if isinstance(loaded, Loaded) else load(loaded)
        if loaded.task != "text-generation":
            raise UsageError(f"{loaded.folder}: {loaded.name} is a model for {loaded.task}; it writes no text")
        self.tokenizer = tokenizer_of(loaded)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model: Any = loaded.model.to(device).eval()
        self.model, self.context = model, int(model.config.context)
        self.say = say or (lambda message: None)
        if device.type == "cpu":
            build_kernels(self.say)
        self.carries = carries_state(model)
        self.precision = "fp32" if self.carries and precision == "auto" else writing_precision(model, precision)
        self.end = self.tokenizer.specials.get("end")
        silent = [token for role, token in self.tokenizer.specials.items() if role != "end"]
        self._silent = torch.zeros(self.tokenizer.vocabulary, dtype=torch.bool, device=device)
        self._silent[silent] = True
        self._ready: tuple[tuple[int, int], Decoder] | None = None

    def __call__(
        self,
        prompts: str | Sequence[str],
        *,
        length: int,
        sampling: Sampling,
        stop: Sequence[str] = (),
        seed: int = 0,
        count: int = 1,
    ) -> list[str]:
        """What follows each prompt, `count` texts for the first, then `count` for the second, ... (see `stream`)."""
        prompts = [prompts] if isinstance(prompts, str) else prompts
        texts = [""] * (len(prompts) * count)
        for row, piece in self.stream(prompts, length=length, sampling=sampling, stop=stop, seed=seed, count=count):
            texts[row] += piece
        return texts

    def stream(
        self,
        prompts: Sequence[str],
        *,
        length: int,
        sampling: Sampling,
        stop: Sequence[str] = (),
        seed: int = 0,
        count: int = 1,
    ) -> Iterator[tuple[int, str]]:
        """(row, next piece of its text) as it is written; row n is candidate n % count of prompt n // count.

        Each text is at most `length` tokens, and ends before any of the `stop` words and where the model says it ends.
        No piece cuts a character. Beyond the context of a model that sees a window, its last half is read again and
        gone on from. An empty prompt begins where a text begins; UsageError for a tokenizer that has no sign for it.
        """
        if length < 1 or count < 1:
            raise UsageError(f"a length of {length} and {count} texts: expected 1 or more")
        if "" in stop:
            raise UsageError("a stop word is empty; it would end every text before it begins")
        read = [self._read(prompt) for prompt in prompts]
        rows = [
            _Row(place * count + n, n, list(ids), StreamingDetokenizer(self.tokenizer, ids, stop))
            for place, ids in enumerate(read)
            for n in range(count)
        ]
        for first in range(0, len(rows), MOST_ROWS):
            yield from self._write(rows[first : first + MOST_ROWS], length, sampling, seed)

    @torch.no_grad()
    def token_nll(self, ids: Sequence[int], pointer: PointerCache | None = None) -> Tensor:
        """-log p of every token but the first, (N - 1,) float32 in nats, each after at least half a context if there
        is one; of a model that carries a state, after all before it, with a `pointer` mixed with words read lately."""
        if len(ids) < 2:
            raise UsageError(f"{len(ids)} tokens: a text needs two before one can be expected from another")
        if self.carries:
            tokens = torch.tensor(ids, device=self._silent.device)
            return torch.cat(list(read_stream(self.model, tokens, pointer))).cpu()
        if pointer is not None:
            raise UsageError("a pointer cache is for models that carry a state; this one reads windows of a text")
        tokens, done, found = torch.tensor(ids), 0, []
        while done < len(ids) - 1:
            begin = max(0, done - self.context // 2)
            end = min(begin + self.context, len(ids) - 1)
            window = tokens[begin : end + 1].to(self._silent.device)
            logits = self.model(window[None, :-1])[0].float()
            found.append(F.cross_entropy(logits, window[1:], reduction="none")[done - begin :])
            done = end
        return torch.cat(found).cpu()

    def perplexity(self, text: str) -> float:
        """The exponential of the mean surprise per token; the first token is given."""
        return math.exp(min(float(self.token_nll(self.tokenizer.encode(text)).mean()), 700.0))

    def _read(self, prompt: str) -> list[int]:
        ids = self.tokenizer.encode(prompt)
        if not ids and self.end is None:
            raise UsageError("the prompt is empty, and this model has no sign for where a text begins; give it a word")
        strange = self.tokenizer.specials.get("unknown")
        if strange in ids:
            parts = prompt.split() if self.tokenizer.kind == "whitespace" else prompt
            found = sorted({repr(one) for one in parts if strange in self.tokenizer.encode(one)})
            self.say(f"this model has never seen {', '.join(found) or 'a word of the prompt'}")
        if len(ids) >= self.context and not self.carries:
            self.say(f"a prompt of {len(ids)} tokens is longer than what the model remembers; its end is read")
        return ids or [int(self.end or 0)]

    def _decoder(self, rows: int, needed: int) -> Decoder | StateDecoder:
        """A memory for `needed` tokens of so many rows, as far as the context goes; the last one is kept."""
        if self.carries:
            return StateDecoder(self.model, rows, needed + 1, precision=self.precision)
        key = rows, min(-(-needed // ROOM) * ROOM, self.context)
        if self._ready is None or self._ready[0] != key:
            self._ready = key, Decoder(self.model, *key, precision=self.precision, compiled=False)
        return self._ready[1]

    def _write(self, rows: list[_Row], length: int, sampling: Sampling, seed: int) -> Iterator[tuple[int, str]]:
        decoder = self._decoder(len(rows), max(len(row.ids) for row in rows) + length)
        candidates = np.array([row.candidate for row in rows])
        logits = decoder.prefill([row.window(decoder.length) for row in rows])
        for place in range(length):
            chance = torch.from_numpy(uniforms(seed, place, candidates, 1)[:, 0])
            logits = logits[: len(rows), : self.tokenizer.vocabulary].masked_fill(self._silent, float("-inf"))
            tokens = choose(logits, chance, sampling, [row.ids for row in rows])
            for row, token in zip(rows, tokens.tolist(), strict=True):
                if not row.detokenizer.ended:
                    row.ids.append(token)
                    piece = row.detokenizer.rest() if token == self.end else row.detokenizer.add(token)
                    if piece:
                        yield row.number, piece
            if place + 1 == length or all(row.detokenizer.ended for row in rows):
                break
            if decoder.position + 1 < decoder.length:
                logits = decoder.decode_step(F.pad(tokens, (0, decoder.rows - len(rows))))
            else:
                logits = decoder.prefill([row.window(decoder.length) for row in rows])
        for row in rows:
            if rest := row.detokenizer.rest():
                yield row.number, rest


@dataclass
class _Row:
    """One text in the making."""

    number: int
    candidate: int
    ids: list[int]  # of the prompt and what follows it
    detokenizer: StreamingDetokenizer
    begin: int = field(default=0)  # where the part begins that the model has in view

    def window(self, length: int) -> list[int]:
        """What the model is to read: all in view, or its last half where that fills a memory of `length`.

        When a row moves on depends on its own tokens alone, so that it does so at the same place in any company.
        """
        if self.detokenizer.ended:
            return self.ids[-1:]
        if len(self.ids) - self.begin >= length:
            self.begin = len(self.ids) - max(length // 2, 1)
        return self.ids[self.begin :]


def tokenizer_of(loaded: Loaded) -> Tokenizer:
    """The tokenizer that lies beside the weights. Raises OrchardError where none does, or it is of another model."""
    folder = loaded.folder / TOKENIZER
    if not folder.is_dir():
        raise OrchardError(f"{loaded.folder} has no {TOKENIZER}; save there the tokenizer it was trained with")
    tokenizer = load_tokenizer(folder)
    config: Any = loaded.model.config
    if tokenizer.vocabulary > config.vocabulary:
        raise OrchardError(
            f"{folder} has {tokenizer.vocabulary} tokens, the model beside it {config.vocabulary}; it is of another one"
        )
    return tokenizer
