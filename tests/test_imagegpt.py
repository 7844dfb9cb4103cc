"""Image GPT and its palette: names at full size, losses, decoding, quantisation."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from orchard.data.palette import FILE, Palette, fit_palette, read_palette
from orchard.errors import OrchardError
from orchard.inference.decoding import Decoder
from orchard.models import create_model, landmark_of
from orchard.models.generation.imagegpt import ImageGPT, ImageGPTConfig
from orchard.weights.golden import GOLDEN
from orchard.weights.names import to_theirs
from orchard.weights.official import export_official, load_official

CASES = GOLDEN / "imagegpt"
SMALL = {"width": 16, "depth": 2, "heads": 2, "vocabulary": 5, "image_size": 4}


def grown(**changes: object) -> ImageGPT:
    """A small model whose head is not zero."""
    torch.manual_seed(0)
    model = ImageGPT(ImageGPTConfig(**{**SMALL, **changes})).eval()  # type: ignore[arg-type]
    torch.nn.init.normal_(model.head.weight)
    return model


@pytest.mark.parametrize("size", "sml")
def test_names_and_shapes_are_those_of_openais_checkpoints(size: str) -> None:
    expected = json.loads((CASES / f"names_igpt_{size}.json").read_text())
    with torch.device("meta"):
        model = create_model(f"imagegpt_{size}")
    theirs = to_theirs(landmark_of("imagegpt_s").names["openai"](model.config), model.state_dict())
    assert {name: list(tensor.shape) for name, tensor in theirs.items()} == expected["tensors"]
    assert sum(one.numel() for one in model.parameters()) == expected["params_total"]


def test_biases_of_transformers_are_zeros_where_ours_has_none() -> None:
    theirs = export_official(grown(), "hf")
    assert not theirs["transformer.h.0.mlp.c_fc.bias"].any()
    theirs["transformer.h.0.mlp.c_fc.bias"] += 1
    with pytest.raises(OrchardError, match="biases that are not zero; build the model with bias=True"):
        load_official(grown(), theirs, "hf")


def test_loss_and_classifier_of_transformers() -> None:
    case = load_file(CASES / "hf_causal" / "io.safetensors")
    state = load_file(CASES / "hf_causal" / "params.safetensors")
    score = state.pop("classifier_score.weight")
    model = ImageGPT(ImageGPTConfig(32, 3, 4, vocabulary=20, image_size=4, bias=True)).eval()
    load_official(model, state, "hf")
    logits = model(case["in.input_ids"])
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), case["in.labels"][:, 1:].flatten())
    torch.testing.assert_close(loss, case["out.loss"], atol=1e-5, rtol=1e-5)
    found = model.layer_features(case["in.input_ids"])[:, -1] @ score.T
    torch.testing.assert_close(found, case["out.classification_logits"], atol=1e-5, rtol=1e-5)


def test_a_causal_model_sees_no_later_pixel_and_another_sees_all_but_the_masked() -> None:
    model, colours = grown(), torch.zeros(1, 16, dtype=torch.int64)
    changed = colours.clone()
    changed[0, 7] = 3
    same = (model(model.as_input(colours)) == model(model.as_input(changed))).all(-1)[0]
    assert same[:8].all() and not same[8:].any()
    other = grown(causal=False)
    assert not (other(colours) == other(changed)).all(-1).any()
    masked = torch.arange(16) == 7
    assert torch.equal(*(other(one.masked_fill(masked, other.config.special)) for one in (colours, changed)))


def test_decoding_with_a_cache_gives_the_logits_of_recomputing() -> None:
    model = grown()
    colours = torch.randint(5, (3, 16), generator=torch.Generator().manual_seed(1))
    expected = model(model.as_input(colours))
    decoder = Decoder(model, 3, 16, precision="fp32", compiled=False)
    found = [decoder.prefill([[5, *row] for row in colours[:, :8].tolist()])]
    found += [decoder.decode_step(F.pad(colours[:, n], (0, decoder.rows - 3))) for n in range(8, 15)]
    torch.testing.assert_close(torch.stack([one[:3] for one in found], 1), expected[:, 8:], atol=1e-5, rtol=1e-5)


def test_quantisation_is_openais() -> None:
    case = load_file(CASES / "color_quantize" / "io.safetensors")
    palette = Palette(case["in.clusters"])
    tokens = palette.quantize(case["in.images"].permute(0, 3, 1, 2))
    assert torch.equal(tokens, case["out.tokens"].flatten(1))
    assert torch.equal(palette.decode(tokens), case["out.decoded_uint8"].permute(0, 3, 1, 2))


def test_a_palette_is_made_of_the_pixels_and_comes_back(tmp_path: Path) -> None:
    levels = torch.linspace(-1, 1, 17)
    images = levels[torch.randint(17, (50, 1, 8, 8), generator=torch.Generator().manual_seed(0))]
    assert torch.equal(fit_palette(images, 100, seed=0).colours[:, 0], levels)  # no more than there are
    few = fit_palette(images, 4, seed=0)
    assert len(few) == 4 and few.colours.diff(dim=0).min() > 0
    assert torch.equal(few.colours, fit_palette(images, 4, seed=0).colours)
    few.save(tmp_path)
    assert torch.equal(read_palette(tmp_path / FILE).colours, few.colours)


def test_a_file_that_is_no_palette_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "processor.json").write_text(json.dumps({"clusters": [[-1, 0, 1], [1, 1, 1]]}))
    assert read_palette(tmp_path / "processor.json").colours.shape == (2, 3)
    (tmp_path / "words.npy").write_text("red, green")
    np.save(tmp_path / "bytes.npy", np.full((4, 3), 255))
    np.save(tmp_path / "flat.npy", np.zeros(9))
    np.save(tmp_path / "nan.npy", np.full((4, 3), np.nan))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    for name in ("words", "bytes", "flat", "nan", "objects", "absent"):
        with pytest.raises(OrchardError, match=f"{name}.npy (is no palette: expected|cannot be read)") as caught:
            read_palette(tmp_path / f"{name}.npy")
        assert "\n" not in str(caught.value)
