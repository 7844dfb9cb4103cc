"""Loading, counting, making fast and answering."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import GeneratorType

import numpy as np
import pytest
import torch
from commands import orchard
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from orchard.app.pipeline import pipeline
from orchard.data.contracts import Preprocess
from orchard.errors import OrchardError, UsageError
from orchard.inference import fast as fast_module
from orchard.inference.cost import bytes_moved, multiply_adds, weight_bytes
from orchard.inference.engines import ENGINES
from orchard.inference.fast import FastModel, choice_path, make_fast, relative_difference
from orchard.inference.image_files import AHEAD, find_images
from orchard.inference.loading import load
from orchard.models import create_model
from orchard.models.foreign import create_foreign, is_foreign
from orchard.tasks.image_classification import pipeline as classifier_module
from orchard.tasks.image_classification.pipeline import ImageClassifier, pays
from orchard.weights.portable import Portable, architecture_of, save_portable

CLASSES = tuple(f"class {n}" for n in range(10))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHARD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    model = create_model("lenet5").eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture
def run(tmp_path: Path, model: nn.Module) -> Path:
    size = model.config.image_size
    preprocess = Preprocess((size, size), 1, (0.5,), (0.25,), resize="stretch")
    about = Portable("lenet5", architecture_of(model), "image-classification", CLASSES, preprocess.to_json())
    save_portable(tmp_path / "run" / "model", model, about)
    return tmp_path / "run"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (11, 40, 30, 3), dtype=np.uint8)
    for n, each in enumerate(pixels):
        Image.fromarray(each).save(folder / f"{n:02}.png")
    (folder / "05.png").write_bytes(b"not a picture")
    (folder / "notes.txt").write_text("no picture and not meant to be one")
    return folder


def test_load_takes_a_run_and_its_model_folder(run: Path, model: nn.Module) -> None:
    x = torch.randn(2, 1, *[model.config.image_size] * 2)
    for folder in (run, run / "model"):
        loaded = load(folder)
        assert loaded.name == "lenet5" and loaded.classes == CLASSES and not loaded.model.training
        assert torch.equal(loaded.model(x), model(x))


def test_load_says_what_is_not_there(tmp_path: Path, run: Path) -> None:
    with pytest.raises(UsageError, match="neither a run nor a model"):
        load(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(OrchardError, match="not finished"):
        load(tmp_path)
    config = json.loads((run / "model" / "config.json").read_text())
    config["classes"] = config["classes"][:9]
    (run / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(OrchardError, match="names 9 classes, the model has 10"):
        load(run)


def test_multiply_adds_are_those_of_the_layers() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 5))
    assert multiply_adds(net, (1, 3, 6, 6)) == 3 * 8 * 9 * 36 + 8 * 36 * 5
    assert multiply_adds(net, (4, 3, 6, 6)) == 4 * multiply_adds(net, (1, 3, 6, 6))
    assert net.training and net[0].weight.device.type == "cpu"
    assert weight_bytes(net[0]) == 4 * (3 * 8 * 9 + 8)
    weights = 8 * 3 * 9 + 8 + 5 * 8 * 36 + 5
    assert bytes_moved(net, (2, 3, 6, 6)) == 4 * (2 * (3 * 36 + 8 * 36 + 8 * 36 + 5) + weights)


@pytest.fixture
def fastest(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes one of the ways the fastest, whatever the clock says."""

    def make(way: str) -> None:
        monkeypatch.setattr(fast_module, "_time", lambda ways, _: {key: 1 + float(key[0] != way) for key in ways})

    return make


def test_the_fastest_way_agrees_pads_and_is_kept(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch, fastest: Callable[[str], None]
) -> None:
    size = model.config.image_size
    example = torch.randn(4, 1, size, size)
    monkeypatch.setattr(fast_module, "ENGINES", ())
    fastest("compiled")
    made = make_fast(model, example, precision="fp32")
    assert made.how.startswith("compiled, the fastest here (times as long: as it is") and made.batch == 4
    assert relative_difference(made(example[:3]), model(example[:3])) < 1e-5
    with pytest.raises(ValueError, match="a batch of 5"):
        made(torch.randn(5, 1, size, size))

    monkeypatch.setattr(fast_module, "_choose", lambda *_: pytest.fail("chosen a second time"))
    again = make_fast(model, example, precision="fp32")
    assert again.how == "compiled, from the cache"
    assert torch.equal(again(example), made(example))


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_is_taken_where_it_is_the_fastest(
    engine: str, model: nn.Module, monkeypatch: pytest.MonkeyPatch, fastest: Callable[[str], None]
) -> None:
    pytest.importorskip(engine)
    pytest.importorskip("onnxscript")
    monkeypatch.setenv("CXX", "no-such-compiler")
    example = torch.randn(4, 1, *[model.config.image_size] * 2)
    fastest(engine)
    made = make_fast(model, example, precision="fp32")
    assert made.how.startswith(f"{engine}, the fastest here")
    assert relative_difference(made(example[:3]), model(example[:3])) < 1e-5
    place = choice_path(model, example.shape, "fp32")
    assert sorted(path.suffix for path in place.parent.glob(f"{place.stem}*")) == [".json", ".onnx", ".sha256"]
    assert make_fast(model, example, precision="fp32").how == f"{engine}, from the cache"
    place.with_suffix(".onnx").write_bytes(b"cut off")
    assert make_fast(model, example, precision="fp32").how.startswith(f"{engine}, the fastest here")


