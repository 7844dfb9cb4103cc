"""Models for other runtimes: ONNX and torch.export, each run beside the original before it counts as written.

Both take batches of any size. What a program must know beside the weights (classes, preprocessing, name) goes into
the file: ONNX metadata, or `about.json` among the extra files of the .pt2 archive.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from orchard.errors import OrchardError
from orchard.inference.loading import Loaded

BATCHES = (1, 3)  # the batch sizes at which the exported model must agree; it is made from one of 2
TOLERANCE = {"onnx": 1e-4, "torch": 1e-5}  # of the largest difference, relative to the largest logit if that is over 1
ENDINGS = {"onnx": ".onnx", "torch": ".pt2"}
Run = Callable[[Tensor], Tensor]


def export(loaded: Loaded, kind: str, path: Path | None = None) -> tuple[Path, float]:
    """Write a trained model as "onnx" or "torch"; without `path`, beside its weights. Returns path and difference."""
    path = path or loaded.folder / f"model{ENDINGS[kind]}"
    example = torch.randn(2, loaded.pictures.channels, *loaded.pictures.size)
    facts = {
        "model": loaded.name,
        "task": loaded.task,
        "classes": json.dumps(loaded.classes, ensure_ascii=False),
        "preprocess": json.dumps(loaded.pictures.to_json()),
    }
    write = export_onnx if kind == "onnx" else export_torch
    return path, write(loaded.model, example, path, facts)


def export_onnx(model: nn.Module, example: Tensor, path: Path, facts: Mapping[str, str] | None = None) -> float:
    """Write `model` (in evaluation mode) to an ONNX file with input `images` (batch, C, H, W) and output `logits`.

    `example` is float32 (2, C, H, W). Returns the largest difference from the original, as onnxruntime runs the file.
    Raises OrchardError where the extra is not installed, the file cannot be written or the two disagree.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 torch's exporter writes its graphs with it
    except ImportError as error:
        raise OrchardError(f"ONNX needs {error.name}: pip install 'orchard[export]'") from None
    batch = torch.export.Dim("batch")
    with _whole(path) as part, _quiet():
        program = torch.onnx.export(
            model, (example,), dynamo=True, input_names=["images"], output_names=["logits"],
            dynamic_shapes=({0: batch},), verbose=False,
        )  # fmt: skip
        assert program is not None
        proto = program.model_proto
        onnx.helper.set_model_props(proto, dict(facts or {}))
        onnx.save(proto, part)
        session = onnxruntime.InferenceSession(part, providers=["CPUExecutionProvider"])

        def run(images: Tensor) -> Tensor:
            return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])

        return largest_difference(model, run, example, "onnx")


def export_torch(model: nn.Module, example: Tensor, path: Path, facts: Mapping[str, str] | None = None) -> float:
    """Write `model` (in evaluation mode) as a torch.export archive, which torch loads without the model's code.

    `example` is float32 (2, C, H, W). Returns the largest difference from the original. Raises OrchardError as
    `export_onnx` does.
    """
    with _whole(path) as part, _quiet():
        with torch.no_grad():
            program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(program, part, extra_files={"about.json": json.dumps(dict(facts or {}), ensure_ascii=False)})
        return largest_difference(model, torch.export.load(part).module(), example, "torch")


def largest_difference(model: nn.Module, run: Run, example: Tensor, kind: str) -> float:
    """Run both on random pictures at two batch sizes; OrchardError where they differ by more than the format may."""
    worst = 0.0
    for seed, count in enumerate(BATCHES):
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(count, *example.shape[1:], generator=generator)
        with torch.no_grad():
            expected, got = model(images), run(images)
        difference = float((got - expected).abs().max())
        allowed = TOLERANCE[kind] * max(1.0, float(expected.abs().max()))
        if not difference <= allowed:
            raise OrchardError(
                f"the exported model differs from the original by {difference:.2g} at a batch of {count} (allowed: "
                f"{allowed:.2g}); nothing was written"
            )
        worst = max(worst, difference)
    return worst


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A name to write under, beside `path`, which becomes `path` if all goes well and is removed if not."""
    part = path.with_name(f".part-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except OSError as error:
        raise OrchardError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters' remarks are for their authors; what they print goes to stderr."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        yield
