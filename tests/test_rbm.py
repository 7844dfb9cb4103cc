"""Restricted Boltzmann machines and deep belief nets beside two programs of others and exact sums over all states."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from orchard.models import create_model
from orchard.nn.rbm import RBM, sample_bernoulli
from orchard.weights.golden import read_golden

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def in_turn(numbers: Tensor) -> Callable[[Tensor], Tensor]:
    """Uniform numbers one after another from a list."""
    rest = numbers

    def draw(like: Tensor) -> Tensor:
        nonlocal rest
        taken, rest = rest[: like.numel()], rest[like.numel() :]
        return taken.view_as(like)

    return draw


def summed_over_the_batch(rbm: RBM, data: Tensor, draw: Callable[[Tensor], Tensor], lr: float) -> None:
    """A step of yusugomori's CD-1, which sums the gradient of the weights and averages those of the biases."""
    chain = rbm.gibbs(data, 1, sample_visible=True, draw=draw)
    sample_bernoulli(rbm(chain), draw)  # drawn there, too, and not used
    rbm.contrastive_loss(data, chain).backward()
    with torch.no_grad():
        rbm.weight -= lr * len(data) * rbm.weight.grad
        rbm.visible_bias -= lr * rbm.visible_bias.grad
        rbm.hidden_bias -= lr * rbm.hidden_bias.grad
    rbm.zero_grad()


def load(rbm: RBM, state: dict[str, Tensor]) -> RBM:
    weights = {"weight": state["weights"].T, "visible_bias": state["visible_bias"], "hidden_bias": state["hidden_bias"]}
    rbm.load_state_dict(weights)
    return rbm


def test_contrastive_divergence_is_that_of_yusugomori(golden: Path) -> None:
    case = read_golden(golden / "rbm_dbn" / "rbm_cd")
    rbm = load(RBM(6, 4).double(), dict(case.state))
    draw = in_turn(case.given("uniforms"))
    for step, batch in enumerate(case.given("data").double()):
        summed_over_the_batch(rbm, batch, draw, lr=0.1)
        found = case.below(f"numpy.step{step}")
        torch.testing.assert_close(rbm.weight.detach().T, found["W"], **EXACT)
        torch.testing.assert_close(rbm.visible_bias.detach(), found["vbias"], **EXACT)
        torch.testing.assert_close(rbm.hidden_bias.detach(), found["hbias"], **EXACT)
        drawn = rbm.reconstruct(rbm(batch))
        entropy = F.binary_cross_entropy(drawn, batch, reduction="none").sum(1).mean()
        torch.testing.assert_close(entropy.detach(), found["reconstruction_cross_entropy"][0], **EXACT)


def test_contrastive_divergence_is_that_of_pytorch_rbm(golden: Path) -> None:
    """Which keeps visible probabilities, has one row of random numbers for a batch, takes the sampled hidden units for
    the data's part of the weights, and decays weights by a share after each step."""
    case = read_golden(golden / "rbm_dbn" / "rbm_cd")
    rbm = load(RBM(6, 4), dict(case.state))
    torch.testing.assert_close(rbm.free_energy(case.given("data")[0]), case.computed("free_energy_restated"))
    optimizer = torch.optim.SGD(rbm.parameters(), lr=0.1, momentum=0.5)
    for step, batch in enumerate(case.given("data")):
        row = case.given("uniforms_rows")[2 * step]  # the second of a step is for units that are not used
        hidden = sample_bernoulli(rbm(batch).detach(), lambda like, row=row: row.expand_as(like))
        chain = rbm.gibbs(batch, 1, sample_visible=False, draw=lambda like, row=row: row.expand_as(like))
        rbm.contrastive_loss(batch, chain).backward()
        (of_samples,) = torch.autograd.grad(
            rbm.energy(batch, hidden).mean() - rbm.free_energy(chain).mean(), [rbm.weight]
        )
        rbm.weight.grad = of_samples
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            rbm.weight *= 1 - 1e-3
        found = case.below(f"torch.step{step}")
        torch.testing.assert_close(rbm.weight.detach().T, found["weights"])
        torch.testing.assert_close(rbm.visible_bias.detach(), found["visible_bias"])
        torch.testing.assert_close(rbm.hidden_bias.detach(), found["hidden_bias"])
        torch.testing.assert_close((batch - chain).square().sum(), found["error"])


