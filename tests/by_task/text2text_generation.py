"""Two sentences that begin alike: what comes next is told from the sources alone, at first."""

from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from by_task import Hooks, Loss, example

WORDS = {"ein": "a", "der": "the", "Hund": "dog", "Baum": "tree", "läuft": "runs", "steht": "stands"}


def learn(name: str, model: Any) -> tuple[nn.Module, Loss]:
    inputs = example(name, model.config, 2)
    target = inputs["target"]
    target[:, 0] = 0

    def loss() -> tuple[Tensor, Tensor]:
        logits = model(**inputs | {"target": target[:, :-1]})
        found = F.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten())
        return found, found

    return model, loss


def sentences(folder: Path) -> tuple[str, dict[str, Any]]:
    """Parallel text in two languages, a file each."""
    german, english = list(WORDS), list(WORDS.values())
    pairs = [[(a + n) % 6 for a in (0, 2, 4)] for n in range(120)]
    (folder / "text").mkdir()
    for language, words in (("de", german), ("en", english)):
        (folder / "text" / f"train.{language}").write_text("".join(" ".join(words[n] for n in p) + "\n" for p in pairs))
    return str(folder / "text"), {}


HOOKS = Hooks(learn, learning_rate=5e-3, shorter={"context": 12, "dropout": 0.0}, data=sentences)
