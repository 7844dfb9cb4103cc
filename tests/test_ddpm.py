"""DDPM and improved DDPM: the official codes' figures and gradients, at every part of the process."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from orchard.inference.diffusion import (
    DDIM,
    Ancestral,
    ImageNoise,
    bits_per_dimension,
    ddim_encode,
    sample,
)
from orchard.models import create_model, landmark_of
from orchard.nn.diffusion import PREDICTIONS, VARIANCES, Diffusion
from orchard.nn.diffusion_loss import (
    BoundLoss,
    DiffusionLoss,
    HybridLoss,
    SimpleLoss,
    bound_terms,
    discretized_log_likelihood,
    gaussian_kl,
    normal_cdf,
    prior_term,
)
from orchard.nn.noise_schedule import (
    BETAS,
    NoiseSchedule,
    cosine_betas,
    linear_betas,
    noise_schedule,
    spaced_steps,
    strided_steps,
)
from orchard.nn.timestep import sinusoids
from orchard.weights.golden import read_golden
from orchard.weights.names import to_theirs
from orchard.weights.official import load_official

GOLDEN = Path(__file__).parent / "golden" / "ddpm"
UNETS = {
    "unet_and_simple_loss": ("ddpm_256", "ddim", dict(attention_at=(4,))),
    "improved_unet_class_cond": ("improved_ddpm_imagenet64_classes", "openai", dict(attention_at=(4,), classes=5)),
    "improved_unet_plain": (
        "improved_ddpm_cifar10", "openai",
        dict(attention_at=(8,), heads=2, embedding="shift", variance="fixed_large", dropout=0.0),
    ),
}  # fmt: skip
PROCESSES = {  # what is predicted, the variance, the loss by the number of steps, and what the case calls its parts
    "eps_fixed_large_mse": ("epsilon", "fixed_large", lambda steps: SimpleLoss()),
    "eps_fixed_small_mse": ("epsilon", "fixed_small", lambda steps: SimpleLoss()),
    "x0_fixed_large_mse": ("image", "fixed_large", lambda steps: SimpleLoss()),
    "eps_learned_range_hybrid": ("epsilon", "learned_range", lambda steps: HybridLoss(steps / 1000)),
    "eps_learned_range_vlb": ("epsilon", "learned_range", lambda steps: BoundLoss(steps)),
    "prevx_learned_mse": ("previous", "learned", lambda steps: HybridLoss(1.0)),
}
PARTS = {"loss": "loss", "squared_error": "mse", "bound": "vb"}


def close(ours: Tensor, theirs: Tensor, tolerance: float = 2e-5) -> None:
    """Largest difference by the largest value, as the cases state it (they allow 1e-4)."""
    assert ours.shape == theirs.shape
    difference, largest = (ours - theirs).abs().max().item(), theirs.abs().max().item()
    assert difference <= tolerance * largest


@pytest.mark.parametrize("case", UNETS)
def test_golden_gradients_of_the_networks(case):
    stored = read_golden(GOLDEN / case)
    io = stored.tensors
    name, source, changes = UNETS[case]
    model = create_model(name, image_size=8, multipliers=(1, 1), width=64, blocks=1, **changes).eval()
    load_official(model, stored.state, source)
    if "in.x0" in io:
        process = Diffusion(_raw(linear_betas(1000)), PREDICTIONS["epsilon"], VARIANCES["fixed_large"])
        x_t = process.schedule.add_noise(io["in.x0"], io["in.e"], io["in.t"])
        output = model(x_t, io["in.t"])
        losses = SimpleLoss()(process, output, io["in.x0"], io["in.e"], x_t, io["in.t"])["loss"]
        losses = losses * output[0].numel()  # this code sums over the pixels
        close(losses, io["out.loss_per_image"])
        loss = losses.mean()
        close(sinusoids(io["in.t"], 64, order="sin_cos", endpoint=True), io["out.temb"])
    else:
        output = model(io["in.x"], io["in.t"], *([io["in.y"]] if "in.y" in io else []))
        close(output, io["out.out"])
        loss = output.square().mean()
    loss.backward()
    table = landmark_of(name).names[source](model.config)
    gradients = to_theirs(table, {key: parameter.grad for key, parameter in model.named_parameters()})
    for start in ("grad", "grad_of_mean_square"):
        for key, wanted in stored.below(start).items():
            close(gradients[key], wanted, 1e-4)


def _raw(betas: Tensor) -> NoiseSchedule:
    """The schedule of a model that is told the number of the step."""
    return NoiseSchedule(betas, torch.arange(len(betas), dtype=torch.float64))


def _fake(weight: Tensor, learned: bool):
    """The cases' stand-in for a network, with one weight."""

    def predict(x: Tensor, timesteps: Tensor) -> Tensor:
        y = torch.tanh(0.7 * x + (timesteps / 100).sin()[:, None, None, None]) * weight
        return torch.cat([y, torch.cos(1.3 * x + weight)], 1) if learned else y

    return predict


