"""Models that answer together, and trainings on folds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import orchard
from PIL import Image

import orchard as package
from orchard.data import open_data
from orchard.data.settings import ImageSource
from orchard.data.splits import fold_numbers
from orchard.errors import UsageError
from orchard.inference.outputs import Numbers, OneClass, SeveralClasses, mean_outputs
from orchard.models import create_model
from orchard.weights.portable import Portable, architecture_of, save_portable

COLOURS = {"dark": 60, "grey": 120, "light": 200}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 12 noisy images, 8x8 and grey."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, level in COLOURS.items():
        (root / name).mkdir()
        for number in range(12):
            pixels = np.clip(level + rng.normal(0, 30, (8, 8)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def saved(folder: Path, seed: int, classes: tuple[str, ...], size: int = 28, **facts: Any) -> Path:
    """A classifier with random weights that are far apart."""
    torch.manual_seed(seed)
    model: Any = create_model("lenet5", num_classes=len(classes), image_size=size)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    preprocess = {"size": [size, size], "channels": 1, "mean": [0.1 * seed], "std": [0.3]}
    about = Portable("lenet5", architecture_of(model), "image-classification", classes, preprocess, facts=facts)
    save_portable(folder / str(seed), model, about)
    return folder / str(seed)


# Ensembles


def test_the_answer_is_the_mean_of_the_probabilities_by_name(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Members of other class orders, sizes and preprocessing."""
    runs = [saved(tmp_path, 1, ("dark", "grey", "light")), saved(tmp_path, 2, ("light", "dark", "grey"), size=32)]
    data = open_data(str(images), ImageSource(source=str(images)).for_evaluation(whole=True))
    paths = [str(images / data.splits["test"].key(n)) for n in range(len(data.splits["test"]))]
    each = [[dict(one.top) for one in package.pipeline(run)(paths)] for run in runs]
    together = package.pipeline(runs)(paths)
    labels = data.splits["test"].labels
    loss, right = 0.0, 0
    for one, a, b, label in zip(together, *each, labels, strict=True):
        mean = {name: (a[name] + b[name]) / 2 for name in a}
        assert dict(one.top) == pytest.approx(mean, abs=1e-6)
        assert [name for name, _ in one.top] == sorted(mean, key=lambda name: -mean[name])
        loss -= np.log(mean[data.classes[label]]) / len(labels)
        right += one.top[0][0] == data.classes[label]
    assert any(one.top[0][0] != max(a, key=a.get) for one, a in zip(together, each[0], strict=True))

    found = package.evaluate(runs, str(images))
    assert found["test"]["loss"] == pytest.approx(loss, rel=1e-4)
    assert found["test"]["accuracy"] == pytest.approx(right / len(labels))
    alone = {str(run): package.evaluate(run, str(images))["test"] for run in runs}
    assert found["members"] == alone and len({m["loss"] for m in alone.values()}) == 2

    (broken := tmp_path / "broken.png").write_text("no image")
    capsys.readouterr()
    assert orchard("predict", runs[0], "--with", runs[1], paths[0], broken, "--top", 2, "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert [tuple(pair.values()) for pair in said[0]["top"]] == [
        (name, pytest.approx(p, abs=1e-6)) for name, p in together[0].top[:2]
    ]
    assert said[1]["picture"] == str(broken) and "not a picture" in said[1]["error"]
    assert orchard("evaluate", runs[0], "--with", runs[1], "--data", images) == 0
    shown = capsys.readouterr().out
    assert "ensemble of 2" in shown and f"[2] {runs[1]}" in shown and f"{alone[str(runs[1])]['loss']:.4f}" in shown


