"""The report of a model that answers questions: how often it is right, and its worst answers in their texts."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from orchard.data.questions import QuestionSet
from orchard.data.questions.contracts import Question
from orchard.files import read_json
from orchard.report.run_page import Curve, Tile, write_run_page
from orchard.tasks.question_answering.metrics import exact_match, f1
from orchard.training.run import RunFolder

ANSWERS = "answers.json"  # in the run's folder "evaluation": the answers to the questions of the report's split
WORST, RIGHT = 20, 5  # answers that are shown
AROUND = 240  # characters of a text on each side of what is shown of it


@dataclass(frozen=True)
class Shown:
    question: str
    truth: list[str]
    answer: str
    score: float
    key: str
    pieces: list[tuple[str, str]]  # of the text: "" or what they are, "truth", "answer" or "both"


def write_answer_report(run: RunFolder, data: QuestionSet, report_split: str) -> Path:
    """Write report.html about a run whose other files are written, and return its path."""
    figures, facts = run.metrics().reported, run.facts().data.model_dump()
    answers, questions = read_json(run / "evaluation" / ANSWERS), data.splits[report_split].questions
    scored = []
    for one, found in zip(questions, answers, strict=True):
        truth = [answer.text for answer in one.answers]
        scored.append((f1(found["answer"], truth, data.language), exact_match(found["answer"], truth, data.language)))
    order = sorted(range(len(questions)), key=lambda n: (scored[n][0], -answers[n]["score"]))
    worst = [n for n in order if not scored[n][1]][:WORST]
    right = [n for n in order if scored[n][1]]
    right.sort(key=lambda n: (not answers[n]["answer"], -answers[n]["score"]))  # "no answer" has nothing to look at
    right = right[:RIGHT]
    counts = facts["counts"]
    tiles = [
        Tile(f"{report_split.capitalize()} F1", f"{figures['f1']:.1%}", "of the words of an answer"),
        Tile("Exact match", f"{figures['exact_match']:.1%}", "answers that are right as a whole"),
        Tile("Vocabulary", f"{facts['tokenizer']['vocabulary']:,}", "tokens of questions and texts"),
        Tile("Questions", f"{counts['train']:,}", "to learn from"),
    ]
    return write_run_page(
        run,
        Path(__file__).with_name("report.html.jinja"),
        tiles=tiles,
        curves=[
            Curve("F1", "f1", "answers", percent=True),
            Curve("Exact match", "exact_match", "answers", percent=True),
            Curve("Loss", "loss", "nats an end", falling=True),
        ],
        more_facts={"language": facts["language"]},
        report_split=report_split,
        figures=figures,
        kinds=by_beginning(questions, scored),
        worst=[_shown(questions[n], answers[n]) for n in worst],
        right=[_shown(questions[n], answers[n]) for n in right],
    )


def by_beginning(questions: Any, scored: Any) -> list[tuple[str, int, float, float]]:
    """Questions by their first word, of which there are ten or more: how many, exact match, F1."""
    groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for one, scores in zip(questions, scored, strict=True):
        groups[one.question.split()[0].lower()].append(scores)
    rows = [
        (word, len(found), sum(exact for _, exact in found) / len(found), sum(mean for mean, _ in found) / len(found))
        for word, found in groups.items()
        if len(found) >= 10
    ]
    return sorted(rows, key=lambda row: -row[1])[:15]


def _shown(one: Question, found: dict[str, Any]) -> Shown:
    """A text in pieces around its answers, the true one and the one that was found."""
    spans = [(answer.start, answer.start + len(answer.text), "truth") for answer in one.answers if answer.start >= 0][
        :1
    ]
    spans += [(found["start"], found["end"], "answer")] if found["answer"] else []
    begin = max(min((a for a, *_ in spans), default=0) - AROUND, 0)
    end = min(max((b for _, b, _ in spans), default=AROUND) + AROUND, len(one.context))
    edges = sorted({begin, end, *(edge for a, b, _ in spans for edge in (a, b))})
    pieces = [("..." if begin else "", "")]
    for a, b in pairwise(edges):
        names = {name for left, right, name in spans if left <= a and b <= right}
        pieces.append((one.context[a:b], "both" if len(names) == 2 else "".join(names)))
    pieces.append(("..." if end < len(one.context) else "", ""))
    truth = [answer.text for answer in one.answers]
    return Shown(one.question, list(dict.fromkeys(truth)), found["answer"], found["score"], one.key, pieces)
