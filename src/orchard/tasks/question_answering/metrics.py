"""Exact match and F1 of answers, as the evaluations of SQuAD (English) and CMRC 2018 (Chinese) compute them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher

from orchard.data.tokenizer_files import CHINESE

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_SIGNS = set(string.punctuation)
_CHINESE_SIGNS = set("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")  # those that CMRC's evaluation leaves out
_CHINESE_PARTS = re.compile(rf"{CHINESE}|\d+(?:[.,]\d+)*|(?:(?!{CHINESE})\w)+|\S")


def normalise(text: str, language: str) -> str:
    """What of an answer is compared: lower case without punctuation; in English without articles, too."""
    if language == "zh":
        return "".join(character for character in text.lower().strip() if character not in _CHINESE_SIGNS)
    text = "".join(character for character in text.lower() if character not in _SIGNS)
    return " ".join(_ARTICLES.sub(" ", text).split())


def exact_match(answer: str, truth: Sequence[str], language: str) -> float:
    """1 if an answer is one of the true ones; no answer ("") is right where there are none."""
    return float(normalise(answer, language) in {normalise(one, language) for one in truth or ("",)})


def f1(answer: str, truth: Sequence[str], language: str) -> float:
    """The best F1 over the true answers: of the words in common, in Chinese of the longest common piece."""
    return max(_f1(answer, one, language) for one in truth or ("",))


def _f1(answer: str, truth: str, language: str) -> float:
    found, wanted = (_parts(text, language) for text in (answer, truth))
    if not found or not wanted:
        return float(found == wanted)
    if language == "zh":
        common = SequenceMatcher(None, found, wanted, autojunk=False).find_longest_match().size
    else:
        common = (Counter(found) & Counter(wanted)).total()
    return 2 * common / (len(found) + len(wanted))


def _parts(text: str, language: str) -> list[str]:
    """Words; of Chinese each character. Other words in Chinese texts are cut by a rule of ours in place of NLTK's."""
    if language != "zh":
        return normalise(text, language).split()
    return [part for part in _CHINESE_PARTS.findall(text.lower()) if part not in _CHINESE_SIGNS]


def answer_metrics(answers: Sequence[str], truth: Sequence[Sequence[str]], language: str) -> dict[str, float]:
    """`exact_match` and `f1`, 0 to 1; where some questions have no answer, `f1` of those with one and the share of the
    others that was left unanswered."""
    pairs = list(zip(answers, truth, strict=True))
    scores = [(exact_match(one, true, language), f1(one, true, language)) for one, true in pairs]
    exact, shared = (sum(one[n] for one in scores) / len(pairs) for n in (0, 1))
    metrics = {"exact_match": exact, "f1": shared}
    with_answer = [score for (_, score), (_, true) in zip(scores, pairs, strict=True) if true]
    without = [score for (_, score), (_, true) in zip(scores, pairs, strict=True) if not true]
    if with_answer and without:
        metrics |= {"f1_with_answer": sum(with_answer) / len(with_answer), "unanswered": sum(without) / len(without)}
    return metrics
