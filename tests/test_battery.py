"""The battery: every variant of every card goes through it by registration alone, whatever its task.

On paper (the meta device, which takes no memory): builds, counts, shapes, names. For real: everything that is small
enough, and the small configurations at which landmarks are compared with their references.
"""

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from battery import (
    CARDS,
    SMALL,
    VARIANTS,
    about,
    cost,
    every_small,
    every_variant,
    grown,
    inputs_of,
    numbers,
    outputs,
    sketch,
    task_of,
)
from overfitting import MEMORISED, memorise

from orchard.cards import variant_names
from orchard.errors import OrchardError
from orchard.inference.export import entries_of, export_onnx
from orchard.inference.loading import load
from orchard.models import configuration, create_model, landmark_of
from orchard.weights.names import foreign_names, to_ours, to_theirs
from orchard.weights.official import export_official, load_official
from orchard.weights.portable import load_portable, save_portable

# Exporting takes seconds. Other tasks than classification do it once for a module.
EXPORTED = [small for small in SMALL if task_of(small) == "image-classification"]
EXPORTED += {
    CARDS[variant_names()[name]].module: small for small, (name, _) in reversed(SMALL.items()) if small not in EXPORTED
}.values()


# On paper


@every_variant
def test_size_is_the_card_s(name):
    parameters, macs = cost(name, sketch(name))
    assert parameters == VARIANTS[name].parameters
    assert macs == pytest.approx(VARIANTS[name].macs, rel=1e-3)


@every_variant
def test_groups_cover_every_parameter_once(name):
    model = sketch(name)
    groups = model.layer_groups()
    for parameter, _ in model.named_parameters():
        homes = [n for n, group in enumerate(groups) if parameter.startswith(group)]
        assert len(homes) == 1, f"{parameter} is in groups {homes}"


@pytest.mark.parametrize("name, source", [(name, source) for name in VARIANTS for source in landmark_of(name).names])
def test_name_tables_map_every_tensor_and_invert(name, source):
    model = sketch(name)
    table, ours = landmark_of(name).names[source](model.config), model.state_dict()
    try:
        targets = [target for key in ours for target in foreign_names(table, key)[1]]
    except OrchardError as error:
        pytest.skip(f"{source} has no such network: {error}")
    assert len(targets) == len(set(targets)), "two of our tensors go to one of theirs"
    back = to_ours(table, to_theirs(table, ours), ours)
    assert {key: tensor.shape for key, tensor in back.items()} == {key: tensor.shape for key, tensor in ours.items()}


def test_configurations_are_hashable_and_frozen():
    for name in VARIANTS:
        config = configuration(name)
        assert hash(config) == hash(configuration(name))
        with pytest.raises(AttributeError):
            config.num_classes = math.pi


# For real


def test_every_landmark_has_something_small():
    small = {name for name, _ in SMALL.values()}
    for card in CARDS.values():
        assert small & card.variants.keys(), f"{card.name} has nothing small: a _nano variant would do"


@every_small
def test_outputs_are_finite_numbers_of_each_sample(small):
    for count in (1, 3):
        found = outputs(grown(small)(**inputs_of(small, count)))
        for name, tensor in found.items():
            assert tensor.dtype in (torch.float32, torch.int64) and tensor.isfinite().all(), name
            assert tensor.ndim == 0 or len(tensor) == count, name


@every_small
def test_one_sample_does_not_see_the_others(small):
    model, inputs = grown(small), inputs_of(small, 3)
    together, alone = numbers(model(**inputs)), numbers(model(**{name: one[1:2] for name, one in inputs.items()}))
    # Losses are means over a batch, and CLIP's logits have a column for each sentence of it.
    compared = {name: tensor[1:2] for name, tensor in together.items() if tensor.ndim}
    compared = {name: tensor for name, tensor in compared.items() if tensor.shape == alone[name].shape}
    assert compared
    for name, tensor in compared.items():
        torch.testing.assert_close(tensor, alone[name], atol=1e-4, rtol=1e-4)


@every_small
def test_gradients_reach_every_parameter(small):
    """Of all outputs that are numbers but a tokenizer's latents, which stand before its codebook, weighed at random.

    A tokenizer is in training: its choice of codes passes gradients on straight through, or is relaxed. An adversarial
    pair's discriminator judges what its generator made.
    """
    model, inputs = grown(small), inputs_of(small, 2)
    if task_of(small) == "image-tokenization":
        model = copy.deepcopy(model).train()
        torch.manual_seed(0)
    generator = torch.Generator().manual_seed(2)
    found = {name: tensor for name, tensor in numbers(model(**inputs)).items() if name != "latents"}
    if hasattr(model, "discriminator"):
        found["score"] = model.discriminator(found[""])
    loss = sum((tensor * torch.randn(tensor.shape, generator=generator)).mean() for tensor in found.values())
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    pairs = zip(parameters, gradients, strict=True)
    still = [key for key, gradient in pairs if gradient is None or not gradient.abs().max() > 0]
    assert not still, f"no gradient reaches {still}"


