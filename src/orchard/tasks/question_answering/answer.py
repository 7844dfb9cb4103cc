"""Answers on the command line: what of a text answers a question, and where it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.errors import OrchardError, UsageError
from orchard.inference.artifacts import Artifact
from orchard.tasks.question_answering.settings import Options

if TYPE_CHECKING:
    from rich.console import Console

AROUND = 60  # characters of the text that are shown on each side of an answer
TOGETHER = 64  # questions of a file that are answered side by side


@dataclass(frozen=True)
class AnsweredQuestion(Artifact):
    """A question and its answer in a text, "" where there is none."""

    item: str
    answer: str
    score: float
    start: int
    end: int
    context: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"question": self.item, "answer": self.answer, "score": self.score, "start": self.start, "end": self.end}

    @classmethod
    def show(cls, artifacts: Iterator[AnsweredQuestion], console: Console) -> None:
        """The answer, and below it in the text around it."""
        from rich.text import Text

        for one in artifacts:
            if not one.answer:
                console.print(f"{one.item} no answer in the text ({one.score:.1%})", soft_wrap=True)
                continue
            console.print(
                Text.assemble(f"{one.item} ", (one.answer, "bold green"), f" ({one.score:.1%})"), soft_wrap=True
            )
            before, after = one.context[max(one.start - AROUND, 0) : one.start], one.context[one.end :][:AROUND]
            line = Text.assemble(
                ("..." if one.start > AROUND else "") + before, (f"[{one.answer}]", "bold green"),
                after + ("..." if one.end + AROUND < len(one.context) else ""), style="dim",
            )  # fmt: skip
            console.print(line, soft_wrap=True)


def answer(
    folder: Path, items: Sequence[str], options: Options, say: Callable[[str], None]
) -> Iterator[AnsweredQuestion]:
    """The answer to each question in the text that `--context` gives, or to all questions of files in SQuAD's form."""
    asked = list(_questions(items, options.context))
    from orchard.inference.loading import load
    from orchard.tasks.question_answering.pipeline import answerer_of

    answerer = answerer_of(load(folder), options.longest, options.threshold)
    for at in range(0, len(asked), TOGETHER):
        part = asked[at : at + TOGETHER]
        for (question, context), one in zip(part, answerer.answer(part), strict=True):
            yield AnsweredQuestion(question, one.answer, one.score, one.start, one.end, context)


def _questions(items: Sequence[str], context: str | None) -> Iterator[tuple[str, str]]:
    if not items:
        raise UsageError('nothing is asked for; give a question and its text, such as orchard predict RUN "Who?" '
                         "--context FILE")  # fmt: skip
    text = None if context is None else _text(context)
    for number, item in enumerate(items, 1):
        if not item.strip():
            raise UsageError(f"question {number} is empty; say what is to be answered")
        if text is not None:
            yield item, text
        elif item.lower().removesuffix(".gz").endswith((".json", ".jsonl")) and Path(item).is_file():
            from orchard.data.questions.reading import read_questions

            for one in read_questions(Path(item)):
                if one.question is None:
                    raise OrchardError(f"{one.key}: {one.fault}")
                yield one.question.question, one.question.context
        else:
            raise UsageError(f"'{item[:60]}' has no text to be answered from; give one with --context FILE, or a file "
                             "of questions in SQuAD's form")  # fmt: skip


def _text(context: str) -> str:
    from orchard.packed import read_bytes

    path = Path(context)
    if len(context) > 1000 or not (path.is_file() or path.is_fifo()):
        if not context.strip():
            raise UsageError("--context is empty; expected a file, or a text")
        if context.isascii() and len(context.split()) == 1 and ("/" in context or path.suffix):
            raise UsageError(f"--context: there is no file {context}; expected one, or a text of several words")
        return context
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise OrchardError(f"{path} is not UTF-8; convert it, for example with iconv") from None
