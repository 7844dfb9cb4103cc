"""The battery: every variant of every card goes through it by registration alone.

On paper (the meta device, which takes no memory): builds, counts, shapes, names. For real: everything that is small
enough, and the small configurations at which landmarks are compared with their references.
"""

import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from orchard.cards import Reference, all_cards
from orchard.errors import OrchardError
from orchard.inference.export import export_onnx
from orchard.models import configuration, create_model, landmark_of
from orchard.weights.names import foreign_names, to_ours, to_theirs
from orchard.weights.official import export_official, import_official, load_official
from orchard.weights.portable import (
    Portable,
    architecture_of,
    load_exactly,
    load_portable,
    save_portable,
)
from orchard.weights.proof import compare
from orchard.weights.reference import randomise

CARDS = all_cards()
VARIANTS = {name: variant for card in CARDS.values() for name, variant in card.variants.items()}
REFERENCES = [row for card in CARDS.values() for row in card.references]
MOST_PARAMETERS, MOST_MACS = 3e6, 60e6  # of a variant that is run for real
MEMORISED = 0.5  # the loss at which a batch of four classes counts as learned; knowing nothing costs log 4 = 1.39


def side(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def pictures(config: Any, count: int, device: str = "cpu") -> Tensor:
    generator = None if device == "meta" else torch.Generator().manual_seed(1)
    return torch.randn(count, config.in_channels, *side(config.image_size), generator=generator, device=device)


def cost(name: str, overrides: dict[str, Any]) -> tuple[int, float]:
    """Parameters and multiply-adds of a configuration."""
    with torch.device("meta"):
        model = create_model(name, **overrides).eval()
    with FlopCounterMode(display=False) as counter:
        model(pictures(model.config, 1, "meta"))
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() / 2


def is_small(parameters: int, macs: float) -> bool:
    return parameters <= MOST_PARAMETERS and macs <= MOST_MACS


def small_ones() -> dict[str, tuple[str, dict[str, Any]]]:
    """What is run for real: every small variant, and what the references are compared at where that is small."""
    chosen: dict[str, tuple[str, dict[str, Any]]] = {}
    for card in CARDS.values():
        chosen |= {name: (name, {}) for name, v in card.variants.items() if is_small(v.parameters, v.macs)}
        rows = {repr((row.variant, row.ours)): row for row in card.references if row.ours}
        reduced = [(row.variant, row.ours) for row in rows.values() if is_small(*cost(row.variant, row.ours))]
        chosen |= {f"{name}-reduced{n}": (name, overrides) for n, (name, overrides) in enumerate(reduced, 1)}
    return chosen


SMALL = small_ones()
every_variant = pytest.mark.parametrize("name", VARIANTS)
every_small = pytest.mark.parametrize("small", SMALL)


@functools.cache
def sketch(name: str) -> nn.Module:
    """The variant on the meta device: names and shapes without numbers."""
    with torch.device("meta"):
        return create_model(name).eval()


@functools.cache
def grown(small: str) -> nn.Module:
    """A small model with every weight drawn at random, in evaluation mode. Tests read it and leave it as it is."""
    name, overrides = SMALL[small]
    torch.manual_seed(0)
    model = create_model(name, **overrides).eval()
    randomise(model, lambda: model(pictures(model.config, 2)), seed=0)
    return model


def about(small: str, model: nn.Module) -> Portable:
    return Portable(SMALL[small][0], architecture_of(model), "image-classification", ("a", "b"), {})


# On paper


@every_variant
def test_size_is_the_card_s(name):
    model = sketch(name)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == VARIANTS[name].parameters
    with FlopCounterMode(display=False) as counter:
        logits = model(pictures(model.config, 1, "meta"))
    assert logits.shape == (1, model.config.num_classes)
    assert counter.get_total_flops() / 2 == pytest.approx(VARIANTS[name].macs, rel=1e-3)


@every_variant
def test_groups_cover_every_parameter_once(name):
    model = sketch(name)
    groups = model.layer_groups()
    for parameter, _ in model.named_parameters():
        homes = [n for n, group in enumerate(groups) if parameter.startswith(group)]
        assert len(homes) == 1, f"{parameter} is in groups {homes}"
    head = [parameter for parameter, _ in model.named_parameters() if parameter.startswith(model.head_name + ".")]
    assert all(parameter.startswith(groups[-1]) for parameter in head), "the head belongs to the last group"


@every_variant
def test_head_depends_on_the_classes_and_nothing_else_does(name):
    model = sketch(name)
    assert isinstance(model.get_submodule(model.head_name), nn.Module)
    with torch.device("meta"):
        other = create_model(name, num_classes=model.config.num_classes + 3)
    theirs = other.state_dict()
    changed = {key for key, tensor in model.state_dict().items() if theirs[key].shape != tensor.shape}
    assert changed and all(key.startswith(model.head_name + ".") for key in changed)


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


@every_variant
def test_names_and_shapes_are_those_of_the_package_at_full_size(name):
    timm, torchvision = pytest.importorskip("timm"), pytest.importorskip("torchvision")
    config, names = sketch(name).config, landmark_of(name).names
    builders = {
        "timm": functools.partial(timm.create_model, name) if timm.is_model(name) else None,
        "torchvision": getattr(torchvision.models, name, None),
    }
    known = {source: build for source, build in builders.items() if build is not None and source in names}
    if not known:
        pytest.skip("no package has a network of this name")
    for source, build in known.items():
        with torch.device("meta"):
            theirs = build(num_classes=config.num_classes).state_dict()
        ours = sketch(name).state_dict()
        found = to_ours(names[source](config), theirs, ours)  # which refuses any name or shape left over
        assert {key: tensor.shape for key, tensor in found.items()} == {key: t.shape for key, t in ours.items()}


# Against the references


@pytest.mark.parametrize("row", REFERENCES, ids=[f"{row.variant}-{row.reference}" for row in REFERENCES])
def test_parity(row: Reference):
    found = compare(row)
    assert not found.problem
    assert found.ok, found


def test_every_landmark_with_a_package_is_proven_at_two_configurations():
    for card in CARDS.values():
        by_package: dict[str, set[str]] = {}
        for row in card.references:
            by_package.setdefault(row.reference.partition(":")[0], set()).add(repr((row.variant, row.ours)))
        for package, configurations in by_package.items():
            assert len(configurations) >= 2, f"{card.name} is compared with {package} at one configuration only"


# For real


def test_every_landmark_has_something_small():
    small = {name for name, _ in SMALL.values()}
    for card in CARDS.values():
        assert small & card.variants.keys(), f"{card.name} has nothing small: a _nano variant would do"


@every_small
def test_forward(small):
    model = grown(small)
    for count in (1, 3):
        logits = model(pictures(model.config, count))
        assert logits.shape == (count, model.config.num_classes)
        assert logits.dtype == torch.float32 and logits.isfinite().all()
    features = model.features(pictures(model.config, 2))
    assert features.shape[0] == 2 and features.ndim in (3, 4)


@every_small
def test_one_picture_does_not_see_the_others(small):
    model, batch = grown(small), pictures(grown(small).config, 3)
    torch.testing.assert_close(model(batch)[1:2], model(batch[1:2]), atol=1e-4, rtol=1e-4)


@every_small
def test_gradients_reach_every_parameter(small):
    model = grown(small)
    loss = F.cross_entropy(model(pictures(model.config, 2)), torch.tensor([0, 1]))
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    still = [key for key, gradient in zip(parameters, gradients, strict=True) if not gradient.abs().max() > 0]
    assert not still, f"no gradient reaches {still}"


@every_small
def test_overfits_one_batch(small):
    name, overrides = SMALL[small]
    torch.manual_seed(0)
    model = create_model(name, **overrides).train()
    images = pictures(model.config, 8)
    labels = torch.arange(8) % min(model.config.num_classes, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses: list[float] = []
    while len(losses) < 300 and (not losses or losses[-1] > MEMORISED):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] <= MEMORISED, f"from {losses[0]:.3f} to {losses[-1]:.3f} in {len(losses)} steps"


@every_small
def test_saved_and_loaded_bit_equal(small, tmp_path):
    model, images = grown(small), pictures(grown(small).config, 2)
    save_portable(tmp_path, model, about(small, model))
    described, loaded = load_portable(tmp_path)
    assert described.architecture == about(small, model).architecture or loaded.config == model.config
    state = loaded.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())
    assert torch.equal(loaded(images), model(images))


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
def test_official_checkpoints_are_imported_with_their_own_number_of_classes(small, tmp_path):
    name, overrides = SMALL[small]
    torch.manual_seed(0)
    trained = create_model(name, **overrides | {"num_classes": 13})
    shape = {key: value for key, value in overrides.items() if key != "num_classes"}
    for source in landmark_of(name).names:
        try:
            theirs = export_official(trained, source)
        except OrchardError:
            continue  # the source has no such network
        save_file(theirs, tmp_path / f"{source}.safetensors")
        described, _ = import_official(name, tmp_path / f"{source}.safetensors", tmp_path / source, source, **shape)
        state = load_portable(tmp_path / source)[1].state_dict()
        assert described.classes == tuple(str(n) for n in range(13))
        assert all(torch.equal(tensor, state[key]) for key, tensor in trained.state_dict().items())


