"""How images come to a model: what can be set, that all who read it follow, and that it can be taken elsewhere."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import orchard
from PIL import Image
from torch import nn

from orchard.app.evaluate import evaluate
from orchard.app.export import export
from orchard.app.looking import LookSettings, look_settings
from orchard.app.train import train
from orchard.data import AugmentSettings, DataSettings, Preprocess, default_preprocess, open_data
from orchard.data.augment import plan, vary
from orchard.data.characters import are_characters
from orchard.data.counter_rng import COLUMNS
from orchard.data.preprocess import fit, with_settings
from orchard.data.resample import fit_pixels
from orchard.data.settings import PreprocessSettings
from orchard.errors import OrchardError, UsageError
from orchard.inference.by_hand import program
from orchard.inference.image_files import read_pixels
from orchard.inference.loading import load
from orchard.models import create_model
from orchard.tasks.image_classification.pipeline import ImageClassifier
from orchard.tasks.images import keep_characters
from orchard.weights.portable import Portable, architecture_of, save_portable

CLASSES = ("ant", "bee", "cat", "zwölf")
ANY = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHARD_CACHE", str(tmp_path / "cache"))


def smooth(height: int, width: int, channels: int = 3) -> Image.Image:
    """A picture with large shapes."""
    coarse = ANY.integers(0, 256, (5, 7, channels), dtype=np.uint8)
    return Image.fromarray(coarse.squeeze()).resize((width, height), Image.Resampling.BICUBIC)


def saved(folder: Path, preprocess: Preprocess) -> Path:
    torch.manual_seed(0)
    model = create_model("lenet5", num_classes=len(CLASSES), in_channels=preprocess.channels).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.15)
    about = Portable("lenet5", architecture_of(model), "image-classification", CLASSES, preprocess.to_json())
    save_portable(folder / "model", model, about)
    return folder / "model"


# What can be set


def test_a_letterbox_shows_the_whole_image_on_the_mean_colour() -> None:
    preprocess = Preprocess((32, 32), 3, (0.5, 0.4, 0.3), (0.2,) * 3, resize="letterbox")
    seen = fit(Image.fromarray(np.full((50, 100, 3), 250, np.uint8)), preprocess)
    assert (seen[8:24] == 250).all() and (seen[:8] == (128, 102, 76)).all() and (seen[24:] == (128, 102, 76)).all()
    border = preprocess.normalise(torch.from_numpy(seen.copy()).permute(2, 0, 1)[None])[0, :, 0, 0]
    assert border.abs().max() < 0.5 / 255 / 0.2 + 1e-6
    tall = fit(smooth(300, 3), preprocess)
    assert tall.shape == (32, 32, 3) and (tall[:, 0] == (128, 102, 76)).all() and not (tall[:, 15] == tall[0, 0]).all()


def test_settings_change_what_they_name_and_nothing_else() -> None:
    photo = Preprocess((64, 64), 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), crop=0.875)
    assert with_settings(photo, PreprocessSettings()) == photo
    set_by_hand = with_settings(photo, PreprocessSettings(mean=[0.5], std=0.25, interpolation="lanczos", crop=0.9))
    assert (set_by_hand.mean, set_by_hand.std) == ((0.5,) * 3, (0.25,) * 3)
    assert (set_by_hand.interpolation, set_by_hand.crop, set_by_hand.resize) == ("lanczos", 0.9, "shorter-side")
    assert with_settings(photo, PreprocessSettings(resize="letterbox")).crop == 1.0  # all of it, unless one says
    assert with_settings(photo, PreprocessSettings(resize="stretch", crop=0.9)).crop == 0.9
    with pytest.raises(UsageError, match=r"'preprocessing\.std': expected one value or 3, got 2"):
        with_settings(photo, PreprocessSettings(std=[0.1, 0.2]))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("crop=1.5", "less than or equal to 1, got 1.5"),
        ("crop=0", "greater than 0, got 0"),
        ("mean=[0.1,120]", r"'preprocessing.mean.1': input should be less than or equal to 1, got 120"),
        ("std=0", "'preprocessing.std.0': input should be greater than 0"),
        ("resize=squash", "'shorter-side', 'stretch' or 'letterbox', got 'squash'"),
        ("interpolation=area", "'nearest', 'bilinear', 'bicubic' or 'lanczos', got 'area'"),
        ("size=3", "unknown setting 'preprocessing.size'"),
    ],
)
def test_a_wrong_value_is_one_line(word: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert orchard("data", "check", "digits", "--set", f"preprocessing.{word}") == 2
    said = capsys.readouterr().err
    assert expected in said and said.count("\n") == 1


def test_version_0_1_called_it_squash() -> None:
    before = {"size": [8, 8], "channels": 1, "mean": [0.5], "std": [0.5], "crop": 1.0}
    assert Preprocess.from_json({**before, "squash": True}).resize == "stretch"
    assert Preprocess.from_json({**before, "squash": False, "crop": 0.875}).resize == "shorter-side"
    with pytest.raises(OrchardError, match=r"'preprocess\.squash'"):
        Preprocess.from_json({**before, "squash": "much"})


def test_a_training_takes_the_settings_and_says_what_was_left_open(tmp_path: Path) -> None:
    run, chosen = tmp_path / "run", {"resize": "letterbox", "crop": 0.9, "std": [0.3]}
    train("lenet5", "digits", run, max_steps=2, preprocessing=chosen)
    preprocess = load(run).pictures
    assert (preprocess.resize, preprocess.crop, preprocess.std) == ("letterbox", 0.9, (0.3,))
    settings = json.loads((run / "settings.json").read_text())
    assert settings["preprocessing.resize"] == {"value": "letterbox", "origin": "command"}
    assert settings["preprocessing.mean"] == {"value": list(preprocess.mean), "origin": "chosen: fits the data"}
    before = json.loads((run / "metrics.json").read_text())["test"]
    assert evaluate(run, "digits", "test")["test"]["loss"] == pytest.approx(before["loss"], rel=1e-5)
    again = tmp_path / "again"
    train("lenet5", "digits", again, max_steps=1, start_from=str(run), preprocessing={"interpolation": "bicubic"})
    tuned = load(again).pictures
    assert (tuned.resize, tuned.std, tuned.interpolation) == ("letterbox", (0.3,), "bicubic")
    settings = json.loads((again / "settings.json").read_text())
    assert settings["preprocessing.resize"]["origin"] == "chosen: as the weights it starts from were trained"


# Augmentation


@pytest.mark.parametrize(("padding", "numpy_s"), [("zero", "constant"), ("edge", "edge"), ("reflect", "symmetric")])
def test_shifted_crops_are_padded_as_asked(padding: Any, numpy_s: Any) -> None:
    pictures = torch.randint(0, 256, (60, 3, 12, 10), dtype=torch.uint8)
    numbers = ANY.random((60, COLUMNS))
    moved = vary(pictures, plan(AugmentSettings(crop="pad", pad=3, padding=padding), numbers, (12, 10)))
    for picture, result in zip(np.pad(pictures, ((0, 0), (0, 0), (3, 3), (3, 3)), mode=numpy_s), moved, strict=True):
        assert any((picture[:, y : y + 12, x : x + 10] == result.numpy()).all() for y in range(7) for x in range(7))


def test_white_paper_stays_white_when_it_turns() -> None:
    paper = torch.full((8, 1, 20, 20), 255, dtype=torch.uint8)
    numbers = ANY.random((8, COLUMNS))
    settings: dict[str, Any] = {"rotate": 30, "shift": 0.2, "scale": 0.2}
    assert vary(paper, plan(AugmentSettings(**settings), numbers, (20, 20))).min() == 0
    for padding in ("edge", "reflect"):
        assert (vary(paper, plan(AugmentSettings(**settings, padding=padding), numbers, (20, 20))) > 254.9).all()


def test_characters_are_known_by_their_names() -> None:
    assert are_characters("0123456789") and are_characters(["A", "B", "C", "space"]) and are_characters("你好")
    assert are_characters(["zero", "One", "two"])
    assert not are_characters(["cat", "dog", "x"]) and not are_characters(["10", "11"])


def test_a_recipe_does_not_mirror_characters_and_a_person_is_warned(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = look_settings("pictures", "resnet18", {})  # the recipe for pictures of any kind
    look = recipe.settings
    assert isinstance(look, LookSettings) and look.augmentation.flip
    kept = keep_characters(recipe, ("a", "b", "c", "d"))
    assert not kept.settings.augmentation.flip  # type: ignore[attr-defined]
    assert kept.origins["augmentation.flip"].startswith("chosen: the classes are characters (a, b, c, ...)")
    assert keep_characters(recipe, CLASSES) is recipe
    asked = look_settings("pictures", "resnet18", {"augmentation.flip": True})
    assert keep_characters(asked, ("a", "b", "c", "d")) is asked
    assert orchard("data", "check", "digits", "--set", "augmentation.flip=true", "--json") == 0
    (remark,) = json.loads(capsys.readouterr().out)["remarks"]
    assert "augmentation.flip mirrors half of the images" in remark


def test_a_training_that_mirrors_characters_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train("lenet5", "digits", tmp_path / "run", max_steps=1, augmentation={"flip": True})
    assert capsys.readouterr().err.count("warning: the classes are characters (0, 1, 2, ...)") == 1


def test_data_check_points_to_borders_that_would_become_black(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, ground in (("ant", 250), ("bee", 240)):
        for n in range(4):
            (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
            pixels = np.full((20, 24), ground, np.uint8)
            pixels[5:15, 5:15] = ANY.integers(0, 100, (10, 10))
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{n}.png")

    def remarks(*words: str) -> list[str]:
        settings = [word for one in words for word in ("--set", f"augmentation.{one}")]
        assert orchard("data", "check", tmp_path / "set", "--model", "lenet5", *settings, "--json") == 0
        found: list[str] = json.loads(capsys.readouterr().out)["remarks"]
        return found

    assert remarks("crop=none", "rotate=0", "scale=0", "shift=0") == []  # nothing is moved
    (remark,) = remarks()  # the recipe moves them
    assert "borders of most images are bright" in remark and "augmentation.padding=edge" in remark
    assert remarks("padding=edge") == []


# The same elsewhere


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("resize", ["shorter-side", "stretch", "letterbox"])
def test_tensors_are_resized_as_pillow_does(resize: Any, interpolation: Any) -> None:
    """No level differs by more than one; nearly all are equal where rows come first in Pillow too, as in wide ones."""
    for channels, crop in ((1, 1.0), (3, 0.875)):
        preprocess = Preprocess((32, 24), channels, (0.4,) * channels, (0.3,) * channels, crop, resize, interpolation)
        for height, width in ((32, 24), (40, 300), (127, 333), (333, 127), (7, 9), (1, 1)):
            levels = ANY.integers(0, 256, (height, width, channels), dtype=np.uint8)
            picture = Image.fromarray(levels if channels == 3 else levels[:, :, 0])
            expected = fit(picture, preprocess).astype(float)
            pixels = torch.from_numpy(levels).permute(2, 0, 1)[None]
            difference = np.abs(fit_pixels(pixels, preprocess)[0].permute(1, 2, 0).numpy() - expected)
            assert difference.max() <= 1
            assert (difference > 0).mean() < (0.06 if width > 2 * height else 0.2)


WAYS = {
    "photographs": Preprocess((32, 32), 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), crop=0.875),
    "digits": Preprocess((32, 32), 1, (0.3,), (0.4,), resize="stretch"),
    "letterbox": Preprocess((32, 32), 3, (0.5,) * 3, (0.25,) * 3, 0.9, "letterbox", "lanczos"),
    "letterbox, grey": Preprocess((32, 32), 1, (0.8,), (0.25,), 1.0, "letterbox", "bicubic"),
}
SIZES = ((30, 50), (200, 37), (64, 64), (32, 32), (150, 150))


def ask(program: Path, pictures: list[str]) -> list[dict[str, float]]:
    """What the program beside an exported file says of images: it knows nothing of Orchard."""
    assert "import orchard" not in program.read_text() and "from orchard" not in program.read_text()
    said, before = io.StringIO(), sys.argv
    sys.argv = [str(program), *pictures]
    try:
        with contextlib.redirect_stdout(said):
            runpy.run_path(str(program), run_name="__main__")
    finally:
        sys.argv = before
    answers: list[dict[str, float]] = []
    for line in said.getvalue().splitlines():
        if line in pictures:
            answers.append({})
        else:
            probability, name = line.split(" ", 1)
            answers[-1][name] = float(probability)
    return answers


def unlike_pictures(folder: Path) -> list[str]:
    """Wide, tall, small and transparent ones."""
    for n, (height, width) in enumerate(SIZES):
        smooth(height, width, 4 if n == 2 else 3).save(folder / f"{n}.png")
    return [str(folder / f"{n}.png") for n in range(len(SIZES))]


@pytest.mark.parametrize("way", WAYS)
def test_what_the_program_does_to_an_image_is_what_evaluation_does(way: str, tmp_path: Path) -> None:
    folder, pictures = saved(tmp_path, WAYS[way]), unlike_pictures(tmp_path)
    text = program(load(folder), folder / "model.onnx", "onnx", "images", pixels=False)
    spelled_out: dict[str, Any] = {"__file__": str(folder / "model_onnx.py")}
    exec(text.partition("session =")[0], spelled_out)
    for path in pictures:
        pixels = read_pixels(path, WAYS[way])
        assert isinstance(pixels, torch.Tensor)
        expected = WAYS[way].normalise(pixels[None]).numpy()
        got = spelled_out["prepare"](path)
        assert got.dtype == np.float32 and got == pytest.approx(expected, abs=1e-5)


def test_the_program_beside_a_file_answers_as_predict_does(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    folder, pictures = saved(tmp_path, WAYS["photographs"]), unlike_pictures(tmp_path)
    expected = [dict(one.top) for one in ImageClassifier(load(folder))(pictures)]
    for kind in ("onnx", "torch"):
        (written,) = export(folder, kind)
        assert written.program is not None and written.program.parent == written.path.parent
        for answer, known in zip(ask(written.program, pictures), expected, strict=True):
            assert answer == pytest.approx(known, abs=1e-5)


def test_pixels_in_and_probabilities_out(tmp_path: Path) -> None:
    """In onnxruntime, of unlike sizes and of several at once, as near to predict as single levels leave it."""
    ort = pytest.importorskip("onnxruntime")
    way = "photographs"
    folder, pictures = saved(tmp_path, WAYS[way]), unlike_pictures(tmp_path)
    (written,) = export(folder, "onnx", with_preprocessing=True)
    assert written.path.name == "model_with_preprocessing.onnx"
    session = ort.InferenceSession(written.path)
    (given,), (answered,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, answered.name) == ("pixels", "tensor(uint8)", "probabilities")
    facts = session.get_modelmeta().custom_metadata_map
    assert tuple(json.loads(facts["classes"])) == CLASSES and "any size" in facts["input"] and "preprocess" not in facts
    expected = [dict(one.top) for one in ImageClassifier(load(folder))(pictures)]
    mode = "L" if WAYS[way].channels == 1 else "RGB"
    for path, known in zip(pictures, expected, strict=True):
        picture = Image.open(path).convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert(mode)
        pixels = np.asarray(picture).reshape(1, *picture.size[::-1], -1)
        (probabilities,) = session.run(None, {"pixels": np.repeat(pixels, 3, 0)})
        assert probabilities.shape == (3, len(CLASSES)) and probabilities.sum(1) == pytest.approx(1, abs=1e-5)
        assert dict(zip(CLASSES, probabilities[2].tolist(), strict=True)) == pytest.approx(known, abs=2e-3)
    assert written.program is not None
    for answer, known in zip(ask(written.program, pictures), expected, strict=True):
        assert answer == pytest.approx(known, abs=2e-3)


def test_torch_s_archive_takes_pixels_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, pictures = saved(tmp_path, WAYS["letterbox"]), unlike_pictures(tmp_path)
    assert orchard("export", folder, "--format", "torch", "--with-preprocessing", "--json") == 0
    (file,) = json.loads(capsys.readouterr().out)["files"]
    expected = [dict(one.top) for one in ImageClassifier(load(folder))(pictures)]
    for answer, known in zip(ask(Path(file["program"]), pictures), expected, strict=True):
        assert answer == pytest.approx(known, abs=2e-3)


def test_other_tasks_have_no_such_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = create_model("gpt2_nano", depth=1, context=16)
    save_portable(tmp_path / "model", model, Portable("gpt2_nano", architecture_of(model), "text-generation"))
    assert orchard("export", tmp_path / "model", "--with-preprocessing") == 2
    assert "--with-preprocessing is for image-classification: leave it out" in capsys.readouterr().err


def test_default_preprocess_is_what_it_was(tmp_path: Path) -> None:
    for name in CLASSES[:2]:
        (tmp_path / name).mkdir()
        for n in range(4):
            smooth(80, 90).save(tmp_path / name / f"{n}.png")
    photos = default_preprocess(open_data(str(tmp_path), DataSettings()), 48, 3)
    assert photos == Preprocess((48, 48), 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.875, "shorter-side")