def test_pretraining_and_fine_tuning_are_those_of_yusugomori(golden: Path) -> None:
    """Which draws the head's inputs before pretraining, from the first weights, and then trains the head alone."""
    case = read_golden(golden / "rbm_dbn" / "dbn_pretrain_finetune")
    images, targets = case.given("x")[:, :, None, None], case.given("y")
    draw = in_turn(case.given("uniforms"))
    model = create_model("dbn_nano", hidden_sizes=(5, 3), in_channels=6, image_size=1, num_classes=2).double()
    first, second = model.rbms
    with torch.no_grad():
        first.weight.copy_((2 * draw(torch.empty(6, 5)) - 1).T / 6)
        below = sample_bernoulli(first(images.flatten(1)), draw)
        second.weight.copy_((2 * draw(torch.empty(5, 3)) - 1).T / 5)
        sample_bernoulli(second(below), draw)
        model.head.weight.zero_()
        torch.testing.assert_close(first.weight.T, case.computed("initial.W0"), **EXACT)
    for layer, rbm in enumerate(model.rbms):
        data = sample_bernoulli(first(images.flatten(1)).detach(), draw) if layer else images.flatten(1)
        for _ in range(5):
            summed_over_the_batch(rbm, data, draw, lr=0.1)
        torch.testing.assert_close(rbm.weight.detach().T, case.computed(f"pretrained.W{layer}"), **EXACT)
        torch.testing.assert_close(rbm.hidden_bias.detach(), case.computed(f"pretrained.hbias{layer}"), **EXACT)
        torch.testing.assert_close(rbm.visible_bias.detach(), case.computed(f"pretrained.vbias{layer}"), **EXACT)
    top = sample_bernoulli(second(below).detach(), draw)
    for epoch in range(5):
        loss = F.cross_entropy(model.head(top), targets)
        weight, bias = torch.autograd.grad(loss, [model.head.weight, model.head.bias])
        with torch.no_grad():
            model.head.weight -= 0.1 * 0.95**epoch * len(top) * weight
            model.head.bias -= 0.1 * 0.95**epoch * bias
    torch.testing.assert_close(model.head.weight.detach().T, case.computed("finetuned.log_W"), **EXACT)
    torch.testing.assert_close(model.head.bias.detach(), case.computed("finetuned.log_b"), **EXACT)
    torch.testing.assert_close(model(images).softmax(1).detach(), case.computed("predict"), **EXACT)


@pytest.fixture
def small() -> tuple[RBM, Tensor, Tensor]:
    """A machine with few units, and all states of its visible and of its hidden units."""
    torch.manual_seed(0)
    rbm = RBM(5, 3).double()
    for parameter in rbm.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    visible, hidden = (torch.tensor(list(product((0.0, 1.0), repeat=n)), dtype=torch.float64) for n in (5, 3))
    return rbm, visible, hidden


def test_the_free_energy_sums_over_all_hidden_states(small: tuple[RBM, Tensor, Tensor]) -> None:
    rbm, visible, hidden = small
    energies = torch.stack([rbm.energy(visible, one.expand(32, 3)) for one in hidden])
    torch.testing.assert_close(rbm.free_energy(visible), -(-energies).logsumexp(0), **EXACT)


def test_a_long_chain_gives_the_gradient_of_the_likelihood(small: tuple[RBM, Tensor, Tensor]) -> None:
    """Persistent contrastive divergence: the chain goes on from where it was, and its statistics are the model's."""
    rbm, visible, _ = small
    data = visible[[3, 17, 30, 30]]
    likelihood = -rbm.free_energy(data).mean() - (-rbm.free_energy(visible)).logsumexp(0)
    exact = torch.autograd.grad(-likelihood, list(rbm.parameters()))
    chain = torch.zeros(20000, 5, dtype=torch.float64)
    for _ in range(4):
        chain = rbm.gibbs(chain, 8, sample_visible=True)
    found = torch.autograd.grad(rbm.contrastive_loss(data, chain), list(rbm.parameters()))
    for ours, theirs in zip(found, exact, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.02)
    at_first = torch.autograd.grad(rbm.contrastive_loss(data, torch.zeros(1, 5).double()), list(rbm.parameters()))
    assert max(float((a - b).abs().max()) for a, b in zip(at_first, exact, strict=True)) > 0.2


def test_a_layer_learns_from_the_probabilities_below_and_nothing_else_has_a_gradient() -> None:
    torch.manual_seed(0)
    model = create_model("dbn_nano", hidden_sizes=(12, 7), image_size=4)
    loss, error = model.pretraining_loss(1, torch.rand(6, 1, 4, 4), k=2)
    loss.backward()
    learned = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learned == {name for name, _ in model.named_parameters() if name.startswith(model.pretraining_layers[1])}
    assert error.ndim == 0 and not error.requires_grad and error > 0


def test_images_come_back_from_a_pass_up_and_down() -> None:
    model = create_model("dbn_nano", in_channels=3, image_size=4)
    images = torch.rand(2, 3, 4, 4)
    x = images.flatten(1)
    for rbm in model.rbms:
        x = torch.sigmoid(x @ rbm.weight.T + rbm.hidden_bias)
    for rbm in reversed(model.rbms):
        x = torch.sigmoid(x @ rbm.weight + rbm.visible_bias)
    torch.testing.assert_close(model.reconstruct(images), x.view_as(images))
    assert model.filters().shape == (128, 3, 4, 4)
