"""What `orchard data check` says of questions: texts, questions and answers by split, what was moved or left out."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from orchard.data.checked import Checked, spread
from orchard.data.questions.sources import open_questions
from orchard.data.settings import QuestionSource


def check_questions(source: str, settings: Any) -> Checked:
    """Bad questions are listed, not refused."""
    known = settings.model_dump(include=set(QuestionSource.model_fields) & set(type(settings).model_fields))
    data = open_questions(source, QuestionSource.model_validate(known | {"bad_records": "skip"}))
    counts = {
        name: {
            "questions": len(split),
            "texts": len({one.of_text for one in split.questions}),
            "without an answer": sum(not one.answers for one in split.questions),
        }
        for name, split in data.splits.items()
    }
    every = [one for split in data.splits.values() for one in split.questions]
    facts = {
        "answers are compared as": "characters (Chinese)" if data.language == "zh" else "words",
        "characters of a text (5 %, median, 95 %)": spread(np.array([len(one.context) for one in every])),
        "characters of an answer": spread(np.array([len(answer.text) for one in every for answer in one.answers])),
    }
    splits: dict[int, set[str]] = defaultdict(set)
    keys = {}
    for name, split in data.splits.items():
        for one in split.questions:
            splits[one.of_text].add(name)
            keys[one.of_text] = one.key
    shared = tuple(f"{keys[mark]} ({', '.join(sorted(names))})" for mark, names in splits.items() if len(names) > 1)
    problems = tuple(f"{one.key}: {one.what}" for one in data.problems)
    lists = {"text in several splits": shared} if shared else {}
    return Checked(source, data.format, data.reason, counts, facts, problems, data.fingerprint, lists)
