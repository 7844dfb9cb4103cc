"""Files of questions: the JSON of SQuAD and of CMRC 2018 (both forms), and JSON lines as Hugging Face has them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchard.data.questions.contracts import NOWHERE, Answer, Question
from orchard.errors import OrchardError
from orchard.packed import read_bytes

NEAR = 20  # characters around its place in which a misplaced answer is looked for, where the text has it several times


@dataclass(frozen=True)
class Read:
    """A question, or what is wrong with it; `moved` says where an answer really stands, if not where the file says."""

    key: str
    question: Question | None = None
    fault: str = ""
    moved: str = ""


def read_questions(path: Path) -> list[Read]:
    """The questions of a file, bad ones among them. Raises OrchardError for a file that cannot be read or has none."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OrchardError(
            f"{path} is not UTF-8 (byte {error.start}); convert it, for example with iconv -f gb18030 -t utf-8"
        ) from None
    lines = path.name.lower().removesuffix(".gz").endswith(".jsonl")
    found = list(_lines(path, text) if lines else _squad(path, text))
    if not found:
        raise OrchardError(f"{path} has no question; expected SQuAD's form: data, paragraphs, context, qas")
    return found


def _load(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OrchardError(f"{where} is no JSON: {str(error)[:80]}") from None


def _lines(path: Path, text: str) -> Iterator[Read]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            key = f"{path}, line {number}"
            table = _load(key, line)
            yield question_of(table if isinstance(table, dict) else {}, None, key)


def _squad(path: Path, text: str) -> Iterator[Read]:
    found = _load(str(path), text)
    articles = found.get("data") if isinstance(found, dict) else found
    if not isinstance(articles, list):
        raise OrchardError(f"{path} is of another form than SQuAD's; expected a list 'data' of articles")
    for article in articles:
        paragraphs = article.get("paragraphs", [article]) if isinstance(article, dict) else [None]
        for paragraph in paragraphs if isinstance(paragraphs, list) else [None]:
            if not isinstance(paragraph, dict) or not isinstance(paragraph.get("qas"), list):
                raise OrchardError(f"{path} has a paragraph without 'context' and 'qas'")
            context = paragraph.get("context", paragraph.get("context_text"))
            for table in paragraph["qas"]:
                yield question_of(table if isinstance(table, dict) else {}, context, str(path))


def question_of(table: Mapping[str, Any], context: Any, where: str) -> Read:
    """A question out of its table; `context` where it does not stand in the table itself."""
    name = table.get("id", table.get("query_id"))
    key = where if name is None else f"{where}, question {name}"
    question = table.get("question", table.get("query_text"))
    context = table.get("context") if context is None else context
    if not isinstance(question, str) or not question.strip():
        return Read(key, fault="it has no text in 'question'")
    if not isinstance(context, str) or not context.strip():
        return Read(key, fault="it has no text in 'context'")
    answers, moved = [], ""
    if not table.get("is_impossible"):
        stated = _stated(table.get("answers"))
        if isinstance(stated, str):
            return Read(key, fault=stated)
        for text, start in stated:
            at = _place(context, text, start)
            if at is None:
                moved = f"its answer '{text[:40]}' stands nowhere in the text near {start}"
            elif start is not None and at != start:
                moved = f"its answer '{text[:40]}' stands at {at}, not at {start}"
            answers.append(Answer(text, NOWHERE if at is None else at))
        if answers and all(one.start == NOWHERE for one in answers):
            at_all = stated[0][1]
            return Read(
                key,
                fault=f"its answer '{answers[0].text[:40]}' does not stand in the text at {at_all}, nor once near it",
            )
    return Read(key, Question(str(name or ""), question.strip(), context, tuple(answers), key), moved=moved)


def _stated(answers: Any) -> list[tuple[str, int | None]] | str:
    """Answers with their places, None where there is none; or what is wrong with them."""
    if isinstance(answers, Mapping):  # Hugging Face has two lists
        texts, starts = answers.get("text"), answers.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            return "its 'answers' have no equally long 'text' and 'answer_start'"
        answers = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    if not isinstance(answers, list):
        return "it has no list of 'answers'; a question without an answer says is_impossible or has an empty list"
    found: list[tuple[str, int | None]] = []
    for one in answers:
        text, start = (one.get("text"), one.get("answer_start")) if isinstance(one, Mapping) else (one, None)
        if not isinstance(text, str) or not text.strip():
            return "one of its answers has no text"
        if start is not None and (not isinstance(start, int) or isinstance(start, bool)):
            return f"the 'answer_start' of '{text[:40]}' is no number"
        found.append((text, start))
    return found


def _place(context: str, text: str, start: int | None) -> int | None:
    """Where an answer stands: at `start`, else where the text has it once, else where it has it once near `start`."""
    if start is not None and start >= 0 and context[start : start + len(text)] == text:
        return start
    if context.count(text) == 1 or (start is None and text in context):
        return context.find(text)
    if start is None:
        return None
    begin = max(start - NEAR, 0)
    part = context[begin : max(start, 0) + len(text) + NEAR]
    return begin + part.find(text) if part.count(text) == 1 else None