@every_small
def test_overfits_one_batch(small):
    losses = memorise(*SMALL[small], task_of(small))
    allowed = MEMORISED[task_of(small)]
    assert losses[-1] <= allowed, f"from {losses[0]:.3f} to {losses[-1]:.3f} in {len(losses)} steps"


@every_small
def test_saved_and_loaded_bit_equal(small, tmp_path):
    model, inputs = grown(small), inputs_of(small, 2)
    save_portable(tmp_path, model, about(small, model))
    described, loaded = load_portable(tmp_path)
    assert described.architecture == about(small, model).architecture or loaded.config == model.config
    state = loaded.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())
    expected, found = outputs(model(**inputs)), outputs(loaded(**inputs))
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@every_small
def test_official_names_out_and_in_bit_equal(small):
    model = grown(small)
    sources = landmark_of(SMALL[small][0]).names
    if not sources:
        pytest.skip("no package has this landmark")
    for source in sources:
        try:
            theirs = export_official(model, source)
        except OrchardError as error:
            assert "no rule" in str(error)  # a network that this source does not have
            continue
        fresh = create_model(SMALL[small][0], **SMALL[small][1])
        went = load_official(fresh, theirs, source)
        assert went.keys() == model.state_dict().keys()
        assert {key for keys in went.values() for key in keys} == theirs.keys()
        assert all(torch.equal(tensor, fresh.state_dict()[key]) for key, tensor in model.state_dict().items())


@every_small
def test_bfloat16_runs_and_says_about_the_same(small):
    model, inputs = grown(small), inputs_of(small, 2)
    with torch.no_grad():
        full = numbers(model(**inputs))
        with torch.autocast("cpu", torch.bfloat16):
            half = {name: tensor.float() for name, tensor in numbers(model(**inputs)).items()}
    assert half.keys() == full.keys() and all(tensor.isfinite().all() for tensor in half.values())
    # What a tokenizer draws depends on codes, and where two are equally near, rounding decides.
    for name in {"latents"} & full.keys() or full.keys():
        assert (half[name] - full[name]).abs().max() <= 0.1 * full[name].abs().max(), name


@every_small
def test_wrong_input_is_refused_in_one_line(small):
    model, inputs = grown(small), inputs_of(small, 2)
    for name, tensor in inputs.items():
        wrong = [tensor[0], tensor[..., None]]
        if tensor.is_floating_point() and tensor.ndim == 1:  # one number for each sample, such as a timestep
            wrong += [tensor[:-1], torch.cat([tensor, tensor])]
        elif tensor.is_floating_point():
            wrong += [tensor.long(), torch.cat([tensor, tensor[:, :1]], dim=1), tensor[:, :0]]
        else:
            wrong += [tensor.float(), tensor.int(), tensor + 10**6, -1 - tensor]
        for one in wrong:
            with pytest.raises(ValueError) as caught:
                model(**inputs | {name: one})
            assert "expected" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("small", [small for small in SMALL if task_of(small) == "image-tokenization"])
def test_wrong_codes_are_refused_in_one_line(small):
    model = grown(small)
    codes = model.encode(**inputs_of(small, 1))
    for wrong in (codes[0], codes.float(), codes.int(), codes + model.config.codes, -1 - codes):
        with pytest.raises(ValueError, match=r"^expected codes .*$"):
            model.decode(wrong)


@pytest.mark.parametrize("small", EXPORTED)
def test_onnx_computes_the_same_at_any_batch(small, tmp_path: Path):
    onnxruntime = pytest.importorskip("onnxruntime")
    save_portable(tmp_path, grown(small), about(small, grown(small)))
    loaded = replace(load(tmp_path), name=SMALL[small][0])
    for entry in entries_of(loaded):
        path = tmp_path / "model.onnx"
        assert export_onnx(entry, path) <= 1e-4
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        inputs = entry.inputs(4, torch.Generator().manual_seed(7))
        (got,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        expected = entry.module(*inputs.values()).detach()
        torch.testing.assert_close(torch.from_numpy(got), expected, atol=1e-4, rtol=1e-5)