def test_outputs_of_the_mean_and_back() -> None:
    one, two = (SeveralClasses(n, t) for n, t in ((("a", "b"), (0.2, 0.6)), (("b", "a"), (0.8, 0.3))))
    assert mean_outputs([one, two]) == SeveralClasses(("a", "b"), (0.25, 0.7))
    numbers = mean_outputs([Numbers(("w",), (1.0,), (2.0,), (1.0,)), Numbers(("w",), (3.0,), (4.0,), (2.0,))])
    assert numbers == Numbers(("w",), (2.0,), (3.0,), (1.5,))
    outputs = torch.tensor([[3.0, -2.0], [0.0, 20.0]], dtype=torch.float64)
    assert torch.allclose(one.inverse(one.tensor(outputs)), outputs)
    assert torch.allclose(numbers.inverse(numbers.tensor(outputs[:, :1])), outputs[:, :1])
    plain = OneClass(("a", "b"))
    assert torch.allclose(plain.tensor(plain.inverse(plain.tensor(outputs))), plain.tensor(outputs))
    assert plain.inverse(torch.tensor([[1.0, 0.0]])).isfinite().all()
    assert one.inverse(torch.tensor([[1.0, 0.0]])).isfinite().all()


def test_multi_label_models_answer_by_their_mean_thresholds(tmp_path: Path, images: Path) -> None:
    classes = ("dark", "grey", "light")
    low, high = ({"target": "classes", "thresholds": [t] * 3} for t in (0.0, 1.0))
    runs = [saved(tmp_path, 1, classes, **low), saved(tmp_path, 2, classes, **high)]
    path = str(images / "dark" / "0.png")
    everything = dict(package.pipeline(runs[0])(path)[0].top)
    assert len(everything) == 3 and package.pipeline(runs[1])(path)[0].top == ()
    found = dict(package.pipeline(runs)(path)[0].top)
    other = dict(package.pipeline(saved(tmp_path, 2, classes, **low))(path)[0].top)
    mean = {name: (everything[name] + other[name]) / 2 for name in classes}
    assert found == pytest.approx({name: p for name, p in mean.items() if p >= 0.5}, abs=1e-6) and 0 < len(found) < 3


def test_models_that_do_not_go_together(tmp_path: Path, images: Path) -> None:
    first = saved(tmp_path, 1, ("dark", "grey", "light"))
    other = saved(tmp_path, 2, ("dark", "grey", "blue"))
    with pytest.raises(UsageError, match=rf"{other} does not know 'light', as {first} does"):
        package.pipeline([first, other])
    with pytest.raises(UsageError, match=rf"{other} does not know 'light'"):
        package.evaluate([first, other], str(images))
    wider = saved(tmp_path, 4, ("dark", "grey", "light", "blue"))
    with pytest.raises(UsageError, match=rf"{wider} knows 'blue', other than {first} does"):
        package.pipeline([first, wider])
    several = saved(tmp_path, 3, ("dark", "grey", "light"), target="classes", thresholds=[0.5] * 3)
    with pytest.raises(UsageError, match=rf"{several} has learned data\.target=classes"):
        package.pipeline([first, several])
    with pytest.raises(UsageError, match="is named twice"):
        package.pipeline([first, first])
    with pytest.raises(UsageError, match="no run is named"):
        package.evaluate([], str(images))
    vqvae: Any = create_model("vqvae_nano")
    save_portable(tmp_path / "vqvae", vqvae, Portable("vqvae_nano", architecture_of(vqvae), "image-tokenization"))
    with pytest.raises(UsageError, match=r"is for image-tokenization, .* for image-classification"):
        package.evaluate([first, tmp_path / "vqvae"], str(images))
    with pytest.raises(UsageError, match="is for image-tokenization, whose models do not answer together"):
        package.evaluate([tmp_path / "vqvae", first], str(images))


# Folds


