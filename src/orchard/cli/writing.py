"""What `orchard generate` does with a language model: text on stdout, as it is written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.cli.output import emit, note

if TYPE_CHECKING:
    from orchard.inference.sampling import Sampling


def write_text(
    run: Path,
    prompts: list[str],
    *,
    length: int,
    sampling: Sampling,
    stop: list[str],
    count: int,
    seed: int,
    precision: str,
    as_json: bool,
) -> None:
    """Go on with each prompt. One text appears as it is written, several one after the other when all are there.

    As JSON it is a list of {prompt, text}, `count` entries for each prompt; the text does not repeat the prompt.
    """
    from orchard.inference.writing import Writer

    writer = Writer(run, precision=precision, say=note)  # type: ignore[arg-type]
    wishes: dict[str, Any] = {"length": length, "sampling": sampling, "stop": stop, "seed": seed, "count": count}
    if len(prompts) * count == 1 and not as_json:
        pieces = writer.stream(prompts, **wishes)
        first = next(pieces, (0, ""))  # what is wrong with a prompt is said before it is printed
        sys.stdout.write(prompts[0] + first[1])
        for _, piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
        return
    texts = writer(prompts, **wishes)
    answers = [{"prompt": prompts[n // count], "text": text} for n, text in enumerate(texts)]

    def show(_: object) -> None:
        sys.stdout.write("\n---\n".join(answer["prompt"] + answer["text"] for answer in answers) + "\n")

    emit(answers, as_json, show)