@pytest.mark.parametrize("case", PROCESSES)
def test_golden_process(case):
    stored = read_golden(GOLDEN / f"gaussian_diffusion_{case}")
    io, args = stored.tensors, stored.meta["args"]
    prediction, variance, make_loss = PROCESSES[case]
    steps, rescaled = args["T"], args.get("rescale", False)

    def schedule_of(steps: int) -> NoiseSchedule:
        return noise_schedule(args["schedule"], steps) if rescaled else _raw(BETAS[args["schedule"]](steps))

    process = Diffusion(schedule_of(steps), PREDICTIONS[prediction], VARIANCES[variance])
    schedule, index = process.schedule, io["out.table.index"]
    for ours, theirs in (
        (schedule.betas, "betas"),
        (schedule.alpha_bars, "alphas_cumprod"),
        (schedule.posterior_variances, "posterior_variance"),
        (schedule.posterior_log_variances, "posterior_log_variance_clipped"),
        (schedule.posterior_weights[0], "posterior_mean_coef1"),
        (schedule.posterior_weights[1], "posterior_mean_coef2"),
    ):
        close(ours[index], io[f"out.table.{theirs}"], 1e-12)

    x0, noise, t = io["in.x_start"], io["in.noise"], io["in.t"]
    x_t = schedule.add_noise(x0, noise, t)
    close(x_t, io["out.x_t"])
    close(schedule.posterior_mean(x0, x_t, t), io["out.q_posterior_mean"])
    close(schedule.at(schedule.posterior_log_variances, t).expand_as(x0), io["out.q_posterior_log_variance"])

    weight = io["in.W"].requires_grad_()
    predict = _fake(weight, process.variance.learned)
    output = predict(x_t, schedule.timesteps[t].float())
    found = process.denoise(output, x_t, t, clip=True)
    close(found.mean, io["out.p_mean_variance.mean"])
    close(found.x0, io["out.p_mean_variance.pred_xstart"])
    close(found.log_variance, io["out.p_mean_variance.log_variance"])
    for sampler, name in (
        (Ancestral(), "p_sample"),
        (DDIM(0.0), "ddim_sample_eta0.0"),
        (DDIM(0.7), "ddim_sample_eta0.7"),
    ):
        close(sampler.step(process, found, x_t, t, io["in.step_noise"]), io[f"out.{name}"])
    close(ddim_encode(process, found, x_t, t), io["out.ddim_reverse_sample"])
    close(bound_terms(process, found, x0, x_t, t), io["out.vb_terms_bpd"])
    torch.testing.assert_close(prior_term(schedule, x0), io["out.prior_bpd"], atol=2e-8, rtol=1e-6)

    loss: DiffusionLoss = make_loss(steps)
    parts = loss(process, output, x0, noise, x_t, t)
    for ours, values in parts.items():
        close(values, io[f"out.training.{PARTS[ours]}"])
    (gradient,) = torch.autograd.grad(parts["loss"].mean(), weight)
    close(gradient, io["out.grad.W"])

    short = Diffusion(schedule_of(args["T_bpd"]), process.prediction, process.variance)
    bits = bits_per_dimension(short, predict, x0, iter(io["in.bpd_noises"]).__next__, clip=True)
    close(bits.total, io["out.bpd_loop.total_bpd"])
    torch.testing.assert_close(bits.prior, io["out.bpd_loop.prior_bpd"], atol=2e-8, rtol=1e-6)
    # the case has the last step first
    close(bits.terms.flip(1), io["out.bpd_loop.vb"])
    close(bits.x0_errors.flip(1), io["out.bpd_loop.xstart_mse"])
    close(bits.noise_errors.flip(1), io["out.bpd_loop.mse"], 1e-4)


