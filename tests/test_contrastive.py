"""SimCLR and MoCo: losses and steps of the official programs, two views of an image, the trunk inside."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.data.augment import plan, vary
from orchard.data.contracts import ImageData
from orchard.data.counter_rng import uniforms
from orchard.data.few_labels import few_labels
from orchard.data.loader import Loader
from orchard.data.preprocess import default_preprocess
from orchard.data.settings import AugmentSettings
from orchard.data.views import TwoViews, ViewsBatch
from orchard.errors import OrchardError, UsageError
from orchard.models import create_model
from orchard.models.vision.moco import MoCo, MoCoConfig
from orchard.nn.contrastive_loss import nt_xent, queue_logits, view_logits
from orchard.tasks.image_feature_extraction.objective import MomentumLearner, QueueContrast, embed, make_objective
from orchard.tasks.image_feature_extraction.settings import ContrastSettings
from orchard.weights.golden import read_golden
from orchard.weights.official import export_official, load_official


@pytest.mark.parametrize("temperature", [0.5, 1.0])
@pytest.mark.parametrize("normed", [True, False])
def test_nt_xent_is_half_of_googles(golden: Path, normed: bool, temperature: float) -> None:
    case, name = read_golden(golden / "contrastive/simclr_ntxent_google"), f"norm{int(normed)}.t{temperature}"
    hidden = case.given("hidden").requires_grad_()
    first, second = (F.normalize(hidden, dim=1) if normed else 0.4 * hidden).chunk(2)
    loss, _ = nt_xent(first, second, temperature)
    (2 * loss).backward()
    torch.testing.assert_close(2 * loss.detach(), case.computed(f"{name}.loss"))
    torch.testing.assert_close(
        hidden.grad / (1 if normed else 0.4), case.computed(f"{name}.grad.hidden"), atol=1e-6, rtol=1e-4
    )
    logits, _ = view_logits(first.detach(), second.detach(), temperature)
    torch.testing.assert_close(logits[:4, 4:], case.computed(f"{name}.logits_ab"))


def test_nt_xent_is_that_of_the_pytorch_port(golden: Path) -> None:
    case = read_golden(golden / "contrastive/simclr_info_nce")
    features = case.given("features").requires_grad_()
    first, second = F.normalize(features, dim=1).chunk(2)
    loss, _ = nt_xent(first, second, 0.07)
    loss.backward()
    torch.testing.assert_close(loss.detach(), case.computed("loss"))
    torch.testing.assert_close(features.grad, case.computed("grad.features"), atol=1e-6, rtol=1e-4)
    logits, positives = view_logits(first.detach(), second.detach(), 0.07)
    rows = [torch.cat([row[own : own + 1], row[(torch.arange(8) != own) & row.isfinite()]])
            for row, own in zip(logits, positives, strict=True)]  # fmt: skip
    torch.testing.assert_close(torch.stack(rows), case.computed("logits"))


class TinyTrunk(nn.Module):
    """The encoder of the golden cases, without its head."""

    strides, channels, classifier_layers = (1,), (6,), ()

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        return [self.bn(self.conv(images)).relu()]

    def layer_groups(self) -> list[tuple[str, ...]]:
        return [("conv.", "bn.")]


def named(learner: MomentumLearner, name: str) -> Tensor:
    """One of the official program's tensors in ours."""
    encoder, _, rest = name.partition(".")
    if not rest:
        return {"queue": learner.queue, "queue_ptr": learner.pointer[None]}[encoder]
    ours = {"encoder_q": "model", "encoder_k": "key"}[encoder]
    last = rest.removeprefix("fc.") if "mlp" in name or rest.startswith(("fc.0", "fc.2")) else f"0.{rest[3:]}"
    return learner.state_dict()[f"{ours}.head.{last}" if rest.startswith("fc.") else f"{ours}.trunk.{rest}"]


