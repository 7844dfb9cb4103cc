"""Models for other runtimes: ONNX and torch.export, each run beside the original before it counts as written.

A picture classifier or a sequence model is one file; a picture tokenizer is two (`encode`, `decode`), and so is CLIP
(`image`, `text`). All take batches of any size. What a program must know beside the weights (classes, preprocessing,
name) goes into the file: ONNX metadata, or `about.json` among the extra files of the .pt2 archive.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from orchard.errors import OrchardError
from orchard.files import atomic, disk_error
from orchard.inference.by_hand import program, program_path
from orchard.inference.loading import Loaded
from orchard.models import landmark_of
from orchard.nn.quantized import quantized_layers

BATCHES = (1, 3)  # the batch sizes at which the exported model must agree; it is made from one of 2
TOLERANCE = {"onnx": 1e-4, "torch": 1e-5}  # of the largest difference, relative to the largest value if that is over 1
INT8_TOLERANCE = 5e-2  # the same with int8 layers: where a number lies between two of the grid, rounding decides
OTHER_CODES = 0.01  # the share of codes that may differ: where two are equally near, rounding decides
ENDINGS = {"onnx": ".onnx", "torch": ".pt2"}
Draw = Callable[[int, torch.Generator], dict[str, Tensor]]
Run = Callable[[dict[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Entry:
    """One function of a model, which becomes a file: `name` tells it from the model's others, if there are any.

    `inputs(count, generator)` draws arguments of `module` at random, by the names that they get in the file. `images`
    says that the one argument is an image as the preprocessing leaves it; `pixels`, one of any size as it is stored;
    `any_size`, images (B, C, H, W) of any size.
    """

    name: str
    module: nn.Module
    inputs: Draw
    output: str
    images: bool = False
    pixels: bool = False
    any_size: bool = False


@dataclass(frozen=True)
class Exported:
    """A file that was written, how far it is from the original, and the program that feeds it with images."""

    path: Path
    entry: str  # "encode", "decode", "image", "text"; empty for a whole model
    difference: float  # largest, of floating-point outputs; of codes, the share that differs
    program: Path | None = None


class Method(nn.Module):
    """One method of a model as a module, its arguments in order."""

    def __init__(self, model: nn.Module, method: str, names: tuple[str, ...]):
        super().__init__()
        self.model = model
        self.method = method
        self.names = names

    def forward(self, *arguments: Tensor) -> Tensor:
        result: Tensor = getattr(self.model, self.method)(**dict(zip(self.names, arguments, strict=True)))
        return result


def export(loaded: Loaded, entries: Sequence[Entry], kind: str, path: Path | None = None) -> list[Exported]:
    """Write a trained model as "onnx" or "torch"; without `path`, beside its weights as `model.onnx` or `model.pt2`.

    A function of a model that has several is written under that name with the function's before the ending, such as
    `model.encode.onnx`; one with the preprocessing inside is `model_with_preprocessing.onnx`. Beside a file that takes
    images stands the program that brings them to it (`by_hand.py`). Raises OrchardError as `export_onnx` does.
    """
    inside = "_with_preprocessing" if any(entry.pixels for entry in entries) else ""
    path = path or loaded.folder / f"model{inside}{ENDINGS[kind]}"
    write = export_onnx if kind == "onnx" else export_torch
    written = []
    for entry in entries:
        at = path.with_name(f"{path.stem}.{entry.name}{path.suffix}") if entry.name else path
        difference = write(entry, at, facts_of(loaded, entry))
        written.append(Exported(at, entry.name, difference, _write_program(loaded, entry, at, kind)))
    return written


def _write_program(loaded: Loaded, entry: Entry, file: Path, kind: str) -> Path | None:
    if not (entry.images or entry.pixels):
        return None
    (argument,) = entry.inputs(1, torch.Generator())
    with _whole(program_path(file)) as beside:
        beside.write(program(loaded, file, kind, argument, pixels=entry.pixels).encode())
    return program_path(file)


def image_inputs(loaded: Loaded) -> Draw:
    """Draws images as the model's preprocessing leaves them."""

    def draw(count: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {"images": torch.randn(count, loaded.pictures.channels, *loaded.pictures.size, generator=generator)}

    return draw


def example_inputs(loaded: Loaded, *names: str) -> Draw:
    """Draws the arguments of a landmark's `forward`, or those of them that are named."""
    model: Any = loaded.model

    def draw(count: int, generator: torch.Generator) -> dict[str, Tensor]:
        found = landmark_of(loaded.name).example(model.config, count, generator)
        return {name: found[name] for name in names or found}

    return draw


def method_entry(name: str, model: nn.Module, method: str, inputs: Draw, output: str, *, images: bool = False) -> Entry:
    """One method of a model as an entry."""
    names = tuple(inputs(1, torch.Generator()))
    return Entry(name, Method(model, method, names).eval(), inputs, output, images)


def facts_of(loaded: Loaded, entry: Entry) -> dict[str, str]:
    """What a program must know beside the weights."""
    facts = {"model": loaded.name, "task": loaded.task, "classes": json.dumps(loaded.classes, ensure_ascii=False)}
    if entry.pixels:
        facts["input"] = f"uint8 {'grey' if loaded.pictures.channels == 1 else 'RGB'}, (B, H, W, C), of any size"
    elif loaded.preprocess is not None:
        facts["preprocess"] = json.dumps(loaded.preprocess.to_json())
    if entry.name:
        facts["function"] = entry.name
    if loaded.facts:
        facts["facts"] = json.dumps(dict(loaded.facts), ensure_ascii=False)
    if loaded.task == "zero-shot-image-classification":  # the one weight between the two files
        model: Any = loaded.model
        facts["logit_scale"] = repr(float(model.logit_scale.detach().exp()))
    return facts


def export_onnx(entry: Entry, path: Path, facts: Mapping[str, str] | None = None) -> float:
    """Write one function of a model (in evaluation mode) to an ONNX file whose names are those of the entry.

    Returns the largest difference from the original, as onnxruntime runs the file. Raises OrchardError where the extra
    is not installed, the file cannot be written or the two disagree.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 torch's exporter writes its graphs with it
    except ImportError as error:
        raise OrchardError(f"ONNX needs {error.name}: pip install 'orchard[export]'") from None
    example, shapes = _example(entry)
    with _whole(path) as file, _quiet():
        program = torch.onnx.export(
            entry.module, tuple(example.values()), dynamo=True, input_names=list(example), output_names=[entry.output],
            dynamic_shapes=shapes, verbose=False,
        )  # fmt: skip
        assert program is not None
        proto = program.model_proto
        onnx.helper.set_model_props(proto, dict(facts or {}))
        onnx.save(proto, file)
        file.flush()
        session = onnxruntime.InferenceSession(file.name, providers=["CPUExecutionProvider"])

        def run(inputs: dict[str, Tensor]) -> Tensor:
            arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
            try:
                return torch.from_numpy(session.run([entry.output], arrays)[0])
            except Exception as error:  # its errors have no class in common
                raise OrchardError(f"onnxruntime cannot run the exported file: {str(error).splitlines()[0]}") from error

        return largest_difference(entry, run, "onnx")


def export_torch(entry: Entry, path: Path, facts: Mapping[str, str] | None = None) -> float:
    """Write one function of a model (in evaluation mode) as a torch.export archive, which torch loads without its code.

    Returns the largest difference from the original. Raises OrchardError as `export_onnx` does.
    """
    example, shapes = _example(entry)
    with _whole(path) as file, _quiet():
        with torch.no_grad():
            program = torch.export.export(entry.module, tuple(example.values()), dynamic_shapes=shapes)
        archive = io.BytesIO()  # on a full disk torch would end the process
        about = {"about.json": json.dumps(dict(facts or {}), ensure_ascii=False)}
        torch.export.save(program, archive, extra_files=about)
        file.write(archive.getbuffer())
        file.flush()
        module = torch.export.load(file.name).module()
        return largest_difference(entry, lambda inputs: module(*inputs.values()), "torch")


def _example(entry: Entry) -> tuple[dict[str, Tensor], tuple[Any, ...]]:
    """Arguments in a batch of two, and which of their axes may have another length: the first, and an image's sides."""
    example = entry.inputs(2, torch.Generator().manual_seed(0))
    free = {0: "batch"}
    if entry.pixels or entry.any_size:
        free |= {1: "height", 2: "width"} if entry.pixels else {2: "height", 3: "width"}
    each = ({axis: torch.export.Dim(name) for axis, name in free.items()},) * len(example)
    return example, (each,) if isinstance(entry.module, Method) else each


def largest_difference(entry: Entry, run: Run, kind: str) -> float:
    """Run both on random inputs at two batch sizes; OrchardError where they differ by more than the format may."""
    worst = 0.0
    tolerance = INT8_TOLERANCE if quantized_layers(entry.module) else TOLERANCE[kind]
    for seed, count in enumerate(BATCHES):
        inputs = entry.inputs(count, torch.Generator().manual_seed(seed))
        with torch.no_grad():
            expected, got = entry.module(*inputs.values()), run(inputs)
        if expected.is_floating_point():
            difference = float((got - expected).abs().max())
            allowed = tolerance * max(1.0, float(expected.abs().max()))
        else:
            difference, allowed = float((got != expected).float().mean()), OTHER_CODES
        if not difference <= allowed:
            raise OrchardError(
                f"the exported model differs from the original by {difference:.2g} at a batch of {count} (allowed: "
                f"{allowed:.2g}); nothing was written"
            )
        worst = max(worst, difference)
    return worst


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """A file that becomes `path` if all goes well."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as file:
            yield file
    except OSError as error:
        raise disk_error(error, path, "nothing was written") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters' remarks are for their authors; what they print goes to stderr."""
    for name in ("torch.onnx", "onnxscript"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        yield
