"""Judging images as the field does: the Inception network of FID, its metrics, and what is not computed twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore as TheirScore
from torchmetrics.image.kid import KernelInceptionDistance

from orchard.app.evaluate import evaluate
from orchard.app.importing import import_checkpoint
from orchard.app.train import train
from orchard.data.contracts import Preprocess
from orchard.errors import OrchardError, UsageError
from orchard.inference.frechet import Moments, frechet_distance_of_moments, kernel_distance
from orchard.inference.inception_score import InceptionScore
from orchard.models import create_model
from orchard.tasks.unconditional_image_generation import sample
from orchard.tasks.unconditional_image_generation.judge import Judge, make_judge
from orchard.tasks.unconditional_image_generation.sample import Sample, compare, remembered, sample_of
from orchard.weights.golden import read_golden
from orchard.weights.official import export_official
from orchard.weights.portable import Portable, save_portable

GOLDEN = Path(__file__).parent / "golden" / "fid"
CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "architecture": {"levels": 1, "generator_width": 4, "discriminator_width": 4, "noise": 6},
    "image_size": 8,
    "batch_size": 32,
    "max_steps": 1,
    "generation.samples": 40,
}


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    return dict(read_golden(GOLDEN / "inception_fid_299").state)


@pytest.fixture(scope="module")
def inception(official: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Judge]:
    """The folder that `orchard import` makes of an official file, and the judge."""
    folder = tmp_path_factory.mktemp("fid")
    file = folder / "pt_inception-2015-12-05-6726825d.pth"
    torch.save(official, file)
    found = import_checkpoint("inception_v3_fid", file, folder / "model")
    assert found.official.about.origin == f"{file.name}, pytorch-fid names"
    back = export_official(found.official.model, "pytorch-fid")
    assert all(torch.equal(official[name], tensor) for name, tensor in back.items())
    assert set(official) - set(back) <= {name for name in official if name.endswith("num_batches_tracked")}
    return folder / "model", make_judge(str(folder / "model"), 3, CPU)


@pytest.mark.parametrize("case", ["inception_fid_299", "inception_fid_resize"])
def test_features_and_logits_are_those_of_pytorch_fid(
    inception: tuple[Path, Judge], official: dict[str, Tensor], case: str
) -> None:
    judge, stored = inception[1], load_file(GOLDEN / case / "io.safetensors")
    if case != "inception_fid_299":  # its weights follow from a seed of its own
        judge.network.model.load_state_dict(ours_of(read_golden(GOLDEN / case).state))
    features, logits = judge.look(stored["in.images_u8"])
    scale = stored["out.pool3"].abs().max()
    assert (features - stored["out.pool3"]).abs().max() < 1e-5 * scale
    assert (features - stored["out.pool3_with_torchvision_blocks"]).abs().max() > 1e-2 * scale
    assert logits is not None  # without the head's bias
    expected = stored["out.logits_1008"]
    assert (logits + judge.network.head.bias - expected).abs().max() < 1e-5 * expected.abs().max()


def ours_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    from orchard.weights.official import load_official

    model = create_model("inception_v3_fid")
    load_official(model, state, "pytorch-fid")
    return model.state_dict()


def test_the_network_of_2015_scores_and_knows_no_names(inception: tuple[Path, Judge]) -> None:
    judge = inception[1]
    assert judge.scores and judge.words.startswith("inception_v3_fid of ")
    assert not judge.knows(("0", "1", "2"))  # digits are not its classes of these numbers
    assert judge.batch == 46  # of 299x299 in 2^22


# Metrics


@pytest.fixture(scope="module")
def stored() -> dict[str, Tensor]:
    return load_file(GOLDEN / "metrics" / "io.safetensors")


def in_batches(features: Tensor, *logits: Tensor, size: int = 7) -> Sample:
    found = Sample(len(features))
    for batch in zip(features.split(size), *(one.split(size) for one in logits), strict=True):
        found.add(*batch)
    return found


def test_moments_of_batches_are_those_of_all(stored: dict[str, Tensor]) -> None:
    for kind in ("real", "fake"):
        moments = Moments(8)
        for batch in stored[f"in.features_{kind}"].split(7):
            moments.add(batch)
        torch.testing.assert_close(moments.mean, stored[f"out.mu_{kind}"], atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(moments.covariance, stored[f"out.sigma_{kind}"], atol=1e-12, rtol=1e-12)
    far = Moments(1)  # a variance of 1 at 1e7, where sums of squares would keep none of it
    for batch in (1e7 + torch.tensor([-1.0, 0, 1], dtype=torch.double)).view(3, 1).split(2):
        far.add(batch)
    assert far.covariance.item() == pytest.approx(1, rel=1e-9)
    with pytest.raises(ValueError, match="two samples or more, got 0"):
        _ = Moments(3).covariance


@pytest.mark.parametrize("splits", [1, 5])
def test_inception_scores_are_those_of_torch_fidelity(stored: dict[str, Tensor], splits: int) -> None:
    score = InceptionScore(60, splits)
    with pytest.raises(ValueError, match="expected the logits of 60 images, got 0"):
        score.result()
    for batch in stored["in.logits"].split(7):
        score.add(batch)
    mean, deviation = (stored[f"out.is.splits{splits}.{name}"].item() for name in ("mean", "std"))
    assert score.result() == pytest.approx((mean, deviation), rel=1e-6)


def test_kernel_distances_of_subsets_are_those_of_torch_fidelity(stored: dict[str, Tensor]) -> None:
    draw, values = np.random.RandomState(2020), []
    for _ in range(10):
        real, fake = (stored[f"in.features_{kind}"][draw.choice(60, 20, replace=False)] for kind in ("real", "fake"))
        values.append(kernel_distance(real, fake))
    assert np.mean(values) == pytest.approx(stored["out.kid.mean"].item(), rel=1e-6)
    assert np.std(values) == pytest.approx(stored["out.kid.std"].item(), rel=1e-6)


def test_a_comparison_has_the_metrics_of_the_references(stored: dict[str, Tensor]) -> None:
    real, fake = in_batches(stored["in.features_real"]), in_batches(stored["in.features_fake"], stored["in.logits"])
    found = compare(real, fake)
    assert found["samples"] == 60 and found["fid"] == pytest.approx(stored["out.fid"].item(), rel=1e-9)
    assert found["kid"] == pytest.approx(stored["out.mmd2.unbiased"].item(), rel=1e-7)
    for name in ("precision", "recall", "density", "coverage"):
        assert found[name] == pytest.approx(stored[f"out.prdc.k5.{name}"].item())
    assert "inception_score" in found and "inception_score" not in compare(fake, real)  # the generated images'


class Given(nn.Module):
    """What torchmetrics is given are features already."""

    num_features = 8

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_the_metrics_are_those_of_torchmetrics(stored: dict[str, Tensor]) -> None:
    real, fake, logits = (stored[f"in.{name}"] for name in ("features_real", "features_fake", "logits"))
    found = compare(in_batches(real), in_batches(fake, logits))
    distance = FrechetInceptionDistance(feature=Given()).set_dtype(torch.float64)
    kernel = KernelInceptionDistance(feature=Given(), subsets=1, subset_size=60)
    for metric in (distance, kernel):
        metric.update(real.double(), real=True)
        metric.update(fake.double(), real=False)
    assert found["fid"] == pytest.approx(float(distance.compute()), rel=1e-5)
    assert found["kid"] == pytest.approx(float(kernel.compute()[0]), rel=1e-5)
    theirs, ours = TheirScore(feature=Given(), splits=1), InceptionScore(60, 1)
    theirs.update(logits)
    ours.add(logits)
    assert ours.result()[0] == pytest.approx(float(theirs.compute()[0]), rel=1e-5)


def test_memory_does_not_grow_with_the_number_of_samples() -> None:
    with patch.object(sample, "FEW", 10):
        features = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
        found = in_batches(features)
    assert torch.equal(found.few, features[torch.linspace(0, 99, 10).round().long()])
    assert frechet_distance_of_moments(found.moments, sample_of(features).moments) == pytest.approx(0, abs=1e-12)


def test_few_samples_are_said_to_be_biased() -> None:
    assert "fid of 8 samples in 8 features is biased upward" in sample_of(torch.randn(8, 8)).bias
    assert not sample_of(torch.randn(9, 8)).bias


# The cache


def test_what_was_judged_is_kept_and_what_is_damaged_is_judged_again(
    stored: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHARD_CACHE", str(tmp_path / "cache"))
    calls = []

    def make() -> Sample:
        calls.append(1)
        return in_batches(stored["in.features_fake"], stored["in.logits"])

    first, second = (remembered(60, ("data", "judge"), make) for _ in range(2))
    other = in_batches(stored["in.features_real"])
    assert len(calls) == 1 and compare(other, first) == compare(other, second)
    assert torch.equal(first.predicted, second.predicted)
    remembered(60, ("data", "another judge"), make)
    assert len(calls) == 2
    for file in (tmp_path / "cache" / "judged").glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    assert compare(other, remembered(60, ("data", "judge"), make)) == compare(other, first) and len(calls) == 3
    (tmp_path / "cache").chmod(0o777)  # others could write there: it is not used
    remembered(60, ("data", "judge"), make)
    assert len(calls) == 4


# Evaluation by another judge


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model, folder = create_model("lenet5", num_classes=3, image_size=16), tmp_path_factory.mktemp("judge")
    preprocess = Preprocess((16, 16), 1, (0.3,), (0.2,), resize="stretch").to_json()
    save_portable(
        folder, model, Portable("lenet5", vars(model.config), "image-classification", ("a", "b", "c"), preprocess)
    )
    return folder


def test_a_model_is_judged_by_another_and_real_images_once(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORCHARD_CACHE", str(tmp_path / "cache"))
    run = tmp_path / "run"
    trained = train("dcgan_nano", "digits", run, **SMALL)
    assert trained["test"]["samples"] == 40 and "inception_score" not in trained["test"]
    assert "fid of 40 samples in 480 features is biased upward" in capsys.readouterr().err
    same = evaluate(run, "digits")
    assert same["judge"] == "fixed random weights" and same["test"] == pytest.approx(trained["test"])
    settings = {"generation.judge": str(classifier), "generation.samples": 100}
    with patch.object(Judge, "look", autospec=True, side_effect=Judge.look) as looked:
        found = evaluate(run, "digits", settings=settings)
        once = looked.call_count
        again = evaluate(run, "digits", settings=settings)
    assert found == again and looked.call_count == once + 1 == 3  # of the second call, the generated images alone
    assert found["judge"] == f"lenet5 of {classifier}" and found["test"]["samples"] == found["count"] == 100
    assert 1 <= found["test"]["inception_score"] <= 3 and found["test"]["fid"] != same["test"]["fid"]
    page = (run / "report.html").read_text()
    assert "of 40 samples each" in page and "the Fréchet distance is biased upward" in page
    assert json.loads((run / "metrics.json").read_text())["judge"] == "fixed random weights"
    with pytest.raises(UsageError, match=r"setting 'generation.judge': .* is for unconditional-image-generation"):
        evaluate(run, "digits", settings={"generation.judge": str(run)})
    with pytest.raises(UsageError, match=r"setting 'generation.samples': input should be greater than or equal to 10"):
        evaluate(run, "digits", settings={"generation.samples": 1})
    (classifier / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(OrchardError, match=r"model\.safetensors"):
        evaluate(run, "digits", settings=settings)
