"""What fewer bits cost: how well a trained model tells validation data when it writes in bf16 or int8, beside float32.

The decoder that `generate` uses is given what the data says, token by token, so each precision is asked the same
questions. Said are bits per code (painters) or token (texts), how often the most likely token is that of float32, and
the largest difference of two logits in units of the logits' standard deviation.

    python benchmarks/precision.py RUN --data digits
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orchard.app.evaluate import source_settings
from orchard.data.captions import open_captions
from orchard.data.text import open_text, tokenize
from orchard.data.text_tokenizer import read_text_tokenizer
from orchard.inference.decoding import Decoder, Precision
from orchard.inference.loading import Loaded, load
from orchard.tasks.image_tokenization.image_tokenizer import FOLDER, read_image_tokenizer
from orchard.tasks.registry import task_named
from orchard.tasks.text_generation import TASK as WRITING
from orchard.tasks.text_generation.pipeline import tokenizer_of
from orchard.tasks.text_to_image.caption_ids import CaptionIds
from orchard.tasks.text_to_image.encoded_captions import encode_split
from orchard.tasks.text_to_image.job import Captions, CodeLoader, token_counts

ROWS = 8
TEXT = WRITING.name
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")


def painter_questions(loaded: Loaded, source: str, count: int, settings: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Prompts (N, P) and the codes that follow, (N, n), of validation records."""
    wanted: Any = source_settings(task_named(loaded.task), source, settings)
    data = open_captions(source, wanted)
    coded = encode_split(data, "validation", read_image_tokenizer(loaded.folder / FOLDER), wanted.workers)
    ids = CaptionIds(read_text_tokenizer(loaded.folder), int(loaded.facts["text_length"]))
    captions = Captions(coded, ids, token_counts(coded, ids.tokenizer))
    batch = next(iter(CodeLoader(captions, batch_size=count, seed=0, training=False).batches(0)))
    model: Any = loaded.model
    return model.prompt(batch.text), batch.codes


def text_questions(loaded: Loaded, source: str, count: int, settings: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """First tokens (N, 1) of pieces of the validation text and what follows them, (N, context - 1)."""
    wanted: Any = source_settings(task_named(loaded.task), source, settings)
    text = tokenize(open_text(source, wanted), tokenizer_of(loaded)).splits["validation"]
    model: Any = loaded.model
    length = model.config.context
    count = min(count, len(text) // length)
    pieces = torch.from_numpy(text.tokens[: count * length].astype("int64")).view(count, length)
    return pieces[:, :1], pieces[:, 1:]


@torch.no_grad()
def told(loaded: Loaded, precision: Precision, prompts: Tensor, rest: Tensor) -> Tensor:
    """Logits (N, n, V) of every token of `rest` before it is told."""
    model: Any = loaded.model
    paints = loaded.task != TEXT
    decoder = Decoder(model, ROWS, prompts.shape[1] + rest.shape[1] - 1, precision=precision, compiled=False)
    found = []
    for some, answers in zip(torch.split(prompts, ROWS), torch.split(rest, ROWS), strict=True):
        logits, said = [decoder.prefill(some.tolist())], answers
        if len(said) < decoder.rows:
            said = torch.cat([said, said[-1:].expand(decoder.rows - len(said), -1)])
        tokens = model.code_tokens(said) if paints else said
        for place in range(rest.shape[1] - 1):
            logits.append(decoder.decode_step(tokens[:, place]))
        both = [model.code_logits(one) for one in logits] if paints else logits
        found.append(torch.stack(both, 1)[: len(answers)])
    return torch.cat(found)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--language", help="of the captions of a named set")
    parser.add_argument("--count", type=int, default=200, help="pictures, or pieces of text")
    asked = parser.parse_args()
    loaded = load(asked.run)
    loaded.model.eval()
    questions = text_questions if loaded.task == TEXT else painter_questions
    settings = {"language": asked.language} if asked.language else {}
    prompts, rest = questions(loaded, asked.data, asked.count, settings)
    print(f"{loaded.name}: {rest.numel():,} tokens of {len(rest)} validation records")
    print(f"{'':6}{'bits a token':>14}{'most likely as in fp32':>22}{'largest difference':>20}")
    exact = told(loaded, "fp32", prompts, rest)
    spread = exact.std(-1, keepdim=True)
    for precision in PRECISIONS:
        logits = exact if precision == "fp32" else told(loaded, precision, prompts, rest)
        bits = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rest.flatten()) / math.log(2)
        same = (logits.argmax(-1) == exact.argmax(-1)).float().mean()
        worst = ((logits - exact).abs() / spread).max()
        print(f"{precision:6}{bits:14.4f}{same:22.2%}{worst:20.3f}")


if __name__ == "__main__":
    main()