@every_small
def test_bfloat16_runs_and_says_about_the_same(small):
    model, images = grown(small), pictures(grown(small).config, 2)
    with torch.no_grad():
        full = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(images).float()
    assert half.isfinite().all()
    assert (half - full).abs().max() <= 0.1 * full.abs().max()


@every_small
def test_wrong_input_is_refused_in_one_line(small):
    model, images = grown(small), pictures(grown(small).config, 2)
    channels = model.config.in_channels
    wrong = {
        f"(B, {channels},": [images[0], torch.cat([images, images[:, :1]], dim=1), images[:, :0]],
        "float": [(images * 255).to(torch.uint8), images.long()],
    }
    for expected, inputs in wrong.items():
        for tensor in inputs:
            with pytest.raises(ValueError) as caught:
                model(tensor)
            assert expected in str(caught.value) and "\n" not in str(caught.value)


@every_small
def test_another_size_works_or_is_refused_in_one_line(small):
    model = grown(small)
    height, width = side(model.config.image_size)
    for size in ((height + 8, width + 8), (1, 1)):
        try:
            logits = model(torch.randn(1, model.config.in_channels, *size))
        except ValueError as error:
            assert "expected pictures" in str(error) and str(tuple(size))[1:-1] in str(error)
            assert "\n" not in str(error)
        else:
            assert logits.shape == (1, model.config.num_classes)


@every_small
def test_another_class_count_is_refused_in_one_line(small):
    name, overrides = SMALL[small]
    model = grown(small)
    classes = model.config.num_classes
    other = create_model(name, **overrides | {"num_classes": classes + 1})
    with pytest.raises(OrchardError) as caught:
        load_exactly(other, model.state_dict(), "the run")
    message = str(caught.value)
    assert "the run" in message and model.head_name in message and "\n" not in message
    assert f"({classes}," in message and f"({classes + 1}," in message


@every_small
def test_onnx_computes_the_same_at_any_batch(small, tmp_path: Path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model, path = grown(small), tmp_path / "model.onnx"
    assert export_onnx(model, pictures(model.config, 2), path) <= 1e-4
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = pictures(model.config, 3)
    (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), model(images).detach(), atol=1e-4, rtol=0)


def test_configurations_are_hashable_and_frozen():
    for name in VARIANTS:
        config = configuration(name)
        assert hash(config) == hash(configuration(name))
        with pytest.raises(AttributeError):
            config.num_classes = math.pi
