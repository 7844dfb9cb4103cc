"""The battery: every variant of every card goes through it by registration alone, whatever its task.

On paper (the meta device, which takes no memory): builds, counts, shapes, names. For real: what is small enough, and
the small configurations at which landmarks are compared with their references.
"""

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from battery import CARDS, CLASSIFICATION, SMALL, every_card, every_small, numbers, sketch, small_ones, smalls
from by_task import hooks_of, memorise

from orchard.cards import sizes, variant_names
from orchard.errors import OrchardError, UsageError
from orchard.inference.export import export_onnx
from orchard.inference.loading import load
from orchard.models import configuration, create_model, landmark_of
from orchard.tasks.registry import task_named
from orchard.weights.names import foreign_names, to_ours, to_theirs
from orchard.weights.nested import tensors_of
from orchard.weights.official import export_official, load_official
from orchard.weights.portable import load_portable, save_portable
from orchard.weights.sizes import size_of

# Exporting takes seconds, of recurrent models, which become a loop without a loop, half a minute. Other tasks than
# classification do it once for a module; without the slow tests once, and where test_export.py does it, not at all.
ONCE_A_MODULE = {small.card.module: id for id, small in reversed(SMALL.items())}
RECURRENT = ("bilstm_crf", "drqa", "luong", "rnnsearch")
IN_TEST_EXPORT = ("image-tokenization", "text-generation", "text-to-image", "zero-shot-image-classification")
EXPORTED = [
    id
    for id, small in sorted(SMALL.items(), key=lambda item: item[1].card.name in RECURRENT)
    if task_named(small.card.task).entries and (small.card.task == CLASSIFICATION or id in ONCE_A_MODULE.values())
]


# On paper


def test_every_variant_has_been_counted():
    """`python -m orchard.weights.sizes NAME` counts those of a new card."""
    assert sizes().keys() == variant_names().keys()


@every_card
def test_sizes_are_what_the_models_have(variants):
    for name in variants:
        found, counted = size_of(name, sketch(name)), sizes()[name]
        assert found["parameters"] == counted["parameters"], name
        assert found["macs"] == pytest.approx(counted["macs"], rel=1e-3), name


@every_card
def test_groups_cover_every_parameter_once(variants):
    for name in variants:
        model = sketch(name)
        groups = model.layer_groups()
        for parameter, _ in model.named_parameters():
            homes = [n for n, group in enumerate(groups) if parameter.startswith(group)]
            assert len(homes) == 1, f"{name}: {parameter} is in groups {homes}"


@every_card
def test_name_tables_map_every_tensor_and_invert(variants):
    for name in variants:
        model = sketch(name)
        ours = model.state_dict()
        for source, names in landmark_of(name).names.items():
            table = names(model.config)
            try:
                targets = [target for key in ours for target in foreign_names(table, key)[1]]
            except OrchardError:
                continue  # this source has no such network
            assert len(targets) == len(set(targets)), f"{name}, {source}: two of our tensors go to one of theirs"
            back = to_ours(table, to_theirs(table, ours), ours)
            assert {key: t.shape for key, t in back.items()} == {key: t.shape for key, t in ours.items()}, name


@every_card
def test_configurations_are_hashable_and_frozen(variants):
    for name in variants:
        config = configuration(name)
        assert hash(config) == hash(configuration(name))
        with pytest.raises(AttributeError):
            config.num_classes = math.pi


# For real


def test_every_landmark_has_something_small():
    for card in CARDS.values():
        assert any(one.is_small() for one in small_ones(card).values()), f"{card.name}: a _nano variant would do"


def test_every_task_says_what_its_models_learn():
    for task in {card.task for card in CARDS.values()}:
        assert callable(hooks_of(task).learn)


@every_small
def test_outputs_are_finite_numbers_of_each_sample(small):
    for count in (1, 3):
        for name, tensor in tensors_of(small.grown()(**small.inputs(count))).items():
            assert tensor.dtype in (torch.float32, torch.int64, torch.bool) and tensor.isfinite().all(), name
            assert tensor.ndim == 0 or len(tensor) == count, name


@every_small
def test_one_sample_does_not_see_the_others(small):
    model, inputs = small.grown(), small.inputs(3)
    together, alone = numbers(model(**inputs)), numbers(model(**{name: one[1:2] for name, one in inputs.items()}))
    # Losses are means over a batch, and CLIP's logits have a column for each sentence of it.
    compared = {name: tensor[1:2] for name, tensor in together.items() if tensor.ndim}
    compared = {name: tensor for name, tensor in compared.items() if tensor.shape == alone[name].shape}
    assert compared
    for name, tensor in compared.items():
        torch.testing.assert_close(tensor, alone[name], atol=1e-4, rtol=1e-4)


