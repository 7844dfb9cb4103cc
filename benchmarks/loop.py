"""What the training loop adds to a step of `vit_nano`: seeding, the rate, the checks, the sums, the bar.

Both sides train the same network on batches of the same shape that lie ready, turn by turn: ours through the loop, the
other in the fewest lines that learn the same (forward, loss, backward, clipping, fused AdamW). What loading and
augmenting a batch costs on top is timed apart.

    python benchmarks/loop.py
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from orchard.app.train import resolve_training
from orchard.inference.hardware import hardware
from orchard.training.loop import Trainer
from orchard.training.progress import Progress
from orchard.training.run import RunFolder

STEPS, ROUNDS = 20, 15


def main() -> None:
    resolved, task = resolve_training("vit_nano", "digits", {})
    job = task.load(str(task.job))(resolved, torch.device("cpu"))
    settings = job.settings
    feed = job.feed()
    network = copy.deepcopy(job.model).train()
    batch = next(feed.batches(0))[0]
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.optimizer.lr, fused=True)

    def bare() -> None:
        loss = F.cross_entropy(network(batch.images), batch.labels, label_smoothing=settings.label_smoothing)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm or 1.0)
        optimizer.step()
        optimizer.zero_grad()

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(job, RunFolder(Path(folder)), print)
        progress = Progress(settings.batch_size, job.unit, (), quiet=True)
        steps = feed.batches(0)

        def load() -> None:
            next(steps)

        def ours() -> None:
            trainer.step(iter([[batch]]))
            progress.advance(trainer.state.step, trainer._mean_loss)

        times: dict[str, list[float]] = {"ours": [], "bare": [], "load": []}
        for round_number in range(ROUNDS + 2):
            for name, step in (("ours", ours), ("bare", bare), ("load", load)):
                began = time.perf_counter()
                for _ in range(STEPS):
                    step()
                if round_number >= 2:  # two rounds to warm up
                    times[name].append((time.perf_counter() - began) / STEPS)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = statistics.median(a / b for a, b in zip(times["ours"], times["bare"], strict=True))
    print(f"ours {medians['ours'] * 1e3:.2f} ms, bare {medians['bare'] * 1e3:.2f} ms a step: overhead {ratio - 1:.1%}")
    share = medians["load"] / medians["bare"]
    print(f"loading and augmenting a batch: {medians['load'] * 1e3:.2f} ms, {share:.1%} of a bare step")
    print(hardware())


if __name__ == "__main__":
    main()
