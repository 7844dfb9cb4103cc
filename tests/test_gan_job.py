"""Training adversarial pairs: exact, with any objective, judged by a fixed network, and put to work."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from stopping import stopped_after
from torch import Tensor, nn

from orchard.app.answer import answer
from orchard.app.importing import import_checkpoint
from orchard.app.pipeline import pipeline
from orchard.app.train import train
from orchard.cards import Recipe, find_recipe
from orchard.data.batches import ImageBatch
from orchard.data.contracts import Preprocess
from orchard.data.settings import CaptionSource
from orchard.errors import OrchardError, UsageError
from orchard.inference.generators import generators
from orchard.inference.loading import load
from orchard.models import create_model
from orchard.models.generation.pair import AdversarialPair
from orchard.tasks.base import make_fabric
from orchard.tasks.unconditional_image_generation import job as generation_job
from orchard.tasks.unconditional_image_generation.adversarial import Adversarial, generate
from orchard.tasks.unconditional_image_generation.diversity import falls
from orchard.tasks.unconditional_image_generation.job import evaluate_loaded
from orchard.tasks.unconditional_image_generation.judge import ClassifierFeatures, make_judge
from orchard.tasks.unconditional_image_generation.learner import ROWS, GenerationLearner
from orchard.tasks.unconditional_image_generation.objective import family_of, settle_objective
from orchard.tasks.unconditional_image_generation.phase_losses import PhaseLosses
from orchard.tasks.unconditional_image_generation.sample import Sample, compare
from orchard.tasks.unconditional_image_generation.settings import OBJECTIVES, AdversarialSettings, Options, Settings
from orchard.training.settings import resolve
from orchard.training.state import DivergedError
from orchard.training.step import Stepper
from orchard.weights.official import export_official
from orchard.weights.portable import Portable, save_portable

SMALL: dict[str, Any] = {
    "architecture": {"levels": 1, "generator_width": 4, "discriminator_width": 4, "noise": 6},
    "image_size": 8,
    "batch_size": 32,
    "max_steps": 6,
    "log_every": 2,
    "generation.samples": 40,
}
CPU = torch.device("cpu")
ADVERSARIAL = [  # for every pair; what mixes styles or reads codes is for those that have them
    name
    for name, named in OBJECTIVES.items()
    if named.family == "adversarial" and not {"mixing", "information"} & named.values.keys()
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which the discriminator learns twice in a step."""
    path = tmp_path_factory.mktemp("gan") / "run"
    more = {"adversarial.discriminator_steps": 2, "evaluate_steps": 4, "optimizer.lr": 0.01, "ema": 0.5}
    train("dcgan_nano", "digits", path, **SMALL, objective="hinge", **more)
    return path


def test_stopped_and_resumed_ends_in_the_same_bits(tmp_path: Path) -> None:
    settings = {**SMALL, "architecture": {"levels": 1, "width": 4, "noise": 6}, "objective": "wgan-gp", "ema": 0.9}
    settings |= {"adversarial.historical_averaging": 0.1}  # its mean is in the checkpoints
    settings |= {"optimizer.name": "adam", "batch_size": 64}  # four steps of five batches are an epoch
    whole = train("wgan_gp_nano", "digits", tmp_path / "whole", **settings)
    with stopped_after(5, 6):
        train("wgan_gp_nano", "digits", tmp_path / "parts", **settings)
    again = train("wgan_gp_nano", "digits", tmp_path / "parts", **settings)
    assert again["test"] == whole["test"]
    for file in ("model/model.safetensors", "evaluation/images.safetensors"):
        one, two = (load_file(tmp_path / name / file) for name in ("whole", "parts"))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one), file