def test_the_model_as_it_is_stays_where_nothing_beats_it(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch, fastest: Callable[[str], None]
) -> None:
    monkeypatch.setattr(fast_module, "ENGINES", ("onnxruntime",))
    monkeypatch.setattr(fast_module, "_can_run", lambda _: True)
    monkeypatch.setattr(fast_module, "_prepare", lambda *_: None)
    monkeypatch.setattr(fast_module, "_open", lambda *_: model)
    monkeypatch.setenv("CXX", "no-such-compiler")
    example = torch.randn(4, 1, *[model.config.image_size] * 2)
    fastest("eager")
    how = make_fast(model, example, precision="fp32").how
    assert how.startswith("as it is, the fastest here (times as long: onnxruntime 2.00)")
    place = choice_path(model, example.shape, "fp32")
    assert [path.name for path in place.parent.glob(f"{place.stem}*")] == [place.name]
    monkeypatch.setattr(fast_module, "_choose", lambda *_: pytest.fail("chosen a second time"))
    again = make_fast(model, example, precision="fp32")
    assert again.how == "as it is, which was fastest here" and torch.equal(again(example), model(example))


def test_a_choice_is_named_by_all_it_depends_on(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    path = choice_path(model, (4, 1, 28, 28), "fp32")
    assert path == choice_path(model, (4, 1, 28, 28), "fp32")
    assert path != choice_path(model, (8, 1, 28, 28), "fp32")
    assert path != choice_path(model, (4, 1, 28, 28), "bf16")
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert path != choice_path(model, (4, 1, 28, 28), "fp32")
    monkeypatch.undo()
    with torch.no_grad():
        next(model.parameters())[0] += 1e-6
    assert path != choice_path(model, (4, 1, 28, 28), "fp32")


def test_without_a_compiler_it_works_and_says_so(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(fast_module, "ENGINES", ())
    example = torch.randn(4, 1, *[model.config.image_size] * 2)
    run = make_fast(model, example, precision="fp32")
    assert "no C++ compiler" in run.how
    assert torch.equal(run(example[:3]), model(example[:3]))


def test_a_way_that_differs_or_fails_is_not_taken(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch, fastest: Callable[[str], None]
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(fast_module, "_prepare", lambda *_: None)
    fastest("openvino")

    def opened(way: str, file: Path, precision: str) -> Callable[[torch.Tensor], torch.Tensor]:
        if way == "onnxruntime":
            raise RuntimeError("no kernel")
        return lambda images: -model(images)

    monkeypatch.setattr(fast_module, "_open", opened)
    example = torch.randn(4, 1, *[model.config.image_size] * 2)
    run = make_fast(model, example, precision="fp32")
    assert "onnxruntime failed: no kernel" in run.how and "openvino gives other answers" in run.how
    assert torch.equal(run(example), model(example))


@pytest.mark.parametrize(
    "record", ["cut off", "{}", '{"way": "magic", "precision": "fp32", "seconds": {}}', "compiled"]
)
def test_a_damaged_choice_is_made_again(model: nn.Module, monkeypatch: pytest.MonkeyPatch, record: str) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(fast_module, "ENGINES", ())
    example = torch.randn(4, 1, *[model.config.image_size] * 2)
    path = choice_path(model, example.shape, "fp32")
    if record == "compiled":  # one that names a file which is not as it was left
        record = '{"way": "compiled", "precision": "fp32", "seconds": {}}'
        path.with_suffix(".pt2").write_bytes(b"of others")
    path.write_text(record)
    assert torch.equal(make_fast(model, example, precision="fp32")(example), model(example))
    assert json.loads(path.read_text())["way"] == "eager" and not path.with_suffix(".pt2").exists()


def test_the_fastest_way_is_for_work_that_pays_for_it() -> None:
    assert not pays(4e6 * 1000, "bf16", made=False)  # a small model
    assert not pays(4e9, "bf16", made=True)  # one picture
    assert pays(4e9 * 10_000, "bf16", made=False)
    assert pays(4e9 * 300, "bf16", made=True)


def test_answers_come_in_order_and_an_unreadable_picture_is_one_of_them(run: Path, pictures: Path) -> None:
    predictor = ImageClassifier(load(run))
    predictor.batch = 4  # the batches then end in the middle, and the last is short
    answers = predictor(pictures, top=3)
    assert [Path(a.picture).name for a in answers] == [f"{n:02}.png" for n in range(11)]
    assert [a.picture for a in answers if a.error] == [str(pictures / "05.png")]
    assert "not a picture" in answers[5].error and not answers[5].top
    alone = predictor(pictures / "07.png", top=10)[0]
    assert [name for name, _ in answers[7].top] == [name for name, _ in alone.top[:3]]
    assert [p for _, p in answers[7].top] == pytest.approx([p for _, p in alone.top[:3]], abs=1e-5)
    assert sum(p for _, p in alone.top) == pytest.approx(1, abs=1e-5)
    assert [p for _, p in alone.top] == sorted((p for _, p in alone.top), reverse=True)


def test_answers_stream_and_reading_stays_a_few_batches_ahead(
    run: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = pipeline(run)
    predictor.batch = 2
    read: list[str] = []
    plain_read = predictor._read
    monkeypatch.setattr(predictor, "_read", lambda path: (read.append(path), plain_read(path))[1])
    answers = predictor.predict([str(pictures / "00.png")] * 1000)
    assert isinstance(answers, GeneratorType)
    next(answers)
    answers.close()
    assert len(read) <= predictor.batch * (AHEAD + 2)


def test_large_work_takes_the_fastest_way(run: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier_module, "pays", lambda *_: True)
    monkeypatch.setattr(
        classifier_module, "make_fast", lambda model, example, precision: FastModel(model, precision, "fake")
    )
    said: list[str] = []
    predictor = ImageClassifier(load(run), precision="fp32", say=said.append)
    assert len(predictor(pictures)) == 11
    assert said[-1] == "fp32, fake"


def test_pictures_are_found(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(find_images(pictures)) == 11
    assert find_images([pictures / "01.png", str(pictures / "0[23].png")]) == [
        str(pictures / name) for name in ("01.png", "02.png", "03.png")
    ]
    with pytest.raises(UsageError, match="no picture there"):
        find_images(pictures / "nothing*.png")


def test_pipeline_by_task(run: Path) -> None:
    assert pipeline("image-classification", model=run).loaded.name == "lenet5"
    with pytest.raises(UsageError, match="unknown task"):
        pipeline("image-clasification", model=run)


def command(*words: str) -> int:
    return orchard("predict", *words)


def test_the_command_gives_json_csv_and_an_exit_code(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")  # so that no path is broken over lines
    assert command(str(run), str(pictures), "--json", "--top", "2") == 1
    out = capsys.readouterr()
    rows = json.loads(out.out)
    assert len(rows) == 11 and len(rows[0]["top"]) == 2 and "error" in rows[5]
    assert "1 of 11 could not be answered" in out.err

    assert command(str(run), str(pictures / "0[0-4].png"), "--csv", str(tmp_path / "out.csv")) == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 5 and lines[0]["class_1"] in CLASSES and not lines[0]["error"]

    capsys.readouterr()
    (pictures / "00.png").rename(pictures / "[odd].png")  # brackets mean colours to the table
    assert command(str(run), str(pictures / "[odd].png"), str(pictures / "05.png")) == 1
    shown = capsys.readouterr().out
    assert "class " in shown and "[odd]" in shown.replace("\n", "")
    assert command(str(run), str(pictures), "--precision", "int3") == 2


@pytest.mark.parametrize(
    ("name", "size"), [("timm:resnet18", 32), ("timm:vit_tiny_patch16_224", (32, 64)), ("timm:convnext_atto", 32)]
)
def test_a_model_of_timm_has_a_landmarks_manners(name: str, size: int | tuple[int, int]) -> None:
    pytest.importorskip("timm")
    assert is_foreign(name) and not is_foreign("resnet18")
    model = create_foreign(name, num_classes=5, in_channels=1, image_size=size).eval()
    assert model(torch.randn(2, 1, *model.config.image_hw)).shape == (2, 5)
    names = [name for name, _ in model.named_parameters()]
    groups = model.layer_groups()
    assert all(sum(name.startswith(prefixes) for prefixes in groups) == 1 for name in names)
    head = [name for name in names if name.startswith(f"{model.head_name}.")]
    assert head and all(name.startswith(groups[-1]) for name in head)
    with pytest.raises(ValueError, match=r"expected pictures of shape \(B, 1"):
        model(torch.randn(2, 3, *model.config.image_hw))


def test_a_model_of_transformers_has_them_too() -> None:
    pytest.importorskip("transformers")
    model = create_foreign("hf:resnet", num_classes=5, in_channels=1, image_size=32).eval()
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 5)
    assert dict(model.named_modules())[model.head_name].out_features == 5


def test_an_unknown_model_of_timm_is_refused() -> None:
    pytest.importorskip("timm")
    with pytest.raises(UsageError, match=r"unknown timm model 'resnet19'; did you mean resnet18"):
        create_foreign("timm:resnet19", num_classes=5)


@pytest.mark.parametrize(
    "name",
    ["hf:some/folder", "hf:../folder", "hf:/etc", "hf:", "timm:../../x", "timm:resnet18.../../x", "timm:local-dir:/a"],
)
def test_a_path_is_no_model_and_its_code_does_not_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda _: "y")
    for folder in ("some/folder", "../folder"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        auto = {"AutoConfig": "evil.C", "AutoModelForImageClassification": "evil.M"}
        (Path(folder) / "config.json").write_text(json.dumps({"model_type": "x", "auto_map": auto}))
        (Path(folder) / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UsageError, match=r"is no name of|is a file or folder here"):
        create_foreign(name, num_classes=3)
    assert not (tmp_path / "ran").exists()


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers")
    asked = []

    def find(*_: object, **how: object) -> None:
        asked.append(how)
        raise OSError("not in the cache")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", find)
    with pytest.raises(UsageError, match="nothing is fetched"):
        create_foreign("hf:someone/x", num_classes=3)
    assert asked[0]["local_files_only"] and asked[0]["trust_remote_code"] is False


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("architecture.num_classes", 10**9, "'num_classes' is 1000000000"),
        ("architecture.num_classes", 10**7, "larger model than the weights"),
        ("architecture.num_classes", "ten", "'num_classes': input should be a valid integer"),
        ("architecture.num_classes", None, "'num_classes': input should be a valid integer"),
        ("architecture.image_size", -1, "cannot be built|image_size is -1"),
        ("architecture.nothing", 1, "'nothing' is no field of lenet5"),
        ("architecture", [], "'architecture': input should be a valid dictionary"),
        ("model", "lenet6", "unknown model 'lenet6'"),
        ("model", 5, "'model': input should be a valid string"),
        ("model", "hf:some/folder", "is no field of|is no name of|is a file or folder"),
        ("classes", "abc", "'classes': input should be a valid tuple"),
        ("preprocess.std", [0.0], r"'preprocess\.std\.0': input should be greater than 0"),
        ("preprocess.mean", [float("nan")], r"'preprocess\.mean\.0': input should be a finite number"),
        ("preprocess.mean", [0.1, 0.2], "not one mean and std for each of its 1 channels"),
        ("preprocess.size", [10**9, 28], r"'preprocess\.size\.0': input should be less than"),
        ("more", 1, "'more': extra inputs are not permitted"),
    ],
)
def test_a_changed_description_is_one_line(run: Path, key: str, value: object, expected: str) -> None:
    file = run / "model" / "config.json"
    table = inside = json.loads(file.read_text())
    *way, last = key.split(".")
    for name in way:
        inside = inside[name]
    inside[last] = value
    file.write_text(json.dumps(table))
    with pytest.raises(OrchardError, match=expected) as caught:
        load(run)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", "[" * 100_000])
def test_a_damaged_description_is_one_line(run: Path, text: str) -> None:
    (run / "model" / "config.json").write_text(text)
    with pytest.raises(OrchardError, match=r"config\.json"):
        load(run)


def test_weights_that_are_no_numbers_are_not_answered_with(run: Path) -> None:
    file = run / "model" / "model.safetensors"
    state = load_file(file)
    name = next(iter(state))
    state[name].view(-1)[0] = float("nan")
    save_file(state, file)
    with pytest.raises(OrchardError, match=f"'{name}' holds values that are no finite numbers"):
        load(run)
