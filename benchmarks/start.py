"""How long `orchard list`, `show` and `--help` take as whole processes, beside importing the peers' libraries.

python benchmarks/start.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 9
COMMANDS = {
    "orchard --help": ["-m", "orchard.cli.main", "--help"],
    "orchard list": ["-m", "orchard.cli.main", "list"],
    "orchard show vit_base_patch16_224": ["-m", "orchard.cli.main", "show", "vit_base_patch16_224"],
    "python -c 'import timm'": ["-c", "import timm"],
    "python -c 'from transformers import ViTModel'": ["-c", "from transformers import ViTModel"],
}


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS + 1):
        for name, words in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
            times[name].append(time.perf_counter() - began)
    for name, values in times.items():
        print(f"{name}: median {statistics.median(values[1:]):.2f} s, fastest {min(values[1:]):.2f} s")


if __name__ == "__main__":
    main()