def test_folds_are_made_by_content_with_every_class_in_proportion() -> None:
    rng = np.random.default_rng(0)
    chance, labels = rng.random(200), rng.integers(0, 3, 200)
    chance[7], labels[7] = chance[3], labels[3]  # a copy
    found = fold_numbers(chance, labels, 4)
    assert found[3] == found[7]
    for label in range(3):
        sizes = np.bincount(found[labels == label], minlength=4)
        assert sizes.max() - sizes.min() <= 2, sizes
    order = rng.permutation(200)
    assert (fold_numbers(chance[order], labels[order], 4) == found[order]).all()
    more = fold_numbers(np.append(chance, 0.5), np.append(labels, 0), 4)[:-1]
    assert (more != found).sum() <= 3, "one more record moves at most one across each cut"
    small = fold_numbers(rng.random(30), np.arange(30) // 5, 5)
    assert all((np.bincount(small[5 * n : 5 * n + 5], minlength=5) == 1).all() for n in range(6))


@pytest.mark.parametrize("named", [False, True])
def test_each_fold_is_once_the_validation_and_the_test_stays(images: Path, named: bool) -> None:
    source = "digits" if named else str(images)

    def keys(**settings: Any) -> dict[str, set[str]]:
        data = open_data(source, ImageSource(source=source, **settings))
        return {name: {split.key(n).split("/", 1)[-1].removeprefix("train/").removeprefix("validation/")
                       for n in range(len(split))} for name, split in data.splits.items()}  # fmt: skip

    whole = keys()
    parts = [keys(folds=3, fold=fold) for fold in range(3)]
    learned = whole["train"] | whole["validation"]
    assert sorted(key for part in parts for key in part["validation"]) == sorted(learned)
    for part in parts:
        assert part["test"] == whole["test"]
        assert part["train"] == learned - part["validation"]


def test_folds_that_cannot_be_made(images: Path, tmp_path: Path) -> None:
    def asked(source: Path | str, **settings: Any) -> None:
        open_data(str(source), ImageSource(source=str(source), **settings))

    with pytest.raises(
        UsageError, match=r"has 12 to learn from of 'dark', and 13 folds need as many; ask for at most 12"
    ):
        asked(images, folds=13, fold=0)
    with pytest.raises(UsageError, match="200 folds need as many"):
        asked("digits", folds=200, fold=0)
    rows = "".join(
        f"{images}/{name}/{n}.png,{name},{'val' if n < 2 else 'train'}\n" for name in COLOURS for n in range(9)
    )
    (tmp_path / "table.csv").write_text("path,label,split\n" + rows)
    with pytest.raises(UsageError, match=r"has a validation split of its own.*put its records among those of train"):
        asked(tmp_path / "table.csv", folds=3, fold=0)
    for settings in ({"folds": 3}, {"fold": 0}, {"folds": 3, "fold": 3}, {"folds": 1, "fold": 0}):
        with pytest.raises(ValueError, match=r"data\.fold|greater than or equal to 2"):
            ImageSource(source="digits", **settings)
    with pytest.raises(UsageError, match="expected at least 2"):
        package.train_folds("lenet5", "digits", 1)
    with pytest.raises(UsageError, match="whose data are not cut into folds"):
        package.train_folds("gpt2_nano", "text.txt", 3)
    with pytest.raises(UsageError, match=r"data\.fold is set by the cross-validation"):
        package.train_folds("lenet5", "digits", 3, **{"data.fold": 1})
    assert orchard("train", "lenet5", "--data", "digits", "--folds", 3, "--find-lr") == 2


def test_folds_are_trained_resumed_and_answer_together(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "folds"
    words = ("train", "lenet5", "--data", images, "--folds", 2, "--out", out, "--epochs", 1, "--set", "data.workers=0")
    assert orchard(*words) == 0
    shown = capsys.readouterr().out
    assert f"orchard predict {out} IMAGES" in shown
    found = json.loads((out / "folds.json").read_text())
    accuracy = found["validation"]["accuracy"]
    expected = [json.loads((out / f"fold-{n}/metrics.json").read_text())["validation"]["accuracy"] for n in range(2)]
    assert accuracy["values"] == expected and accuracy["mean"] == pytest.approx(np.mean(expected))
    assert accuracy["std"] == pytest.approx(np.std(expected, ddof=1)) and f"{accuracy['mean']:.4f}" in shown

    finished = (out / "fold-0/report.html").stat().st_mtime_ns
    (out / "fold-1/report.html").unlink()  # as one that was stopped
    (out / "folds.json").unlink()
    assert orchard("predict", out, images / "dark") == 1
    assert "its folds are not all trained yet" in capsys.readouterr().err
    assert orchard(*words) == 0
    assert (out / "fold-0/report.html").stat().st_mtime_ns == finished
    assert json.loads((out / "folds.json").read_text()) == found

    capsys.readouterr()
    assert orchard("predict", out, images / "dark", "--top", 1, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 12
    evaluated = package.evaluate(out, str(images))
    assert set(evaluated["members"]) == {str(out / "fold-0"), str(out / "fold-1")} and evaluated["count"] == 36
    assert "these models have learned from" in capsys.readouterr().err