@every_small
def test_gradients_reach_every_parameter(small):
    """Of all outputs that are numbers, weighed at random; of those behind a choice of codes, in training."""
    model, inputs = small.grown(), small.inputs(2)
    before_codes = small.hooks.before_codes
    if before_codes:
        model = copy.deepcopy(model).train()
        torch.manual_seed(0)
    generator = torch.Generator().manual_seed(2)
    given = numbers(small.hooks.outputs(model, inputs))
    found = {name: tensor for name, tensor in given.items() if name not in before_codes}
    if hasattr(model, "discriminator") and "" in found:  # it judges what the generator made
        found["score"] = model.discriminator(found[""], *([inputs["labels"]] if "labels" in inputs else []))
    loss = sum((tensor * torch.randn(tensor.shape, generator=generator)).mean() for tensor in found.values())
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    pairs = zip(parameters, gradients, strict=True)
    still = [key for key, gradient in pairs if gradient is None or not gradient.abs().max() > 0]
    still = [key for key in still if key not in small.hooks.unlearned]
    assert not still, f"no gradient reaches {still}"


@every_small
def test_overfits_one_batch(small):
    small.grown()  # which skips what is too large
    losses = memorise(small.name, small.overrides, small.hooks)
    assert losses[-1] <= small.hooks.learned, f"from {losses[0]:.3f} to {losses[-1]:.3f} in {len(losses)} steps"


@every_small
def test_saved_and_loaded_bit_equal(small, tmp_path):
    model, inputs = small.grown(), small.inputs(2)
    save_portable(tmp_path, model, small.about())
    described, loaded = load_portable(tmp_path)
    assert described.architecture == small.about().architecture or loaded.config == model.config
    state = loaded.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())
    expected, found = tensors_of(model(**inputs)), tensors_of(loaded(**inputs))
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@every_small
def test_official_names_out_and_in_bit_equal(small):
    model = small.grown()
    sources = landmark_of(small.name).names
    if not sources:
        pytest.skip("no package has this landmark")
    for source in sources:
        try:
            theirs = export_official(model, source)
        except OrchardError as error:
            assert "no rule" in str(error)  # a network that this source does not have
            continue
        fresh = create_model(small.name, **small.overrides)
        went = load_official(fresh, theirs, source)
        assert went.keys() == model.state_dict().keys()
        assert {key for keys in went.values() for key in keys} == theirs.keys()
        assert all(torch.equal(tensor, fresh.state_dict()[key]) for key, tensor in model.state_dict().items())


@every_small
def test_bfloat16_runs_and_says_about_the_same(small):
    model, inputs = small.grown(), small.inputs(2)
    with torch.no_grad():
        full = numbers(model(**inputs))
        with torch.autocast("cpu", torch.bfloat16):
            half = {name: tensor.float() for name, tensor in numbers(model(**inputs)).items()}
    assert half.keys() == full.keys() and all(tensor.isfinite().all() for tensor in half.values())
    # What a tokenizer draws depends on codes, and where two are equally near, rounding decides; so it does for boxes.
    for name in (set(small.hooks.before_codes) & full.keys() or full.keys()) - set(small.hooks.chosen):
        assert (half[name] - full[name]).abs().max() <= 0.1 * full[name].abs().max(), name


@every_small
def test_wrong_input_is_refused_in_one_line(small):
    model, inputs = small.grown(), small.inputs(2)
    for name, tensor in inputs.items():
        wrong = [tensor[0], tensor[..., None]]
        if tensor.is_floating_point() and tensor.ndim == 1:  # one number for each sample, such as a timestep
            wrong += [tensor[:-1], torch.cat([tensor, tensor])]
        elif tensor.is_floating_point():
            wrong += [tensor.long(), torch.cat([tensor, tensor[:, :1]], dim=1), tensor[:, :0]]
        elif tensor.dtype == torch.bool:
            wrong += [tensor.float(), tensor.long()]
        else:
            wrong += [tensor.float(), tensor.int(), tensor + 10**6, -1 - tensor]
        for one in wrong:
            with pytest.raises(ValueError) as caught:
                model(**inputs | {name: one})
            assert "expected" in str(caught.value) and "\n" not in str(caught.value)


@smalls(id for id, small in SMALL.items() if small.card.task == "image-tokenization")
def test_wrong_codes_are_refused_in_one_line(small):
    model = small.grown()
    codes = model.encode(**small.inputs(1))
    for wrong in (codes[0], codes.float(), codes.int(), codes + model.config.codes, -1 - codes):
        with pytest.raises(ValueError, match=r"^expected codes .*$"):
            model.decode(wrong)


@smalls(EXPORTED, once="task", elsewhere=IN_TEST_EXPORT)
def test_onnx_computes_the_same_at_any_batch(small, tmp_path: Path):
    onnxruntime = pytest.importorskip("onnxruntime")
    save_portable(tmp_path, small.grown(), small.about())
    loaded = replace(load(tmp_path), name=small.name)
    task = task_named(small.card.task)
    try:
        entries = task.load(task.entries)(loaded)
    except UsageError as error:
        assert "cannot be exported" in str(error)
        return
    for entry in entries:
        path = tmp_path / "model.onnx"
        assert export_onnx(entry, path) <= 1e-4
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        inputs = entry.inputs(4, torch.Generator().manual_seed(7))
        (got,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        expected = entry.module(*inputs.values()).detach()
        torch.testing.assert_close(torch.from_numpy(got), expected, atol=1e-4, rtol=1e-5)
