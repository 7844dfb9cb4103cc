"""How long commands take from start to end, as whole processes, beside importing torch and the peers' libraries.

The first prediction of one image is timed before a session is kept for it, the second with the session.

    python benchmarks/start.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from orchard.app.train import train

ROUNDS = 7


def commands(run: Path, text: Path, image: Path) -> dict[str, list[str]]:
    orchard = ["-m", "orchard.cli.main"]
    return {
        "orchard --help": [*orchard, "--help"],
        "orchard list": [*orchard, "list"],
        "orchard show vit_base_patch16_224": [*orchard, "show", "vit_base_patch16_224"],
        "orchard generate RUN --help": [*orchard, "generate", str(text), "--help"],
        "a missing path": [*orchard, "train", "vit_nano", "--data", "/nowhere"],
        "a wrong setting": [*orchard, "train", "vit_nano", "--data", "digits", "--set", "optimizer.lrr=1"],
        "a wrong model": [*orchard, "train", "vit_nan", "--data", "digits"],
        "import torch": ["-c", "import torch"],
        "predict one image, first time": [*orchard, "predict", str(run), str(image)],
        "evaluate": [*orchard, "evaluate", str(run), "--data", "digits"],
        "generate eight tokens": [*orchard, "generate", str(text), "A tree", "--length", "8"],
        "python -c 'import timm'": ["-c", "import timm"],
        "python -c 'from transformers import ViTModel'": ["-c", "from transformers import ViTModel"],
    }


def measure(name: str, words: list[str]) -> None:
    times = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    print(f"{name}: median {statistics.median(times[1:]):.2f} s, fastest {min(times[1:]):.2f} s", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["ORCHARD_CACHE"] = str(folder / "cache")
        os.environ["ORCHARD_KEEP_SESSIONS"] = "0"
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as installed: modules are compiled once, not at every start
        (folder / "book.txt").write_text("A tree bears fruit, and the fruit bears trees. " * 300)
        Image.new("L", (8, 8), 100).save(folder / "scan.png")
        run, text, image = folder / "run", folder / "text", folder / "scan.png"
        train("vit_nano", "digits", run, max_steps=2)
        train("gpt2_nano", str(folder / "book.txt"), text, max_steps=2)
        for name, words in commands(run, text, image).items():
            measure(name, words)
        subprocess.run([sys.executable, "-m", "orchard.inference.session_making", str(run / "model")], check=True)
        measure("predict one image, with its session", ["-m", "orchard.cli.main", "predict", str(run), str(image)])


if __name__ == "__main__":
    main()
