"""DETR against the tensors of the official code and against transformers: network, names, losses and answers."""

import json
import zlib

import numpy as np
import pytest
import torch
from torchvision.ops import box_convert, generalized_box_iou

from orchard.cards import card_of
from orchard.errors import OrchardError, UsageError
from orchard.models import configuration, create_model
from orchard.models.detection.contract import Detections
from orchard.models.detection.detr import VARIANTS, DetectionTransformer, DETRConfig
from orchard.models.detection.detr_names import official_names
from orchard.nn.position import LearnedGrid, SineGrid
from orchard.tasks.object_detection.losses import SetCriterion
from orchard.tasks.object_detection.matching import MatchingCosts, Targets, layers_of, match
from orchard.weights.names import foreign_names, to_ours
from orchard.weights.official import export_official, load_official, read_official
from orchard.weights.portable import read_tensors
from orchard.weights.reference import randomise

TINY_TRUNK = {"depths": (1, 1, 1, 1), "widths": (8, 16, 24, 32), "stem_width": 8}
TINY = dict(width=32, heads=4, hidden=64, encoder_layers=2, decoder_layers=2, queries=10, num_classes=7)


def case(golden, name):
    """Inputs and outputs of a stored case by their names, without "in." and "out."."""
    tensors = read_tensors(golden / "detr" / name / "io.safetensors")
    inputs = {key[3:]: tensor for key, tensor in tensors.items() if key.startswith("in.")}
    return inputs, {key[4:]: tensor for key, tensor in tensors.items() if key.startswith("out.")}


def close(found, expected, share=1e-5):
    """Equal within a share of the largest value."""
    torch.testing.assert_close(found, expected, atol=share * float(expected.abs().max()), rtol=0)


def padded(images):
    """Pictures (C, H, W) of unlike sizes as one batch and its padding mask."""
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    batch = torch.zeros(len(images), images[0].shape[0], height, width)
    mask = torch.ones(len(images), height, width, dtype=torch.bool)
    for n, image in enumerate(images):
        batch[n, :, : image.shape[1], : image.shape[2]] = image
        mask[n, : image.shape[1], : image.shape[2]] = False
    return batch, mask


def targets_of(inputs, count):
    return Targets(*([inputs[f"target{n}.{what}"] for n in range(count)] for what in ("labels", "boxes")))


def detections_of(tensors):
    """The detections of a stored case, its auxiliary layers with them."""
    count = sum(key.startswith("aux") and key.endswith("boxes") for key in tensors)
    earlier = [Detections(tensors[f"aux{n}.pred_logits"], tensors[f"aux{n}.pred_boxes"]) for n in range(count)]
    return Detections(tensors["pred_logits"], tensors["pred_boxes"], tuple(earlier))


# The network


@pytest.mark.parametrize("norm, layers", [("post", (2, 2)), ("pre", (1, 3))])
def test_the_transformer_is_the_official_one(golden, norm, layers):
    name = f"transformer_{norm}norm"
    inputs, expected = case(golden, name)
    sizes = TINY | dict(encoder_layers=layers[0], decoder_layers=layers[1])
    config = DETRConfig(norm=norm, **sizes)
    transformer = DetectionTransformer(config).eval()
    theirs = read_tensors(golden / "detr" / name / "params.safetensors")
    theirs = {f"transformer.{key}": tensor for key, tensor in theirs.items()}
    ours = {f"transformer.{key}": tensor for key, tensor in transformer.state_dict().items()}
    state = to_ours(official_names(config), theirs, ours)
    transformer.load_state_dict({key.removeprefix("transformer."): tensor for key, tensor in state.items()})
    source, queries = inputs["src"].requires_grad_(), inputs["query_embed"].requires_grad_()
    cells, positions = (x.flatten(2).transpose(1, 2) for x in (source, inputs["pos_embed"]))
    states, memory = transformer(cells, positions, ~inputs["mask"].flatten(1), queries)
    close(states, expected["hs"])
    close(memory.transpose(1, 2).reshape(source.shape), expected["memory"])
    by_source, by_queries = torch.autograd.grad(states.square().mean(), (source, queries))
    close(by_source, expected["grad_src_of_mean_hs_squared"], 1e-4)
    close(by_queries, expected["grad_query_of_mean_hs_squared"], 1e-4)


