"""The battery of picture classifiers: what concerns classes, the head and the size of pictures."""

import pytest
import torch
from battery import drawn_up, every_classifier_card, every_small_classifier, sketch
from safetensors.torch import save_file
from torch import nn

from orchard.errors import OrchardError
from orchard.models import create_model, landmark_of, picture_size
from orchard.tasks.known_classes import head_prefixes
from orchard.weights.official import export_official, import_official
from orchard.weights.portable import load_exactly, load_portable


@every_classifier_card
def test_head_depends_on_the_classes_and_nothing_else_does(variants):
    for name in variants:
        model = sketch(name)
        assert isinstance(model.get_submodule(model.head_name), nn.Module)
        theirs = drawn_up(name, num_classes=model.config.num_classes + 3).state_dict()
        changed = {key for key, tensor in model.state_dict().items() if theirs[key].shape != tensor.shape}
        assert changed and all(key.startswith(head_prefixes(model)) for key in changed), name


@every_classifier_card
def test_the_head_belongs_to_the_last_group(variants):
    for name in variants:
        model = sketch(name)
        head = [parameter for parameter, _ in model.named_parameters() if parameter.startswith(head_prefixes(model))]
        assert all(parameter.startswith(model.layer_groups()[-1]) for parameter in head), name


@every_small_classifier
def test_forward(small):
    model = small.grown()
    for count in (1, 3):
        logits = model(**small.inputs(count))
        assert logits.shape == (count, model.config.num_classes)
        assert logits.dtype == torch.float32 and logits.isfinite().all()
    features = model.features(**small.inputs(2))
    assert features.shape[0] == 2 and features.ndim in (3, 4)


@every_small_classifier
def test_official_checkpoints_are_imported_with_their_own_number_of_classes(small, tmp_path):
    small.grown()  # which skips what is too large
    name, overrides = small.name, small.overrides
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


@every_small_classifier
def test_wrong_pictures_are_refused_in_a_line_that_says_what_was_expected(small):
    model, images = small.grown(), small.inputs(2)["images"]
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


@every_small_classifier
def test_another_size_works_or_is_refused_in_one_line(small):
    model = small.grown()
    height, width = picture_size(model.config)
    for size in ((height + 8, width + 8), (1, 1)):
        try:
            logits = model(torch.randn(1, model.config.in_channels, *size))
        except ValueError as error:
            assert "expected pictures" in str(error) and str(tuple(size))[1:-1] in str(error)
            assert "\n" not in str(error)
        else:
            assert logits.shape == (1, model.config.num_classes)


@every_small_classifier
def test_another_class_count_is_refused_in_one_line(small):
    name, overrides = small.name, small.overrides
    model = small.grown()
    classes = model.config.num_classes
    other = create_model(name, **overrides | {"num_classes": classes + 1})
    with pytest.raises(OrchardError) as caught:
        load_exactly(other, model.state_dict(), "the run")
    message = str(caught.value)
    assert "the run" in message and model.head_name in message and "\n" not in message
    assert f"({classes}," in message and f"({classes + 1}," in message
