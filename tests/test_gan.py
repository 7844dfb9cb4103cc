"""Adversarial pairs, their losses and penalties, and the distances between sets of features, against stored figures."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from orchard.errors import UsageError
from orchard.inference.frechet import frechet_distance, kernel_distance, neighbourhoods
from orchard.models import create_model
from orchard.models.generation.wgan_gp import Downsampling, Upsampling
from orchard.nn.conv import glorot_uniform
from orchard.nn.maxout import Maxout
from orchard.nn.minibatch_discrimination import MinibatchDiscrimination
from orchard.nn.virtual_batch_norm import VirtualBatchNorm2d
from orchard.tasks.unconditional_image_generation.discriminator_features import features_before_score
from orchard.tasks.unconditional_image_generation.learner import GenerationLearner
from orchard.tasks.unconditional_image_generation.losses import (
    LOSSES,
    matched_features,
    raised_by_margin,
    smoothing_term,
    with_leak,
)
from orchard.tasks.unconditional_image_generation.regularisers import REGULARISERS, gradient_penalty
from orchard.tasks.unconditional_image_generation.weight_regularisers import HistoricalAverage, orthogonality

GOLDEN = Path(__file__).parent / "golden"
PYTORCH = dict(kernel=3, before=1, generator_kernel=2, generator_before=0, slope=0.01)  # of caogang/wgan-gp


def stored(case: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return load_file(GOLDEN / case / "params.safetensors"), load_file(GOLDEN / case / "io.safetensors")


def assert_gradients(loss: Tensor, named: dict[str, nn.Parameter], expected: dict[str, Tensor]) -> None:
    """Gradients by their stored names, to 1e-4 of the largest; what is zero but for rounding counts against all."""
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    most = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in zip(named, found, strict=True):
        wanted = expected[name]
        gradient = torch.zeros_like(wanted) if gradient is None else gradient
        allowed = 1e-4 * max(float(wanted.abs().max()), 1e-2 * most)
        assert float((gradient - wanted).abs().max()) <= allowed, name


# Against stored figures, beside those that the cards name


def test_critic_its_penalty_and_their_gradients_are_those_of_the_pytorch_code():
    params, io = stored("wgan_gp/critic_a")
    critic = create_model("wgan_gp", width=4, **PYTORCH).discriminator
    names = {"score": "linear", **{f"convs.{n}": f"main.{2 * n}" for n in range(3)}}
    theirs = {name: f"{names[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}" for name in critic.state_dict()}
    critic.load_state_dict({name: params[other] for name, other in theirs.items()})
    real, fake = io["in.real"], io["in.fake"]
    torch.testing.assert_close(critic(real), io["out.critic_real"].flatten(), atol=1e-5, rtol=0)
    penalty = 10 * gradient_penalty(critic, real, fake, io["out.alpha"][:, :, None, None])
    torch.testing.assert_close(penalty, io["out.gradient_penalty_times_lambda"], atol=1e-6, rtol=1e-5)
    loss = LOSSES["wasserstein"].discriminator(critic(real), critic(fake)) + penalty
    torch.testing.assert_close(loss, io["out.d_cost"], atol=1e-6, rtol=1e-5)
    named = {theirs[name]: parameter for name, parameter in critic.named_parameters()}
    assert_gradients(loss, named, {name: io[f"out.grad.{name}"] for name in named})


# What every pair promises


@pytest.mark.parametrize("name", ["dcgan_nano", "gan_nano", "wgan_gp_nano", "wgan_gp_resnet_nano"])
def test_noise_to_images_to_scores(name):
    torch.manual_seed(0)
    pair = create_model(name).eval()
    noise = pair.sample_noise(5, torch.Generator().manual_seed(1))
    assert noise.shape == (5, *pair.noise_shape)
    assert torch.equal(noise, pair.sample_noise(5, torch.Generator().manual_seed(1)))
    images = pair.generate(noise)
    low, high = pair.value_range
    assert images.shape == (5, 1, 28, 28) and not images.requires_grad
    assert low <= float(images.min()) < float(images.max()) <= high
    scores = pair.discriminator(images)
    assert scores.shape == (5,) and scores.std() > 0
    with pytest.raises(ValueError, match=r"expected pictures of shape \(B, 1, 28, 28\), got \(5, 1, 27, 28\)"):
        pair.discriminator(images[:, :, 1:])


def test_noise_comes_from_the_paper_s_prior():
    uniform = create_model("dcgan_paper", levels=1, image_size=4, generator_width=2, discriminator_width=2)
    noise = uniform.sample_noise(200)
    assert float(noise.abs().max()) <= 1 and abs(float(noise.std()) - 3**-0.5) < 0.02
    assert abs(float(create_model("dcgan_nano").sample_noise(200).std()) - 1) < 0.05


def test_sizes_that_do_not_halve_are_refused():
    for name, setting in (("dcgan", {"image_size": 60}), ("wgan_gp", {"image_size": 30}), ("wgan_gp", {"before": 4}),
                          ("wgan_gp_resnet", {"image_size": 34}), ("dcgan", {"levels": 0}),
                          ("dcgan", {"reference": -1})):  # fmt: skip
        with pytest.raises(UsageError, match=name):
            create_model(name, **setting)


@pytest.mark.parametrize("kernel, before", [(5, 1), (3, 1), (2, 0)])
def test_upsampling_is_the_transpose_of_downsampling(kernel, before):
    down, up = Downsampling(2, 3, kernel, before).double(), Upsampling(3, 2, kernel, before).double()
    up.weight = down.weight
    nn.init.zeros_(down.bias), nn.init.zeros_(up.bias)
    x, y = torch.randn(1, 2, 8, 8, dtype=torch.double), torch.randn(1, 3, 4, 4, dtype=torch.double)
    torch.testing.assert_close((down(x) * y).sum(), (x * up(y)).sum())


def test_weights_start_with_the_variance_of_their_fans():
    torch.manual_seed(0)
    # fan-in 25 x 32, fan-out 25 x 64 / 4; the transpose the other way round
    for layer in (nn.Conv2d(32, 64, 5, stride=2), nn.ConvTranspose2d(64, 32, 5, stride=2)):
        assert float(glorot_uniform(layer, gain=2).weight.detach().var()) == pytest.approx(4 / (800 + 400), rel=0.03)
        assert not layer.bias.any()
    assert float(glorot_uniform(nn.Linear(100, 300), gain=1).weight.detach().var()) == pytest.approx(2 / 400, rel=0.03)


def test_maxout_units_are_the_largest_of_their_pieces():
    layer = Maxout(2, 2, 3)
    x, weight, bias = torch.tensor([[1.0, -2.0]]), layer.linear.weight.detach(), layer.linear.bias.detach()
    values = [float(w @ x[0] + b) for w, b in zip(weight, bias, strict=True)]
    assert layer(x)[0].tolist() == pytest.approx([max(values[:3]), max(values[3:])])


def test_minibatch_discrimination_says_how_close_the_others_are():
    layer = MinibatchDiscrimination(1, 2, 2, std=1.0)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[1.0, 2.0], [0.0, 0.5]]]))  # of a difference d: 3 |d|, and 0.5 |d|
    x = torch.tensor([[0.0], [1.0], [3.0]])
    found = layer(x)
    assert torch.equal(found[:, :1], x)
    for n, others in enumerate(((1, 3), (1, 2), (2, 3))):
        for kernel, slope in enumerate((3.0, 0.5)):
            expected = 1 + sum(math.exp(-slope * other) for other in others)
            assert found[n, 1 + kernel].item() == pytest.approx(expected, rel=1e-5)
    alike = layer(torch.ones(4, 1))
    assert alike[:, 1:].tolist() == [[4.0, 4.0]] * 4


def test_a_virtual_batch_norm_is_of_the_reference_and_of_each_sample_itself():
    torch.manual_seed(0)
    norm = VirtualBatchNorm2d(2, 3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, 3.0])), norm.bias.copy_(torch.tensor([0.5, -1.0]))
    x = 3 * torch.randn(5, 2, 4, 4) + 1
    found = norm(x)
    for row in range(5):
        among = x[:3] if row < 3 else torch.cat([x[:3], x[row : row + 1]])
        expected = F.batch_norm(among, None, None, norm.weight, norm.bias, training=True)[row if row < 3 else 3]
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-5)


def test_images_by_a_reference_do_not_depend_on_those_beside_them():
    torch.manual_seed(0)
    pair = create_model("dcgan_nano", reference=4, levels=1, generator_width=4, image_size=8).train()
    noise = pair.sample_noise(6)
    together, alone = pair(noise), torch.cat([pair(row[None]) for row in noise])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(pair.eval()(noise), together)
    assert pair.state_dict()["generator.reference"].shape == (4, 64)
    assert "generator.reference" not in create_model("dcgan_nano").state_dict()


def test_gan_is_the_authors_network_for_mnist():
    torch.manual_seed(0)
    pair = create_model("gan")
    generator = [100 * 1200 + 1200, 1200 * 1200 + 1200, 1200 * 784 + 784]
    discriminator = [(784 + 1) * 240 * 5, (240 + 1) * 240 * 5, 240 + 1]
    for side, counts in (("generator", generator), ("discriminator", discriminator)):
        assert sum(p.numel() for p in pair.get_submodule(side).parameters()) == sum(counts)
    for side, bound in (("generator", 0.05), ("discriminator", 0.005)):
        weights = torch.cat([p.detach().flatten() for p in pair.get_submodule(side).parameters() if p.ndim > 1])
        assert 0.99 * bound < float(weights.abs().max()) <= bound
    noise = pair.sample_noise(2)
    w = dict(pair.generator.named_parameters())
    x = noise.double()
    for layer in (0, 2, 4):
        x = x @ w[f"layers.{layer}.weight"].double().T + w[f"layers.{layer}.bias"].double()
        x = x.clamp(min=0) if layer < 4 else 1 / (1 + (-x).exp())
    torch.testing.assert_close(pair(noise), x.float().reshape(2, 1, 28, 28))
    shares = [module.p for module in pair.discriminator.modules() if isinstance(module, nn.Dropout)]
    assert shares == [0.2, 0.5, 0.5]


def test_a_generator_whose_images_are_all_alike_is_told_apart():
    pair = create_model("gan_nano", minibatch_kernels=3, image_size=4).eval()
    images = torch.rand(6, 1, 4, 4)
    hidden = pair.discriminator.hidden
    assert (hidden(images[:1].expand(6, -1, -1, -1))[:, -3:] == 6).all() and (hidden(images)[:, -3:] < 6).all()
    assert pair.discriminator(images).shape == (6,)
    for wrong in ({"pieces": 1}, {"minibatch_kernels": -1}):
        with pytest.raises(UsageError, match="gan_nano"):
            create_model("gan_nano", **wrong)


# Losses and penalties by hand

REAL, FAKE = torch.tensor([2.0, -1.0]), torch.tensor([0.0, -3.0])


def probability(score: float) -> float:
    return 1 / (1 + math.exp(-score))


LOG_LOSS = (
    -(math.log(probability(2)) + math.log(probability(-1))) / 2
    - (math.log(1 - probability(0)) + math.log(1 - probability(-3))) / 2
)


@pytest.mark.parametrize("name, discriminator, generator", [
    ("minimax", LOG_LOSS, (math.log(1 - probability(0)) + math.log(1 - probability(-3))) / 2),
    ("non-saturating", LOG_LOSS, -(math.log(probability(0)) + math.log(probability(-3))) / 2),
    ("least-squares", 0.5 * ((1 + 4) / 2 + 9 / 2), 0.5 * (1 + 16) / 2),
    ("least-squares-pearson", 0.5 * ((1 + 4) / 2 + (1 + 4) / 2), 0.5 * 9 / 2),
    ("hinge", (0 + 2) / 2 + (1 + 0) / 2, 1.5),
    ("loss-sensitive", (0 + 0) / 2, 1.5),
    ("wasserstein", -1.5 - 0.5, 1.5),
])  # fmt: skip
def test_losses_by_hand(name, discriminator, generator):
    loss = LOSSES[name]
    assert float(loss.discriminator(REAL, FAKE)) == pytest.approx(discriminator, rel=1e-5)
    assert float(loss.generator(FAKE)) == pytest.approx(generator, rel=1e-5)


def test_losses_stay_finite_where_a_discriminator_is_sure():
    far = torch.tensor([1e4])
    for name, loss in LOSSES.items():
        assert loss.discriminator(-far, far).isfinite() and loss.generator(-far).isfinite(), name


def test_every_loss_pulls_scores_apart_and_generated_ones_up():
    for name, loss in LOSSES.items():
        real, fake = torch.zeros(3, requires_grad=True), torch.full((3,), 0.1, requires_grad=True)
        by_real, by_fake = torch.autograd.grad(loss.discriminator(real, fake), [real, fake])
        assert (by_real < 0).all() and (by_fake > 0).all(), name
        (upwards,) = torch.autograd.grad(loss.generator(-fake), fake)
        assert (upwards > 0).all(), name


def test_a_generated_image_shall_score_below_the_real_one_by_the_margin():
    real, fake = torch.zeros(2, 1, 1, 2), torch.tensor([[2.0, 4.0], [0.0, 1.0]]).reshape(2, 1, 1, 2)
    scores = [tensor.clone().requires_grad_() for tensor in (REAL, FAKE)]
    raised = raised_by_margin(scores[1], real, fake, 2.0)
    torch.testing.assert_close(raised, FAKE + torch.tensor([6.0, 1.0]))
    loss = LOSSES["loss-sensitive"].discriminator(scores[0], raised)  # 6 + 0 - 2, and 1 - 3 + 1, which is less than 0
    assert loss.item() == pytest.approx(4 / 2)
    by_real, by_fake = torch.autograd.grad(loss, scores, retain_graph=True)
    assert by_real.tolist() == [-0.5, 0] and by_fake.tolist() == [0.5, 0]
    leaking = with_leak(LOSSES["loss-sensitive"], 0.5)
    assert leaking.discriminator(REAL, raised).item() == pytest.approx((4 - 0.5) / 2)
    wasserstein = with_leak(LOSSES["loss-sensitive"], 1.0).discriminator(REAL, FAKE)
    assert wasserstein == LOSSES["wasserstein"].discriminator(REAL, FAKE)


@pytest.mark.parametrize("name", ["non-saturating", "least-squares", "least-squares-pearson"])
def test_smoothing_moves_the_label_of_real_images(name):
    scores = REAL.clone().requires_grad_()
    loss = LOSSES[name].discriminator(scores, FAKE) + smoothing_term(scores, 0.1)
    if name == "non-saturating":
        expected = F.binary_cross_entropy_with_logits(scores, torch.full((2,), 0.9)) + F.softplus(FAKE).mean()
        torch.testing.assert_close(loss, expected)
    else:
        expected = 0.5 * (scores - 0.9).square().mean()
    torch.testing.assert_close(*(torch.autograd.grad(one, scores)[0] for one in (loss, expected)))


def test_matched_features_by_hand():
    real, fake = torch.tensor([[1.0, 0.0], [3.0, 2.0]]), torch.tensor([[0.0, 0.0], [0.0, 4.0]], requires_grad=True)
    loss = matched_features(real, fake)  # the means are (2, 1) and (0, 2)
    assert loss.item() == 4 + 1
    assert torch.autograd.grad(loss, fake)[0].tolist() == [[-2, 1], [-2, 1]]


@pytest.mark.parametrize("name, expected", [
    ("hinge", (1 / 2 + 1 / 2) / 2),  # -1 is on the generated side, 0 on neither
    ("least-squares", (1 / 2 + 2 / 2) / 2),
    ("wasserstein", (1 / 2 + 1 / 2) / 2),  # the middle of the means 0.5 and -1.5 is -0.5
])  # fmt: skip
def test_accuracy_is_of_the_loss_s_own_middle(name, expected):
    assert float(LOSSES[name].accuracy(REAL, FAKE)) == expected


def test_orthogonality_by_hand():
    net = nn.Sequential(nn.Linear(2, 3), nn.Conv2d(1, 2, 1), nn.ConvTranspose2d(2, 1, 1), nn.Embedding(4, 5))
    w = net[0].weight.detach()
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([2.0, 3.0]).reshape(2, 1, 1, 1))  # twice 6
        net[2].weight.fill_(5)  # one filter, whatever its length
    gram = w @ w.T * (1 - torch.eye(3))
    found = orthogonality(net)
    torch.testing.assert_close(found, gram.square().sum() + 72)
    torch.testing.assert_close(torch.autograd.grad(found, net[0].weight)[0], 4 * gram @ w)


def test_orthogonal_weights_of_any_length_cost_nothing():
    layer = nn.Linear(3, 3)
    nn.init.orthogonal_(layer.weight, gain=7)
    assert float(orthogonality(layer).detach()) < 1e-6


def test_parameters_pay_for_their_distance_from_their_mean():
    pair = nn.ModuleDict({"generator": nn.Linear(1, 1), "discriminator": nn.Linear(1, 1, bias=False)})
    average = HistoricalAverage(pair)
    learner = GenerationLearner(pair, (1, 2, 2), average.memory)
    assert average.distance(learner, "discriminator").item() == 0  # no step has been made yet
    with torch.no_grad():
        for value in (1.0, 3.0, 8.0):
            pair["discriminator"].weight.fill_(value)
            average.update(learner)
    loss = average.distance(learner, "discriminator")
    assert loss.item() == pytest.approx(16)  # 8 is 4 from the mean
    assert torch.autograd.grad(loss, pair["discriminator"].weight)[0].item() == pytest.approx(8)
    assert average.distance(learner, "generator").item() == pytest.approx(0)


@pytest.mark.parametrize("name", ["dcgan_nano", "gan_nano", "wgan_gp_nano", "wgan_gp_resnet_nano"])
def test_features_are_what_the_score_is_computed_from(name):
    discriminator = create_model(name).discriminator.eval()
    images = torch.rand(3, 1, 28, 28)
    features = features_before_score(discriminator, images)
    assert features.shape[0] == 3 and features.requires_grad
    last = [module for module in discriminator.modules() if isinstance(module, nn.Conv2d | nn.Linear)][-1]
    weight = last.weight.flatten(1)
    scores = features @ weight.T + (0 if last.bias is None else last.bias)
    torch.testing.assert_close(scores.flatten(), discriminator(images))
    with pytest.raises(UsageError, match="Flatten has no layer that gives one score for an image"):
        features_before_score(nn.Flatten(), images)


def test_penalties_by_hand():
    weight = torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1)

    def linear(images: Tensor) -> Tensor:
        return (images * weight).sum((1, 2, 3))  # of slope 5 everywhere

    real, fake = torch.randn(6, 2, 1, 1), torch.randn(6, 2, 1, 1)
    assert float(REGULARISERS["gradient-penalty"](linear, real, fake)) == pytest.approx(16, rel=1e-5)
    assert float(REGULARISERS["r1"](linear, real, fake)) == pytest.approx(12.5, rel=1e-5)


def test_penalty_is_of_each_sample_at_its_own_interpolate():
    real, fake = torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1), torch.tensor([3.0, 6.0]).reshape(2, 1, 1, 1)
    share = torch.tensor([0.5, 0.25]).reshape(2, 1, 1, 1)

    def square(images: Tensor) -> Tensor:
        return 0.5 * images.square().flatten(1).sum(1)  # whose slope is the image: 2, and 0.5 + 4.5

    assert gradient_penalty(square, real, fake, share).item() == pytest.approx(((2 - 1) ** 2 + (5 - 1) ** 2) / 2)


def test_penalty_teaches_a_critic_a_slope_of_one():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Flatten(), nn.Linear(4, 1), nn.Flatten(0))
    real, fake = torch.randn(8, 1, 2, 2), torch.randn(8, 1, 2, 2)
    optimizer = torch.optim.SGD(critic.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        REGULARISERS["gradient-penalty"](critic, real, fake).backward()
        optimizer.step()
    assert float(critic[1].weight.norm()) == pytest.approx(1, abs=1e-3)


# Distances between sets of features


@pytest.fixture(scope="module")
def features() -> dict[str, Tensor]:
    return load_file(GOLDEN / "fid" / "metrics" / "io.safetensors")


def test_distances_are_those_of_the_reference_programs(features):
    real, fake = features["in.features_real"], features["in.features_fake"]
    assert frechet_distance(real, fake) == pytest.approx(features["out.fid"].item(), rel=1e-9)
    # fewer samples than features: their root of a singular matrix is good to some eight digits
    assert frechet_distance(real[:6], fake[:6]) == pytest.approx(features["out.fid_few_samples"].item(), rel=1e-7)
    assert kernel_distance(real, fake) == pytest.approx(features["out.mmd2.unbiased"].item(), rel=1e-7)  # in float32
    for k in (3, 5):
        found = vars(neighbourhoods(real, fake, k))
        assert found == pytest.approx({name: features[f"out.prdc.k{k}.{name}"].item() for name in found})


def test_a_set_is_at_no_distance_from_itself(features):
    real = features["in.features_real"]
    assert abs(frechet_distance(real, real)) < 1e-9
    assert vars(neighbourhoods(real, real, 3)) == pytest.approx(
        dict(precision=1, recall=1, density=1, coverage=1), abs=0.1
    )


def test_few_samples_of_one_distribution_are_as_far_apart_as_the_formula_says():
    variances = torch.tensor([4.0, 1.0, 0.25], dtype=torch.double)
    sums = variances[:, None] * variances * (1 + torch.eye(3)) / (variances[:, None] + variances)
    expected = (1 / 40 + 1 / 60) * float(variances.sum() + 0.5 * sums.sum())
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> Tensor:
        return torch.randn(count, 3, generator=generator, dtype=torch.double) * variances.sqrt()

    pairs = [(draw(40), draw(60)) for _ in range(200)]
    assert sum(frechet_distance(*pair) for pair in pairs) / 200 == pytest.approx(expected, rel=0.15)
    assert abs(sum(kernel_distance(*pair) for pair in pairs) / 200) < 0.1


def test_images_that_are_all_alike_have_precision_without_coverage():
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(200, 4, generator=generator)
    alike = real[:1] + 0.01 * torch.randn(200, 4, generator=generator)
    found = neighbourhoods(real, alike, 5)
    assert found.precision == 1 and found.recall < 0.05 and found.coverage < 0.1


def test_too_few_features_are_refused():
    few = torch.randn(3, 4)
    for call in (lambda: frechet_distance(few[:1], few), lambda: kernel_distance(few[0], few),
                 lambda: neighbourhoods(few, few, 3)):  # fmt: skip
        with pytest.raises(ValueError, match=r"^expected .* got "):
            call()