def test_positions_are_the_official_ones(golden):
    inputs, expected = case(golden, "position_encoding")
    mask = inputs["mask"]
    for name, span in (("sine", 2 * torch.pi), ("sine_unnorm", None)):
        grid = SineGrid(32, temperature=10000, span=span, eps=1e-6)
        close(grid(mask).permute(0, 3, 1, 2), expected[name])
    learned = LearnedGrid(32, cells=50)
    tables = read_tensors(golden / "detr" / "position_encoding" / "params.safetensors")
    learned.load_state_dict({f"{ours}s": tables[f"learned.{ours[:3]}_embed.weight"] for ours in ("row", "column")})
    assert torch.equal(learned(mask).permute(0, 3, 1, 2), expected["learned"])
    with pytest.raises(ValueError, match="expected a map of up to 50 cells a side, got 51x3"):
        learned(torch.zeros(1, 51, 3, dtype=torch.bool))


def test_the_whole_of_it_with_padding_is_the_official_one(golden):
    """Network, auxiliary outputs, matching, losses and boxes in pixels, of two pictures of unlike sizes."""
    inputs, expected = case(golden, "full_sine_aux")
    model = create_model("detr_resnet50", trunk_settings=TINY_TRUNK, **TINY).eval()
    load_official(model, read_tensors(golden / "detr" / "full_sine_aux" / "params.safetensors"), "official")
    images, mask = padded([inputs["image0"], inputs["image1"]])
    assert torch.equal(mask, expected["pad_mask"])
    close(model.trunk.feature_maps(images)[-1], expected["backbone_feat"])
    found, wanted = model(images, mask), detections_of(expected)
    for ours, theirs in zip((found, *found.auxiliary), (wanted, *wanted.auxiliary), strict=True):
        close(ours.logits, theirs.logits)
        close(ours.boxes, theirs.boxes)
    check_losses(found, targets_of(inputs, 2), expected)
    check_answers(found, inputs["orig_sizes"], expected)


def test_the_full_size_computes_the_official_function(golden):
    """Weights by a rule of their names and shapes, as the case's meta.json has it."""
    _, expected = case(golden, "fullsize_resnet50")
    meta = json.loads((golden / "detr/fullsize_resnet50/meta.json").read_text())
    shapes = json.loads((golden / "detr/fullsize_resnet50/names.json").read_text())
    state = {name: by_recipe(name, shape, meta) for name, shape in shapes.items()}
    with torch.device("meta"):
        model = create_model("detr_resnet50")
    model = model.to_empty(device="cpu").eval()
    load_official(model, state, "official")
    seed = meta["constructor"]["input_seed"]
    sizes = meta["constructor"]["image_sizes"]
    numbers = [np.random.RandomState(seed + n).standard_normal([3, *size]) for n, size in enumerate(sizes)]
    with torch.no_grad():
        found = model(*padded([torch.from_numpy(one).float() for one in numbers]))
    close(found.logits, expected["pred_logits"], 1e-4)
    close(found.boxes, expected["pred_boxes"], 1e-4)
    close(found.auxiliary[0].boxes, expected["aux0.pred_boxes"], 1e-4)