def test_golden_losses_schedules_and_respacing():
    io = read_golden(GOLDEN / "losses_schedules_respacing").tensors
    x, mean, log_std = io["in.x"], io["in.means"], io["in.log_scales"]
    close(discretized_log_likelihood(x, mean, log_std), io["out.discretized_gaussian_log_likelihood"])
    close(gaussian_kl(mean, io["in.lv1"], io["in.m2"], io["in.lv2"]), io["out.normal_kl"])
    close(normal_cdf(mean), io["out.approx_standard_normal_cdf"])
    for steps in (1000, 4000):
        close(linear_betas(steps), io[f"out.betas.linear.{steps}"], 1e-12)
    for steps in (100, 4000):
        close(cosine_betas(steps), io[f"out.betas.cosine.{steps}"], 1e-10)
    assert strided_steps(1000, 40) == io["out.respacing.ddim25"].tolist()
    assert strided_steps(1000, 20) == io["out.respacing.ddim50"].tolist()
    assert spaced_steps(1000, [250]) == io["out.respacing.250"].tolist()
    assert spaced_steps(1000, [10, 15, 20]) == io["out.respacing.10,15,20"].tolist()
    kept = _raw(linear_betas(1000)).keep(io["out.spaced.timestep_map"].tolist())
    close(kept.betas, io["out.spaced.betas"], 1e-12)
    assert kept.timesteps.tolist() == io["out.spaced.timestep_map"].tolist()