def test_the_run_has_metrics_a_model_and_a_report(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    names = {"fid", "kid", "precision", "recall", "density", "coverage", "spread", "samples"}
    assert set(metrics["test"]) == set(metrics["validation"]) == set(metrics["training_images"]) == names
    assert metrics["training_images"]["fid"] < metrics["test"]["fid"]
    assert metrics["judge"] == "fixed random weights"
    loaded = load(run)
    assert metrics["parameters"] == sum(p.numel() for p in loaded.model.parameters())
    found = evaluate_loaded(loaded, "digits", "test", CaptionSource(source="digits"))
    assert found.pop("count") == metrics["test"]["samples"] and found.pop("about") == {"judge": metrics["judge"]}
    assert found == pytest.approx(metrics["test"])
    with pytest.raises(UsageError, match="digits has no dev split; it has train"):
        evaluate_loaded(loaded, "digits", "dev", CaptionSource(source="digits"))
    seen = load_file(run / "evaluation" / "images.safetensors")
    assert seen["steps"].tolist() == [4, 6] and seen["history"].shape == (2, 10, 1, 8, 8)
    assert torch.equal(seen["history"][-1], seen["generated"][:10])
    log = (run / "log.csv").read_text().splitlines()
    columns = log[0].split(",")
    first = dict(zip(columns, log[1].split(","), strict=True))
    assert float(first["score_real"]) and float(first["generator_loss"]) and not first["fid"]


def test_the_report_is_whole(run: Path) -> None:
    page = (run / "report.html").read_text()
    open_tags: list[str] = []
    void = ("meta", "img", "line", "rect", "path", "circle", "br")

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in void:
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            if tag not in void:
                assert open_tags.pop() == tag

    Tags().feed(page)
    assert not open_tags
    for words in (
        "Generated and real",
        "One row per evaluation",
        "step 6",
        "Fréchet distance",
        "Generator&#39;s loss",
        "Discriminator&#39;s accuracy",
        "Generator&#39;s gradient norm",
        "Nearest training images",
    ):
        assert words in page
    assert page.count("Its nearest training image") == 16 and "Warning" not in page
    assert page.count("<circle") >= 80  # forty real and forty generated images


def test_images_are_numbered_and_say_where_they_came_from(run: Path, tmp_path: Path) -> None:
    make = pipeline(run)
    three, two = make(count=3, seed=5), make(count=2, seed=5)
    assert [image.size for image in three] == [(8, 8)] * 3
    assert all(one.tobytes() == other.tobytes() for one, other in zip(three, two, strict=False))
    assert three[0].tobytes() != make(seed=6)[0].tobytes()
    (files,) = answer(run, [], {"count": 3, "seed": 5, "out": tmp_path / "out"})
    table = files.to_json()
    assert [Path(path).name for path in table["pictures"]] == ["0.png", "1.png", "2.png"]
    with Image.open(table["pictures"][1]) as saved:
        assert saved.tobytes() == three[1].tobytes()
        assert saved.info["model"] == "dcgan_nano" and (saved.info["seed"], saved.info["number"]) == ("5", "1")
    with Image.open(table["sheet"]) as sheet:
        assert sheet.size == (18, 18)
    with pytest.raises(UsageError, match="takes nothing, got 'a cat'"):
        list(answer(run, ["a cat"]))
    with pytest.raises(UsageError, match="option 'steps' is for diffusion models"):
        list(answer(run, [], {"steps": 10}))
    with pytest.raises(UsageError, match="option '--count': input should be greater than or equal to 1"):
        answer(run, [], {"count": 0})


# Objectives


def test_an_objective_fills_in_what_was_left_open(tmp_path: Path) -> None:
    settings = {**SMALL, "max_steps": 1, "batch_size": 16}
    train(
        "dcgan_nano",
        "digits",
        tmp_path / "one",
        **settings,
        objective="wgan-gp",
        **{"adversarial.discriminator_steps": 2},
    )
    found = json.loads((tmp_path / "one" / "settings.json").read_text())
    assert found["adversarial.loss"] == {"value": "wasserstein", "origin": "objective wgan-gp"}
    assert found["adversarial.regulariser"]["value"] == "gradient-penalty"
    assert found["adversarial.discriminator_steps"] == {"value": 2, "origin": "command"}
    for name in ("hinje", "wgn"):
        with pytest.raises(UsageError, match=f"unknown objective '{name}'"):
            train("dcgan_nano", "digits", tmp_path / "two", **settings, objective=name)
    with pytest.raises(UsageError, match="Linear makes no images; expected a model with a generator and a discrim"):
        family_of(nn.Linear(1, 1))


class Labelled(AdversarialPair):
    """A pair with classes: both networks are called with labels."""

    def __init__(self) -> None:
        class Config:
            noise, prior, num_classes, image_size, in_channels = 3, "normal", 4, 2, 1

        class Generator(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.table, self.linear = nn.Embedding(4, 3), nn.Linear(3, 4)

            def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
                return self.linear(noise + self.table(labels)).tanh().view(-1, 1, 2, 2)

        class Discriminator(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.table, self.linear = nn.Embedding(4, 4), nn.Linear(4, 1)

            def forward(self, images: Tensor, labels: Tensor) -> Tensor:
                x = images.flatten(1)
                return self.linear(x.square() + x).flatten() + (self.table(labels) * x).sum(1)

        super().__init__(Config(), Generator(), Discriminator())

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        return self.generator(noise, labels)

    def generate(self, noise: Tensor, labels: Tensor) -> Tensor:
        return self(noise, labels)


@pytest.mark.parametrize("pair", [Labelled(), create_model("dcgan_nano", **SMALL["architecture"], image_size=8)])
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_every_objective_trains_any_pair(name: str, pair: Any) -> None:
    """Each side's loss falls when its own parameters follow the gradient of its phase, and moves nothing else."""
    objective = Adversarial(AdversarialSettings(**OBJECTIVES[name].values), pair)
    side = pair.config.image_size
    learner = GenerationLearner(pair, (1, side, side), objective.memory).train()
    torch.manual_seed(0)
    with torch.no_grad():  # fresh weights of 0.02 are so small that a loss in float32 does not feel a step
        for parameter in pair.parameters():
            parameter.normal_(0, 0.2)
    batch = ImageBatch(torch.rand(16, 1, side, side) * 2 - 1, torch.arange(16) % 4, torch.arange(16))
    assert [phase.name for phase in objective.phases] == ["discriminator", "generator"]
    assert objective.phases[0].repeat == objective.settings.discriminator_steps
    for phase in objective.phases:
        learns = [p for n, p in learner.named_parameters() if n.startswith(phase.parameters)]
        assert 0 < len(learns) < len(list(learner.parameters()))

        def loss(phase: Any = phase) -> Tensor:
            torch.manual_seed(1)  # the same noise
            return phase.loss(learner, batch, 0)[0]

        before = loss()
        gradients = torch.autograd.grad(before, learns)
        with torch.no_grad():
            for parameter, gradient in zip(learns, gradients, strict=True):
                parameter -= 1e-3 * gradient
        assert loss() < before, phase.name
        with torch.no_grad():
            for parameter, gradient in zip(learns, gradients, strict=True):
                parameter += 1e-3 * gradient


def test_a_pair_with_classes_makes_them_in_turn() -> None:
    pair = Labelled().eval()
    (images,) = generate(pair, 0, range(8), Options())
    noise = torch.cat([pair.sample_noise(1, generator) for generator in generators(0, range(8))])
    torch.testing.assert_close(images, pair(noise, torch.arange(8) % 4))


def test_a_lazy_regulariser_has_a_phase_of_its_own() -> None:
    lazy = Adversarial(AdversarialSettings(regulariser="r1", regulariser_weight=3, regulariser_every=16))
    judging, regularising, making = lazy.phases
    assert (judging.every, regularising.every, making.every) == (1, 16, 1)
    assert judging.optimizer == regularising.optimizer != making.optimizer
    learner = GenerationLearner(create_model("dcgan_nano", **SMALL["architecture"], image_size=8), (1, 8, 8))
    batch = ImageBatch(torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64), torch.arange(4))
    eager = Adversarial(AdversarialSettings(regulariser="r1", regulariser_weight=3))
    plain = Adversarial(AdversarialSettings())
    losses = []
    for one in (lazy, eager, plain):
        torch.manual_seed(0)
        losses.append(float(one.phases[0].loss(learner, batch, 0)[0].detach()))
    apart = float(regularising.loss(learner, batch, 0)[0].detach())
    assert losses[0] == losses[2]
    assert losses[1] - losses[2] == pytest.approx(apart / 16, rel=1e-3)


def test_the_discriminator_may_have_a_learning_rate_of_its_own(tmp_path: Path) -> None:
    settings = {**SMALL, "max_steps": 1, "optimizer.name": "sgd", "optimizer.momentum": 0.0, "optimizer.lr": 1e-20}
    train("dcgan_nano", "digits", tmp_path / "one", **settings, **{"adversarial.discriminator_lr": 0.1})
    torch.manual_seed(0)
    start = create_model("dcgan_nano", **SMALL["architecture"], image_size=8, in_channels=1).state_dict()
    state = load(tmp_path / "one").model.state_dict()
    moved = {name for name, tensor in start.items() if not torch.allclose(tensor, state[name], atol=1e-7)}
    assert "discriminator.layers.0.weight" in moved and "generator.layers.0.weight" not in moved


def test_history_stays_evenly_apart() -> None:
    learner = GenerationLearner(nn.Identity(), (1, 128, 64))
    assert learner.history.shape[2:] == (1, 64, 32)  # large images are kept small
    for step in range(1, 60):
        learner.after_step(step)
        learner.remember(torch.full((12, 1, 128, 64), step, dtype=torch.uint8))
        steps = [moment for moment, _ in learner.moments()]
        assert len(steps) <= ROWS and steps[0] == 1
        assert len({later - earlier for earlier, later in pairwise(steps)}) <= 1
        assert all(int(images.float().mean()) == moment for moment, images in learner.moments())
    assert len(steps) > ROWS // 2


def test_a_fall_of_diversity_is_said_once() -> None:
    rising = [(1, 0.02), (2, 0.0), (3, 0.4), (4, 0.5), (5, 0.3)]
    assert not falls(rising)  # what has not learned much yet, or varies, has not fallen
    (line,) = falls([*rising, (6, 0.2), (7, 0.1)])
    assert "cover 20.0% of real ones at step 6, and covered 50.0% at step 4" in line
    assert len(falls([*rising, (6, 0.2), (7, 0.3), (8, 0.1)])) == 2


def test_a_collapse_is_warned_of(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr when it happens, and in the report."""
    with patch.object(generation_job, "compare", side_effect=coverages(0.6, 0.5, 0.1, 0.1)):
        train("dcgan_nano", "digits", tmp_path / "run", **SMALL, evaluate_steps=2)
    heard = capsys.readouterr().err
    assert heard.count("warning: the diversity of generated images falls: they cover 10.0% of real ones at step 6") == 1
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("<strong>Warning:</strong> the diversity of generated images falls") == 1


def coverages(*values: float) -> Any:
    """`compare` with these coverages, the last for all further calls."""
    left = list(values)

    def fake(real: Sample, generated: Sample) -> dict[str, float]:
        return compare(real, generated) | {"coverage": left.pop(0) if len(left) > 1 else left[0]}

    return fake


def test_what_is_no_number_ends_the_training_with_the_last_good_state(tmp_path: Path) -> None:
    """Not with that of half a step, in which the discriminator has learned and the generator has not."""
    whole = PhaseLosses.generator

    def failing(losses: PhaseLosses, learner: Any, batch: ImageBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        loss, metrics = whole(losses, learner, batch, step)
        return loss * (torch.inf if step == 3 else 1), metrics

    settings = {**SMALL, "checkpoint_steps": 2}
    with patch.object(PhaseLosses, "generator", failing), pytest.raises(DivergedError) as caught:
        train("dcgan_nano", "digits", tmp_path / "run", **settings)
    assert "the loss became inf at step 4" in str(caught.value)
    assert "step_000000002. Try a smaller --set optimizer.lr" in str(caught.value)
    ended = train("dcgan_nano", "digits", tmp_path / "run", **settings)
    assert ended["test"] == train("dcgan_nano", "digits", tmp_path / "whole", **settings)["test"]


# Judges


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = create_model("lenet5", num_classes=3, image_size=16)
    folder = tmp_path_factory.mktemp("judge")
    preprocess = Preprocess((16, 16), 1, (0.3,), (0.2,), resize="stretch")
    classes = ("a", "b", "c")
    save_portable(
        folder, model, Portable("lenet5", vars(model.config), "image-classification", classes, preprocess.to_json())
    )
    return folder


def test_a_classifier_judges_by_what_its_head_is_given(classifier: Path) -> None:
    judge = make_judge(str(classifier), 1, CPU)
    images = torch.randint(256, (5, 1, 16, 16), dtype=torch.uint8)
    features = judge.features(images)
    model = judge.network.model
    assert features.shape == (5, model.head.in_features)
    normalised = (images / 255 - 0.3) / 0.2
    torch.testing.assert_close(model.head(features), model(normalised), atol=1e-5, rtol=1e-5)
    colour = images.expand(-1, 3, -1, -1)
    torch.testing.assert_close(judge.features(colour), features, atol=1e-3, rtol=1e-3)  # grey as grey is
    assert judge.features(torch.randint(256, (2, 3, 9, 30), dtype=torch.uint8)).shape == (2, features.shape[1])


def test_a_grey_image_comes_to_a_judge_of_colours() -> None:
    model = create_model("resnet_nano", in_channels=3, image_size=16).eval()
    judge = ClassifierFeatures(model, Preprocess((16, 16), 3, (0.0,) * 3, (1.0,) * 3))
    grey = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(judge(grey), judge(grey.expand(-1, 3, -1, -1)))


def test_judges_are_named_and_recognised(run: Path, classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"setting 'generation.judge': .* is for unconditional-image-generation"):
        make_judge(str(run), 1, CPU)
    settings = {**SMALL, "max_steps": 1, "generation.judge": str(classifier)}
    found = train("dcgan_nano", "digits", tmp_path / "one", **settings)
    assert found["judge"] == f"lenet5 of {classifier}"
    loaded = load(tmp_path / "one")
    assert loaded.facts["judge"] == str(classifier)
    source = CaptionSource(source="digits")
    again = evaluate_loaded(loaded, "digits", "test", source)
    assert again.pop("about") == {"judge": found["judge"]}
    assert again == pytest.approx(found["test"] | {"count": again["count"]})
    about, model = load_file(classifier / "model.safetensors"), create_model("lenet5", num_classes=3, image_size=16)
    about["head.bias"] += 1
    model.load_state_dict(about)
    described = json.loads((classifier / "config.json").read_text())
    save_portable(classifier, model, Portable(**{**described, "classes": tuple(described["classes"])}))
    with pytest.raises(OrchardError, match="has other weights now than when it judged"):
        evaluate_loaded(loaded, "digits", "test", source)
    (classifier / "config.json").unlink()
    with pytest.raises(OrchardError, match=r"was judged by .*, which is not to be had"):
        evaluate_loaded(loaded, "digits", "test", source)


def test_random_features_tell_what_is_alike() -> None:
    judge = make_judge(None, 1, CPU)
    assert judge.fingerprint == make_judge(None, 1, CPU).fingerprint
    generator = torch.Generator().manual_seed(0)

    def noise(smooth: int) -> Tensor:
        coarse = torch.rand(60, 1, 16 // smooth, 16 // smooth, generator=generator)
        return (255 * nn.functional.interpolate(coarse, (16, 16))).to(torch.uint8)

    real, same, other = (judge.sample([noise(smooth)], 60) for smooth in (1, 1, 4))
    assert compare(real, same)["fid"] < 0.1 * compare(real, other)["fid"]
    alike = judge.sample([noise(1)[:1].repeat(60, 1, 1, 1)], 60)
    assert compare(real, alike)["spread"] < 1e-6 < 0.5 < compare(real, same)["spread"]


# Official files


def test_official_files_of_each_network_become_one_model(tmp_path: Path) -> None:
    small = {"noise": 5, "generator_width": 2, "discriminator_width": 2}
    pair = create_model("dcgan", **small)
    files = {}
    for side in ("generator", "discriminator"):
        own = {
            k.removeprefix(f"{side}."): t for k, t in export_official(pair, "examples").items() if k.startswith(side)
        }
        assert next(iter(own)) == "main.0.weight"
        files[side] = tmp_path / f"{side}.pth"
        torch.save(own, files[side])
    both = import_checkpoint(
        "dcgan", files["generator"], tmp_path / "both", files=[files["discriminator"]], overrides=small
    )
    assert not both.remarks
    state = load(tmp_path / "both").model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in pair.state_dict().items())
    half = import_checkpoint("dcgan", files["generator"], tmp_path / "half", overrides=small)
    assert "discriminator is a fresh one" in half.remarks[0]
    state = load(tmp_path / "half").model.state_dict()
    own = {name for name, tensor in pair.state_dict().items() if torch.equal(tensor, state[name])}
    assert {name for name in state if name.startswith("generator")} <= own
    assert pipeline(tmp_path / "half")(seed=3)[0].size == (64, 64)
    with pytest.raises(UsageError, match="and --files its discriminator's"):
        import_checkpoint("dcgan", files["generator"], tmp_path / "more", files=list(files.values()), overrides=small)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gan_nano", "dcgan"),
        ("dcgan_nano", "dcgan"),
        ("wgan_gp_nano", "wgan-gp"),
        ("wgan_gp_resnet_nano", "wgan-gp"),
        ("ddpm_nano", "ddpm"),
    ],
)
def test_a_model_learns_by_the_objective_of_its_paper(name: str, expected: str) -> None:
    settings = {"model": name, "data.source": "digits"}
    resolved = settle_objective(resolve(settings, None, "", Settings), create_model(name))
    assert resolved.settings.objective == expected


def resolved_by(model: str, recipe: Recipe | None = None, **command: Any) -> Any:
    """Settings and their origins, as a training of `model` on digits has them."""
    settings = {"model": model, "data.source": "digits", **command}
    return settle_objective(resolve(settings, recipe, "recipe", Settings), create_model(model))


def test_an_objective_brings_the_optimizer_that_its_paper_needs() -> None:
    recipe = find_recipe("dcgan_nano", "images")
    plain = resolved_by("dcgan_nano", recipe)
    assert plain.settings.optimizer.name == "adam" and plain.origins["optimizer.name"] == "recipe"
    wgan = resolved_by("dcgan_nano", recipe, objective="wgan", **{"optimizer.lr": 1e-4})
    found = wgan.settings.optimizer
    assert (found.name, found.lr, found.momentum, found.beta2) == ("rmsprop", 1e-4, 0, 0.99)
    assert wgan.origins["optimizer.name"] == "objective wgan" and wgan.origins["optimizer.lr"] == "command"
    own = Recipe("dcgan_nano", "digits", {"objective": "wgan", "optimizer.name": "adam"})
    assert resolved_by("dcgan_nano", own).settings.optimizer.name == "adam"


PAIRS = {
    "dcgan_nano": {"levels": 1, "generator_width": 3, "discriminator_width": 3, "noise": 4, "image_size": 8},
    "wgan_gp_nano": {"levels": 1, "width": 3, "noise": 4, "image_size": 8},
    "gan_nano": {"width": 8, "units": 4, "pieces": 2, "noise": 4, "image_size": 8, "minibatch_kernels": 2},
}


@pytest.mark.parametrize("model", PAIRS)
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_one_step_of_every_objective_moves_both_networks(name: str, model: str) -> None:
    """By the loop's own step: all is finite, both networks change, and clipped weights stay within their bound."""
    torch.manual_seed(0)
    pair = create_model(model, **PAIRS[model])
    start = {key: tensor.clone() for key, tensor in pair.state_dict().items()}
    settings = resolved_by(model, objective=name).settings
    objective = Adversarial(settings.adversarial, pair)
    job: Any = SimpleNamespace(
        model=GenerationLearner(pair, (1, 8, 8), objective.memory),
        phases=objective.phases,
        fabric=make_fabric(settings, CPU),
        settings=settings,
        head_epochs=0,
        optimizer_settings=lambda side: objective.optimizer_settings(side, settings.optimizer),
        train_mode=lambda learner: learner.train(),
    )
    numbers = torch.arange(6)
    batches = ([ImageBatch(torch.rand(6, 1, 8, 8) * 2 - 1, numbers % 2, numbers)] for _ in range(10))
    metrics = Stepper(job, 2, 1).run(0, batches, 0.0)
    assert metrics.keys() >= {"loss", *objective.logged} and all(value.isfinite() for value in metrics.values())
    for side in ("generator", "discriminator"):
        moved = [key for key, p in pair.named_parameters() if key.startswith(side) and not torch.equal(p, start[key])]
        assert moved, side
    assert all(tensor.isfinite().all() for tensor in pair.state_dict().values())
    if bound := objective.settings.weight_clip:
        assert max(float(p.detach().abs().max()) for p in pair.discriminator.parameters()) <= bound


def test_improved_gan_learns_with_virtual_batch_norm(tmp_path: Path) -> None:
    """With all that its paper has; the reference batch is the model's own, so that a finished one makes the same."""
    architecture = {**SMALL["architecture"], "reference": 5}
    settings = {**SMALL, "architecture": architecture, "max_steps": 3, "objective": "improved-gan"}
    train("dcgan_nano", "digits", tmp_path / "run", **settings)
    first = pipeline(tmp_path / "run")(count=3)
    (alone,) = pipeline(tmp_path / "run")(count=1)
    assert first[0].tobytes() == alone.tobytes() != first[1].tobytes()


def test_parts_of_objectives_that_do_not_meet_are_refused() -> None:
    with pytest.raises(UsageError, match=r"'adversarial\.smoothing': hinge has no label to move; it is for minimax"):
        Adversarial(AdversarialSettings(loss="hinge", smoothing=0.1))
    with pytest.raises(UsageError, match=r"'adversarial\.leak' is the loss-sensitive loss's, not that of hinge"):
        Adversarial(AdversarialSettings(loss="hinge", leak=0.1))


def test_a_few_images_are_enough_and_one_of_a_split_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "few"
    folder.mkdir()
    chance = np.random.default_rng(0)
    for number in range(24):
        Image.fromarray(chance.integers(0, 256, (9, 8), dtype=np.uint8)).save(folder / f"{number}.png")
    settings = {**SMALL, "max_steps": 1, "data.test_fraction": 0.1}
    with pytest.raises(OrchardError, match="the validation split has one picture, and a distance needs 2: add some"):
        train("dcgan_nano", str(folder), tmp_path / "run", **settings, **{"data.validation_fraction": 0.04})
    metrics = train("dcgan_nano", str(folder), tmp_path / "run", **settings, **{"data.validation_fraction": 0.1})
    assert 2 <= metrics["test"]["samples"] < 6 and 0 <= metrics["test"]["coverage"] <= 1
