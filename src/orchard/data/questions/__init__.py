"""Questions about texts, answered by a part of the text (extractive question answering)."""

from orchard.data.questions.contracts import Answer, Question, QuestionSet, QuestionSplit
from orchard.data.questions.sources import open_questions

__all__ = ["Answer", "Question", "QuestionSet", "QuestionSplit", "open_questions"]
