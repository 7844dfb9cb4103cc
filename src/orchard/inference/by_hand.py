"""The program that is written beside an exported file: what it does to an image is spelled out with Pillow and NumPy,
so that it can be copied to where there is no Orchard. It is made from the model's own preprocessing."""

from __future__ import annotations

import textwrap
from pathlib import Path

from orchard.data.contracts import Preprocess
from orchard.data.preprocess import DRAFT_SPARE
from orchard.inference.loading import Loaded
from orchard.nn.quantized import quantized_layers

PROGRAM = '''"""{name} answers for images, with Pillow, NumPy and {runtime} alone: python {script} IMAGE ...

`prepare` is all that happens to an image before the model sees it. `orchard predict` differs in two things: a JPEG
{times:g} or more times as large as needed is decoded at a half, a quarter or an eighth, and levels of 16 bits are read.
"""

import json
import sys
from pathlib import Path

import numpy as np
{imports}
from PIL import Image, ImageOps

FILE = Path(__file__).with_name("{file}")


def prepare(path):
    """What {file} takes of one image: {shape}."""
    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGBA")
    picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("{mode}")
{lines}


{load}
for path in sys.argv[1:]:
    answer = {run}
{show}
'''
RUNTIMES = {
    "onnx": (
        "ONNX Runtime",
        "import onnxruntime",
        "session = onnxruntime.InferenceSession(FILE)\nabout = session.get_modelmeta().custom_metadata_map\n",
        'session.run(None, {{"{name}": prepare(path)}})[0]',
    ),
    "torch": (
        "PyTorch",
        "import torch",
        'extra = {"about.json": ""}\nmodel = torch.export.load(FILE, extra_files=extra).module()\n'
        'about = json.loads(extra["about.json"])\n',
        "model(torch.from_numpy(prepare(path))).detach().numpy()",
    ),
}


def program(loaded: Loaded, file: Path, kind: str, argument: str, *, pixels: bool) -> str:
    """The text of the program for a file of a format; `pixels` where the file has its preprocessing inside."""
    preprocess = loaded.pictures
    rows, columns = preprocess.size
    runtime, imports, load, run = RUNTIMES[kind]
    shape = f"(1, H, W, {preprocess.channels}) uint8"
    lines = f"return np.asarray(picture).reshape(1, picture.height, picture.width, {preprocess.channels})"
    if not pixels:
        shape, lines = f"(1, {preprocess.channels}, {rows}, {columns}) float32", preparing(preprocess)
    lines = textwrap.indent(lines, "    ")
    if kind == "torch" and quantized_layers(loaded.model):
        imports += "\nimport torch.ao.quantization.fx._decomposed  # the operators of int8 layers"
    show = "    print(path, answer.shape)"
    if loaded.classes:
        load += 'classes = json.loads(about["classes"])\n'
        show = loaded.outputs.lines(answered=pixels)
        if "facts[" in show:
            load += 'facts = json.loads(about["facts"])\n'
    return PROGRAM.format(
        name=loaded.name, runtime=runtime, script=program_path(file).name, times=2 * DRAFT_SPARE, imports=imports,
        file=file.name, shape=shape, mode="L" if preprocess.channels == 1 else "RGB",
        lines=lines, load=load, run=run.format(name=argument), show=show,
    )  # fmt: skip


def program_path(file: Path) -> Path:
    """Where the program of an exported file stands."""
    return file.with_name(f"{file.stem}_{file.suffix[1:]}.py" if file.suffix else f"{file.name}.py")


def preparing(p: Preprocess) -> str:
    """The lines from `picture`, a Pillow image with the right channels, to what the model takes."""
    rows, columns = p.size
    by = f"Image.Resampling.{p.interpolation.upper()}"
    lines = []
    box = ", box=(left, top, width - left, height - top)"
    if p.resize == "shorter-side":
        lines += [
            "width, height = picture.size",
            f"pixel = min(width / {columns}, height / {rows}) * {p.crop}  # the side of one of the result's pixels",
            f"left, top = max((width - {columns} * pixel) / 2, 0), max((height - {rows} * pixel) / 2, 0)",
        ]
    elif p.crop < 1 or p.resize == "letterbox":
        lines += ["width, height = picture.size"]
        if p.crop < 1:
            lines += [f"left, top = width * (1 - {p.crop}) / 2, height * (1 - {p.crop}) / 2"]
        else:
            box = ""
    else:
        box = ""
    if p.resize == "letterbox":
        across, down = ("width", "height") if p.crop == 1 else ("(width - 2 * left)", "(height - 2 * top)")
        fill = p.fill[0] if p.channels == 1 else p.fill
        lines += [
            f"scale = min({columns} / {across}, {rows} / {down})",
            f"inner = max(round({across} * scale), 1), max(round({down} * scale), 1)",
            f"inside = picture.resize(inner, {by}{box})",
            f'picture = Image.new("{"L" if p.channels == 1 else "RGB"}", ({columns}, {rows}), {fill})',
            f"picture.paste(inside, (({columns} - inner[0]) // 2, ({rows} - inner[1]) // 2))",
        ]
    else:
        lines += [f"picture = picture.resize(({columns}, {rows}), {by}{box})"]
    mean, std = (f"np.array({list(values)}, np.float32)" for values in (p.mean, p.std))
    lines += [
        f"pixels = np.asarray(picture, np.float32).reshape({rows}, {columns}, {p.channels}) / 255",
        f"return ((pixels - {mean}) / {std}).transpose(2, 0, 1)[None]",
    ]
    return "\n".join(lines)