def test_golden_samplers():
    stored = read_golden(GOLDEN / "samplers")
    io, steps = stored.tensors, stored.meta["args"]["steps"]
    kept = strided_steps(1000, 1000 // steps)
    assert kept == io["out.seq"].tolist()
    process = Diffusion(
        _raw(torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).keep(kept),
        PREDICTIONS["epsilon"],
        VARIANCES["fixed_large"],
    )

    def predict(x: Tensor, timesteps: Tensor) -> Tensor:
        return torch.tanh(0.7 * x + (timesteps / 100).sin()[:, None, None, None])

    for sampler, clip, name in (
        (DDIM(0.0), False, "ddim_eta0.0"),
        (DDIM(1.0), False, "ddim_eta1.0"),
        (Ancestral(), True, "ddpm"),
    ):
        draws = iter([io["in.x_T"], *io["in.noises"]])
        found = list(sample(process, predict, draws.__next__, sampler, clip=clip))
        assert len(found) == len(kept)
        for n, x in enumerate(found, 1):
            close(x, io[f"out.{name}.x"][n], 1e-4)


@pytest.mark.parametrize("name", BETAS)
def test_predictions_are_forms_of_one_another(name):
    """A perfect prediction of any kind finds the same images, mean and step."""
    generator = torch.Generator().manual_seed(0)
    schedule = noise_schedule(name, 50)
    x0 = torch.rand(4, 1, 4, 4, generator=generator) * 2 - 1
    noise, drawn = torch.randn(2, *x0.shape, generator=generator)
    t = torch.tensor([0, 10, 30, 48])
    x_t = schedule.add_noise(x0, noise, t)
    for prediction in PREDICTIONS.values():
        process = Diffusion(schedule, prediction, VARIANCES["fixed_small"])
        found = process.denoise(prediction.target(schedule, x0, noise, x_t, t), x_t, t, clip=False)
        torch.testing.assert_close(found.x0, x0, atol=1e-4, rtol=0)
        torch.testing.assert_close(found.mean, schedule.posterior_mean(x0, x_t, t), atol=1e-5, rtol=0)
        back = DDIM().step(process, found, x_t, t, drawn)
        wanted = schedule.add_noise(x0, noise, (t - 1).clamp(min=0)).where(t[:, None, None, None] > 0, x0)
        torch.testing.assert_close(back, wanted, atol=1e-4, rtol=0)


def test_a_perfect_model_finds_the_image_with_any_sampler_and_number_of_steps():
    x0 = torch.linspace(-0.9, 0.9, 16).view(1, 1, 4, 4)
    for steps, sampler in ((1000, Ancestral()), (20, Ancestral()), (10, DDIM()), (3, DDIM(1.0))):
        whole = noise_schedule("cosine", 1000)
        schedule = whole.keep(spaced_steps(1000, [steps]))
        assert len(schedule) == steps and schedule.timesteps[-1] == 999
        torch.testing.assert_close(schedule.alpha_bars[-1], whole.alpha_bars[-1])
        process = Diffusion(schedule, PREDICTIONS["image"], VARIANCES["fixed_large"])
        *_, found = sample(
            process, lambda x, timesteps: x0.expand_as(x), ImageNoise(1, [0, 1], (1, 4, 4)), sampler, clip=True
        )
        torch.testing.assert_close(found, x0.expand(2, 1, 4, 4), atol=1e-5, rtol=0)


def test_an_image_depends_on_seed_and_number_alone():
    model = create_model("ddpm_nano").eval()
    torch.manual_seed(3)
    torch.nn.init.normal_(model.unet.conv_out.weight, std=0.05)  # which begins at zero
    schedule = noise_schedule("linear", 1000).keep(spaced_steps(1000, [4]))
    process = Diffusion(schedule, PREDICTIONS["epsilon"], VARIANCES["fixed_large"])

    def images(seed: int, numbers: list[int]) -> Tensor:
        noise = ImageNoise(seed, numbers, (1, 28, 28))
        *_, found = sample(process, model, noise, Ancestral(), clip=True)
        return found

    together, alone, other = images(1, [5, 0, 7]), images(1, [7]), images(2, [7])
    torch.testing.assert_close(together[2:], alone, atol=1e-3, rtol=0)  # rounding, which four steps enlarge
    assert (alone - other).abs().max() > 0.1
    assert (together[0] - together[1]).abs().max() > 0.1


def test_the_discretized_likelihood_is_a_distribution_over_pixel_values():
    values = torch.arange(256) / 127.5 - 1
    for mean, std in ((0.3, 0.05), (-1.2, 0.2), (0.9, 0.001)):
        probabilities = discretized_log_likelihood(values, torch.tensor(mean), torch.tensor(math.log(std))).exp()
        assert float(probabilities.sum()) == pytest.approx(1, abs=1e-4)


def test_the_bound_is_least_for_the_true_image_and_the_variance_between_the_two():
    """Known images cost nothing but the last step's bits, and the posterior's variance is the best there is."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randint(256, (2, 1, 4, 4), generator=generator) / 127.5 - 1
    schedule = noise_schedule("linear", 100)

    def total(shift: float, variance: str) -> float:
        process = Diffusion(schedule, PREDICTIONS["image"], VARIANCES[variance])
        noise = ImageNoise(0, [0, 1], (1, 4, 4))
        return float(bits_per_dimension(process, lambda x, t: x0 + shift, x0, noise, clip=False).total.mean())

    assert 0 <= total(0.0, "fixed_small") < total(0.05, "fixed_small")
    assert total(0.0, "fixed_small") < total(0.0, "fixed_large")


def test_networks_begin_by_predicting_nothing_and_say_what_they_expect():
    images, timesteps = torch.randn(2, 1, 28, 28), torch.tensor([3, 900])
    for name in ("ddpm_nano", "improved_ddpm_nano"):
        model = create_model(name)
        assert (model(images, timesteps) == 0).all()
        for wrong in ((images[:, :, :-1], timesteps), (images, timesteps[:1]), (images, timesteps[:, None])):
            with pytest.raises(ValueError, match="expected"):
                model(*wrong)
    model = create_model("improved_ddpm_nano", classes=3)
    assert model(images, timesteps, torch.tensor([0, 2])).shape == (2, 2, 28, 28)
    for wrong in (None, torch.tensor([0, 3]), torch.tensor([0]), torch.tensor([0.0, 1.0])):
        with pytest.raises(ValueError, match="expected"):
            model(images, timesteps, wrong)
    with pytest.raises(ValueError, match="expected no classes"):
        create_model("improved_ddpm_nano")(images, timesteps, torch.tensor([0, 2]))
    process = Diffusion(noise_schedule("linear", 10), PREDICTIONS["epsilon"], VARIANCES["learned_range"])
    with pytest.raises(ValueError, match="LearnedRange expects 2 channels"):
        process.denoise(torch.zeros_like(images), images, timesteps * 0, clip=True)
    with pytest.raises(ValueError, match="expected 1 to 10 steps"):
        spaced_steps(10, [11])