def by_recipe(name, shape, meta):
    random = np.random.RandomState((zlib.crc32(name.encode()) + meta["seed"]) % 2**32)
    z = random.standard_normal(shape)
    if name.endswith("query_embed.weight"):
        pass
    elif name.endswith("running_var"):
        z = 1 + 0.2 * np.tanh(z)
    elif name.endswith("running_mean"):
        z = 0.1 * z
    elif len(shape) > 1:
        z = z * (meta["constructor"]["gain"] / np.prod(shape[1:])) ** 0.5
    else:
        z = 1 + 0.2 * np.tanh(z) if name.endswith(".weight") else 0.1 * z
    for ending, factor in meta["constructor"]["multipliers"].items():
        z = z * factor if name.endswith(ending) else z
    return torch.from_numpy(z).float()


@pytest.mark.parametrize("trunk, dilation", [("resnet18", False), ("resnet50", True)])
def test_outputs_and_gradients_are_those_of_transformers(trunk, dilation):
    transformers = pytest.importorskip("transformers")
    shape = dict(encoder_layers=1, decoder_layers=2, num_queries=5, num_labels=7, d_model=32, dilation=dilation)
    width = dict(encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48)
    theirs = transformers.DetrForObjectDetection(transformers.DetrConfig(backbone=trunk, **shape, **width)).eval()
    generator = torch.Generator().manual_seed(0)
    images, mask = padded([torch.randn(3, *size, generator=generator) for size in ((64, 96), (90, 70))])
    randomise(theirs, lambda: theirs(images), seed=0)
    ours = create_model(
        "detr_resnet50", trunk=trunk, trunk_settings={"dilated_stages": 1} if dilation else {},
        **TINY | dict(encoder_layers=1, queries=5, hidden=48),
    ).eval()  # fmt: skip
    load_official(ours, theirs.state_dict(), "hf")
    found, expected = ours(images, mask), theirs(images, pixel_mask=(~mask).long())
    close(found.logits, expected.logits)
    close(found.boxes, expected.pred_boxes)
    probes = [torch.randn(tensor.shape, generator=generator) for tensor in (found.logits, found.boxes)]
    gradients = []
    for model, outputs in ((ours, (found.logits, found.boxes)), (theirs, (expected.logits, expected.pred_boxes))):
        loss = sum((probe * output).sum() for probe, output in zip(probes, outputs, strict=True))
        parameters = dict(model.named_parameters())
        gradients.append(dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True)))
    buffers = dict(theirs.named_buffers())  # of frozen norms; they have no gradient, and the table wants them all
    wanted = to_ours(ours_table(ours), gradients[1] | buffers, ours.state_dict())
    largest = max(float(wanted[key].abs().max()) for key in gradients[0])
    for key, gradient in gradients[0].items():
        scale = max(float(wanted[key].abs().max()), 1e-3 * largest)
        assert float((gradient - wanted[key]).abs().max()) <= 1e-4 * scale, key


def ours_table(model):
    from orchard.models.detection.detr_names import hf_names

    return hf_names(model.config)


@torch.no_grad()
def test_what_is_padding_has_no_say_in_the_transformer():
    torch.manual_seed(0)
    transformer = DetectionTransformer(DETRConfig(**TINY)).eval()
    cells, positions, queries = torch.randn(2, 12, 32), torch.randn(2, 12, 32), torch.randn(10, 32)
    visible = torch.arange(12) < torch.tensor([[12], [7]])
    states, memory = transformer(cells, positions, visible, queries)
    cells[1, 7:] += 100
    again, remembered = transformer(cells, positions, visible, queries)
    assert torch.equal(states, again) and torch.equal(memory[1, :7], remembered[1, :7])
    cells[1, :7] += 1
    assert not torch.equal(transformer(cells, positions, visible, queries)[0][:, 1], again[:, 1])


# Names and sizes


def test_names_and_shapes_are_the_official_ones(golden):
    for name in VARIANTS:
        if name == "detr_nano":
            continue
        depth = "101" if "101" in name else "50"
        stated = json.loads((golden / "detr" / f"names_detr_resnet{depth}.json").read_text())
        with torch.device("meta"):
            model = create_model(name)
            theirs = {key: torch.empty(shape) for key, shape in stated["tensors"].items()}
        ours = model.state_dict()
        found = to_ours(official_names(model.config), theirs, ours)  # which refuses any name or shape left over
        assert {key: tensor.shape for key, tensor in found.items()} == {key: t.shape for key, t in ours.items()}
        parameters = sum(parameter.numel() for parameter in model.parameters())
        assert parameters == stated["params_total"] == card_of(name).variants[name].parameters