@pytest.mark.parametrize("case_name", ["moco_v1", "moco_v2_mlp"])
def test_two_steps_are_those_of_the_official_program(golden: Path, case_name: str) -> None:
    case = read_golden(golden / "contrastive" / case_name)
    args = case.meta["args"]
    config = MoCoConfig(embedding=args["dim"], mlp=args["mlp"], temperature=args["T"])
    learner = MomentumLearner(MoCo(config, TinyTrunk()), args["dim"], args["K"], args["m"])
    for name, tensor in case.state.items():
        named(learner, name).copy_(tensor)
    learner.pointer.fill_(args["ptr"])
    learner.train().follow()  # the official code's first step begins so; its keys differ from the start
    contrast = QueueContrast(config.temperature)
    optimizer = torch.optim.SGD(learner.model.parameters(), 0.03, momentum=0.9, weight_decay=1e-4)
    for step in range(args["steps"]):
        shuffle = case.given(f"shuffle.{step}")
        batch = ViewsBatch(case.given(f"im_q.{step}"), case.given(f"im_k.{step}"), torch.arange(args["batch"]))
        trial = MomentumLearner(learner.model, args["dim"], args["K"], args["m"])
        trial.load_state_dict(learner.state_dict())
        with torch.no_grad():
            keys = embed(trial.key.train(), batch.second[shuffle])[shuffle.argsort()]
            statistics = {k: v.clone() for k, v in learner.model.state_dict().items()}
            logits = queue_logits(embed(learner.model, batch.first), keys, learner.queue, config.temperature)
            learner.model.load_state_dict(statistics)
        torch.testing.assert_close(logits, case.computed(f"step{step}.logits"), atol=1e-5, rtol=1e-4)
        loss, _ = contrast.loss(learner, batch)
        torch.testing.assert_close(loss.detach(), case.computed(f"step{step}.loss"), atol=1e-5, rtol=1e-5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for name in ("queue", "queue_ptr", "encoder_k.conv.weight", "encoder_k.bn.running_mean"):
            expected = case.computed(f"step{step}.{name}")
            torch.testing.assert_close(named(learner, name), expected, atol=1e-6, rtol=1e-5)
        after = case.computed(f"step{step}.encoder_q.conv.weight_after_sgd")
        torch.testing.assert_close(named(learner, "encoder_q.conv.weight"), after, atol=1e-6, rtol=1e-5)
        learner.after_step(step + 1)
    assert not any(p.grad is not None for p in learner.key.parameters())


def test_official_files_of_moco_go_in_without_key_encoder_and_queue() -> None:
    small = {"trunk": "resnet18", "embedding": 5, "image_size": 32}
    model = create_model("moco_v1_resnet50", **small)
    theirs = export_official(model, "official")
    assert {"module.encoder_q.conv1.weight", "module.encoder_q.fc.bias"} <= theirs.keys()
    keys = {name.replace("encoder_q", "encoder_k"): tensor for name, tensor in theirs.items()}
    more = {"module.queue": torch.randn(5, 8), "module.queue_ptr": torch.zeros(1, dtype=torch.int64)}
    fresh = create_model("moco_v1_resnet50", **small)
    load_official(fresh, {**theirs, **keys, **more})
    assert all(torch.equal(tensor, fresh.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_features_are_the_mean_over_the_trunks_last_map_on_any_trunk() -> None:
    images = torch.randn(2, 1, 32, 32)
    for trunk, settings in (("resnet_nano", {}), ("vit_nano", {}), ("densenet_nano", {})):
        model = create_model("simclr_nano", trunk=trunk, trunk_settings=settings).eval()
        assert model(images).shape == (2, 64)
        assert torch.equal(model.features(images), model.trunk.feature_maps(images)[-1].mean((2, 3)))
    with pytest.raises(UsageError, match="no feature maps"):
        create_model("simclr_nano", trunk="gpt2")
    with pytest.raises(UsageError, match="a head without norms has 2"):
        create_model("simclr_nano", norm=False, layers=3)
    with pytest.raises(OrchardError, match="no rule for our tensor"):
        export_official(create_model("simclr_nano"), "sthalles")


def test_a_model_learns_by_its_papers_objective_unless_another_is_named() -> None:
    for name, objective, learner in (
        ("simclr_nano", None, "SimCLR"),
        ("moco_nano", None, "MomentumLearner"),
        ("simclr_nano", "momentum", "MomentumLearner"),
    ):
        settings = ContrastSettings(objective=objective, queue=32)
        assert type(make_objective(settings, create_model(name), 8)[1]).__name__ == learner
    with pytest.raises(UsageError, match="a batch of 64 does not fit into a queue of 32"):
        make_objective(ContrastSettings(queue=32), create_model("moco_nano"), 64)


def test_both_views_are_functions_of_seed_epoch_and_record(digits: ImageData) -> None:
    preprocess = default_preprocess(digits, 16, 1)
    augment = AugmentSettings(crop="resized", flip=True, color=0.4, blur=0.5, grayscale=0.2)

    def loader(workers: int, rank: int = 0, world: int = 1) -> Loader:
        split = digits.splits["train"]
        return Loader(split, preprocess, augment, batch_size=32, seed=3, workers=workers, rank=rank, world=world)

    views = TwoViews(loader(0))
    batch, again = views.batch(2, 5), TwoViews(loader(0)).batch(2, 5)
    assert torch.equal(batch.first, again.first) and torch.equal(batch.second, again.second)
    assert torch.equal(batch.first, loader(0).batch(2, 5).images)  # the first view is the usual one
    assert not torch.isclose(batch.first, batch.second).flatten(1).all(1).any()
    halves = [TwoViews(loader(0, rank, 2)).batch(2, 5) for rank in (0, 1)]
    assert torch.equal(torch.cat([half.second for half in halves]), batch.second)


def test_grayscale_and_blur_do_what_they_say_and_leave_the_other_numbers_alone() -> None:
    pictures = torch.randint(0, 256, (16, 3, 30, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    numbers = uniforms(0, 0, np.arange(16))
    still, turned = AugmentSettings(), AugmentSettings(color=0.3, crop="pad")
    both = {"grayscale": 0.5, "blur": 0.5}
    grey = vary(pictures, plan(AugmentSettings(grayscale=0.5), numbers, (30, 20)))
    chosen = torch.from_numpy(numbers[:, 38] < 0.5)
    assert torch.equal((grey[:, :1] == grey).flatten(1).all(1), chosen) and 0 < chosen.sum() < 16
    assert torch.equal(grey[~chosen], pictures[~chosen].float())
    plans = [plan(settings.model_copy(update=both), numbers, (30, 20)) for settings in (still, turned)]
    assert torch.equal(plans[0].blurs, plans[1].blurs) and torch.equal(plans[0].grey, plans[1].grey)
    blurred = vary(pictures, plan(AugmentSettings(blur=1), numbers, (30, 20)))
    tap = np.exp(-1 / (2 * (0.1 + 1.9 * numbers[3, 40]) ** 2))
    kernel = torch.tensor([tap, 1, tap], dtype=torch.float32) / (1 + 2 * tap)
    around = pictures[3, :, 9:12, 5:8].float()  # of row 10 and column 6; the kernel reaches one pixel
    expected = (around * kernel[:, None] * kernel).sum((1, 2))
    torch.testing.assert_close(blurred[3, :, 10, 6], expected)
    part = plans[1].part(4, 9)
    assert torch.equal(vary(pictures[4:9], part), vary(pictures, plans[1])[4:9])


def test_few_labels_are_that_many_of_each_class_by_the_seed(digits: ImageData) -> None:
    found, other = few_labels(digits, 3, 0), few_labels(digits, 3, 1)
    train = found.splits["train"]
    assert np.bincount(train.labels).tolist() == [3] * 10 and found.splits["test"] is digits.splits["test"]
    assert [train.key(n) for n in range(30)] == [few_labels(digits, 3, 0).splits["train"].key(n) for n in range(30)]
    assert found.fingerprint not in (digits.fingerprint, other.fingerprint)
    everything = few_labels(digits, 10**6, 0).splits["train"]
    assert len(everything) == len(digits.splits["train"]) and few_labels(digits, None, 0) is digits
    assert torch.equal(train.image(4), digits.splits["train"].image(int(train.places[4])))