def test_names_of_transformers_and_of_the_hub():
    with torch.device("meta"):
        model = create_model("detr_resnet50")
    table = ours_table(model)
    assert foreign_names(table, "transformer.decoder.3.cross_attention.qkv.bias")[1] == tuple(
        f"model.decoder.layers.3.encoder_attn.{part}_proj.bias" for part in "qkv"
    )
    hub = export_official(model, "hf_hub")
    assert {
        "model.backbone.conv_encoder.model.layer4.2.bn3.running_var",
        "model.encoder.layers.5.self_attn.out_proj.weight",
        "model.decoder.layers.0.fc1.weight",
        "model.decoder.layers.0.encoder_attn_layer_norm.bias",
        "bbox_predictor.layers.2.bias",
    } <= hub.keys()
    assert len(hub) == len(export_official(model, "hf"))


def test_a_checkpoint_says_how_many_classes_and_queries_it_has():
    trained = create_model("detr_resnet50", trunk_settings=TINY_TRUNK, **TINY | {"num_classes": 4, "queries": 6})
    sizes = {key: value for key, value in TINY.items() if key not in ("num_classes", "queries")}
    for source in ("official", "hf"):
        state = export_official(trained, source)
        found = read_official("detr_resnet50", state, source, {"trunk_settings": TINY_TRUNK, **sizes})
        assert found.model.config == trained.config and found.about.classes == ("0", "1", "2", "3")


def test_the_trunk_is_frozen_as_it_was_trained_and_any_classifier_will_do():
    model = create_model("detr_resnet50", trunk_settings=TINY_TRUNK, **TINY)
    assert not any("bn" in name for name, _ in model.trunk.named_parameters())
    model = create_model("detr_resnet50", trunk="vgg_nano", trunk_settings={"widths": (8, 8, 16)}, **TINY)
    assert model(torch.randn(1, 3, 40, 56)).boxes.shape == (1, 10, 4)
    model = create_model("detr_nano", trunk="vit_nano", trunk_settings={"image_size": (32, 48), "in_channels": 3})
    assert model(torch.randn(2, 3, 32, 48)).logits.shape == (2, 12, 11)
    with pytest.raises(UsageError, match="gpt2_nano has no feature maps"):
        create_model("detr_nano", trunk="gpt2_nano")
    model = create_model("detr_nano", trunk="lenet5", trunk_settings={}, in_channels=1)
    with pytest.raises(OrchardError, match="lenet5 has no rule for names of torchvision"):
        export_official(model, "official")


def test_configurations_are_plain_data():
    made = configuration("detr_resnet50", trunk_settings={"widths": [8, 16], "depths": [1, 1]})
    assert made.trunk_settings == (("depths", (1, 1)), ("widths", (8, 16)))
    again = configuration("detr_resnet50", trunk_settings=json.loads(json.dumps(made.trunk_settings)))
    assert again == made and hash(again) == hash(made)
    for wrong, message in (
        ({"norm": "no"}, "norm is one of post, pre, got 'no'"),
        ({"position": "?"}, "position is one of sine, learned"),
        ({"width": 30}, "a width of 30 does not divide"),
        ({"queries": 0}, "queries is 0, expected 1 or more"),
    ):
        with pytest.raises(UsageError, match=message):
            configuration("detr_resnet50", **wrong)


# Matching, losses and answers


def check_losses(found, targets, expected):
    """Every term of the official criterion, and which query answers for which object."""
    losses = SetCriterion()(found, targets)
    layers = len(found.auxiliary) + 1
    for n in range(layers):
        ending = "" if n == layers - 1 else f"_{n}"
        close(losses.label[n], expected[f"loss.loss_ce{ending}"])
        close(losses.l1[n], expected[f"loss.loss_bbox{ending}"])
        close(losses.giou[n], expected[f"loss.loss_giou{ending}"])
        close(losses.cardinality_error[n], expected[f"loss.cardinality_error{ending}"])
    close(losses.class_error[-1], expected["loss.class_error"])
    masks = sum(expected.get(f"loss.loss_{what}", torch.zeros(())) for what in ("mask", "dice"))
    close(losses.total, expected["loss.weighted_total"] - masks)
    matches = match(*layers_of(found), targets, MatchingCosts())
    starts = np.cumsum([0, *(len(labels) for labels in targets.labels)])
    for n in range(layers):
        name = "match" if n == layers - 1 else f"match_aux{n}"
        for picture in range(len(targets.labels)):
            mine = matches.pictures[n] == picture
            assert torch.equal(matches.queries[n][mine], expected[f"{name}.img{picture}.pred"])
            assert torch.equal(matches.objects[n][mine] - starts[picture], expected[f"{name}.img{picture}.tgt"])
    return losses


def check_answers(found, sizes, expected):
    for n, answer in enumerate(found.found(sizes)):
        close(answer.scores, expected[f"post{n}.scores"])
        assert torch.equal(answer.labels, expected[f"post{n}.labels"])
        close(answer.boxes, expected[f"post{n}.boxes"])


def test_the_criterion_and_its_gradients_are_the_official_ones(golden):
    """With a picture without objects. The case's total has losses of masks too, which are no part of detection."""
    inputs, expected = case(golden, "criterion_postprocess")
    inputs["pred_logits"].requires_grad_(), inputs["pred_boxes"].requires_grad_()
    found, targets = detections_of(inputs), targets_of(inputs, 3)
    losses = check_losses(found, targets, expected)
    logits, boxes = torch.autograd.grad(losses.total, (found.logits, found.boxes))
    close(logits, expected["grad_total.pred_logits"])
    close(boxes, expected["grad_total.pred_boxes"])
    check_answers(found, inputs["orig_sizes"], expected)
    corners = box_convert(inputs["pred_boxes"].flatten(0, 1), "cxcywh", "xyxy")
    close(
        generalized_box_iou(corners, box_convert(torch.cat(targets.boxes), "cxcywh", "xyxy")), expected["giou_matrix"]
    )


def test_a_batch_without_objects_teaches_to_say_nothing():
    found = Detections(torch.zeros(2, 3, 5, requires_grad=True), torch.rand(2, 3, 4, requires_grad=True))
    empty = Targets([torch.empty(0, dtype=torch.int64)] * 2, [torch.empty(0, 4)] * 2)
    losses = SetCriterion()(found, empty)
    assert losses.l1.item() == losses.giou.item() == losses.class_error.item() == 0
    assert losses.total.item() == pytest.approx(np.log(5))
    losses.total.backward()
    assert (found.logits.grad[..., -1] < 0).all() and not found.boxes.grad.any()


def test_more_objects_than_queries_leave_some_without_a_match():
    found = Detections(torch.zeros(1, 2, 4), torch.rand(1, 2, 4))
    crowd = Targets([torch.tensor([0, 1, 2])], [torch.tensor([[0.5, 0.5, 0.2, 0.2]]).repeat(3, 1)])
    matches = match(*layers_of(found), crowd, MatchingCosts())
    assert matches.queries.shape == (1, 2) and SetCriterion()(found, crowd).total.isfinite()


def test_a_diverged_model_is_matched_so_that_its_loss_tells():
    found = Detections(torch.full((1, 2, 4), torch.nan), torch.rand(1, 2, 4))
    target = Targets([torch.tensor([1])], [torch.tensor([[0.5, 0.5, 0.2, 0.2]])])
    assert SetCriterion()(found, target).total.isnan()
