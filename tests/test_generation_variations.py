"""What a maker asks of a generator: walks as films, sweeps, grids of mixed styles, and where a picture's styles are."""

from __future__ import annotations

import io
import math
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image

from orchard.app.answer import answer
from orchard.app.pipeline import pipeline
from orchard.data.contracts import Preprocess
from orchard.errors import OrchardError, UsageError
from orchard.inference.mp4 import mp4_bytes
from orchard.models import create_model
from orchard.tasks.unconditional_image_generation.feature_distance import LARGEST, feature_distance, reduced
from orchard.tasks.unconditional_image_generation.judge import make_judge
from orchard.tasks.unconditional_image_generation.projection import learning_rate, map_penalty, project
from orchard.tasks.unconditional_image_generation.settings import Options
from orchard.tasks.unconditional_image_generation.variations import between, check_options
from orchard.weights.portable import Portable, save_portable

CPU = torch.device("cpu")
SMALL: dict[str, dict[str, Any]] = {
    "stylegan2_nano": {"widths": (8, 6), "noise": 6, "mapping_layers": 2, "image_size": 8},
    "dcgan_nano": {"levels": 1, "generator_width": 4, "discriminator_width": 4, "noise": 6, "image_size": 8},
    "biggan_nano": {"image_size": 8, "num_classes": 3},
}


def save(name: str, folder: Path) -> Path:
    torch.manual_seed(0)
    model: Any = create_model(name, **SMALL[name])
    with torch.no_grad():
        for parameter in model.generator.parameters():  # fresh ones of some pairs make images that are all grey
            parameter.add_(0.2 * torch.randn_like(parameter))
    low, high = model.value_range
    channels = model.config.in_channels
    preprocess = Preprocess(
        size=(8, 8), mean=(-low / (high - low),) * channels, std=(1 / (high - low),) * channels, crop=1.0,
        channels=channels,
    )  # fmt: skip
    classes = tuple("abc") if hasattr(model.config, "num_classes") else ()
    task = "unconditional-image-generation"
    save_portable(folder, model, Portable(name, vars(model.config), task, classes, preprocess.to_json()))
    return folder


@pytest.fixture(scope="module")
def styled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("stylegan2_nano", tmp_path_factory.mktemp("styled") / "model")


def pixels(image: Image.Image) -> bytes:
    return image.tobytes()


def test_a_grid_has_every_pair_of_coarse_and_fine_styles(styled: Path, tmp_path: Path) -> None:
    make = pipeline(styled)
    grid = make(count=2, seed=3, grid=4)
    first, other = make(count=2, seed=3), make(count=2, seed=4)
    assert len(grid) == 8 and len({pixels(image) for image in grid}) == 8
    assert [pixels(grid[n]) for n in (0, 1)] == [pixels(image) for image in other]  # row 0
    assert [pixels(grid[n]) for n in (2, 5)] == [pixels(image) for image in first]  # column 0
    mixed = make(count=2, seed=3, mixing=4)
    assert [pixels(grid[n]) for n in (3, 7)] == [pixels(image) for image in mixed]  # 1-1 and 2-2
    all_styles = {"seed": 3, "count": 2, "layers": "0-3"}  # of the other seed, with the row's own noise maps
    assert pixels(make(grid=4, **all_styles)[3]) == pixels(make(mixing=4, **all_styles)[0]) != pixels(other[0])
    (files,) = answer(styled, [], {"count": 2, "seed": 3, "grid": 4, "out": tmp_path / "out"})
    table = files.to_json()
    assert [Path(file).name for file in table["pictures"]][:3] == ["0-1.png", "0-2.png", "1-0.png"]
    with Image.open(table["sheet"]) as sheet:
        assert sheet.size == (28, 28) and np.asarray(sheet)[:8, :8].min() == 255  # nothing in the corner
    with Image.open(table["pictures"][3]) as image:
        assert {name: image.info[name] for name in ("seed", "grid", "count", "number")} == {
            "seed": "3", "grid": "4", "count": "2", "number": "4",
        }  # fmt: skip


def test_layers_say_who_gives_which_styles(styled: Path) -> None:
    make = pipeline(styled)
    plain = pixels(make(seed=3)[0])
    by_layer = [pixels(make(seed=3, mixing=4, layers=str(layer))[0]) for layer in range(4)]
    assert all(image != plain for image in by_layer) and len(set(by_layer)) == 4
    assert pixels(make(seed=3, mixing=4, layers="2-3")[0]) == pixels(make(seed=3, mixing=4)[0])
    for layers, words in (("4", "this model has layers 0 to 3"), ("3-2", "this model has"), ("all", "such as 4-7")):
        with pytest.raises(UsageError, match=f"option 'layers' is '{layers}'; .*{words}"):
            make(mixing=4, layers=layers)


def test_a_sweep_is_each_image_at_each_truncation(styled: Path, tmp_path: Path) -> None:
    make = pipeline(styled)
    sweep = make(count=2, seed=3, sweep="0,0.5,1")
    for column, share in enumerate((0.0, 0.5, 1.0)):
        alone = make(count=2, seed=3, truncation=share)
        assert [pixels(sweep[row * 3 + column]) for row in range(2)] == [pixels(image) for image in alone]
    conditional = save("biggan_nano", tmp_path / "model")
    (files,) = answer(conditional, [], {"sweep": "0.1,1", "classes": "a,c", "count": 2, "out": tmp_path / "out"})
    names = [Path(file).name for file in files.to_json()["pictures"]]
    assert names == [f"{name}-{row}-{column}.png" for name in "ac" for row in range(2) for column in range(2)]
    for words in ("", "a", "-1", "0,nan"):
        with pytest.raises(UsageError, match=r"expected truncations such as 0,0\.5,1"):
            make(sweep=words)
    with pytest.raises(UsageError, match="option 'sweep' is 2; of a model with styles it is 0 to 1"):
        make(sweep="1,2")


def test_options_that_exclude_or_need_each_other(styled: Path, tmp_path: Path) -> None:
    make = pipeline(styled)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"walk": 1, "grid": 2, "count": 2}, "'walk' and 'grid' do not go together"),
        ({"grid": 1, "mixing": 2}, "'grid' and 'mixing' do not go together"),
        ({"sweep": "1", "truncation": 1.0}, "'sweep' and 'truncation' do not go together"),
        ({"layers": "1"}, "'layers' is for --mixing and --grid"),
        ({"animation": "mp4"}, "'animation' is the file of a walk"),
        ({"project_steps": 3}, "'project-steps' is for --project"),
    ]
    for options, words in wrong:
        with pytest.raises(UsageError, match=words):
            make(**options)
    with pytest.raises(UsageError, match="'walk' is for adversarial pairs, such as DCGAN; this model is none"):
        check_options(create_model("ddpm_nano"), Options(walk=1, count=2))
    with pytest.raises(UsageError, match="'project' is of `orchard generate`"):
        make(project="mine.png")
    with pytest.raises(UsageError, match=r"'truncation' is for models with styles, .* classes and normal noise"):
        check_options(create_model("cgan_nano"), Options(truncation=0.5))
    plain = pipeline(save("dcgan_nano", tmp_path / "model"))
    for name, value in (("grid", 1), ("sweep", "0,1"), ("latent", "x.npz"), ("project", "x.png")):
        with pytest.raises(UsageError, match=f"option '{name}' is for models with styles"):
            plain(**{name: value})


def test_any_pair_walks_from_one_seed_to_another(tmp_path: Path) -> None:
    make = pipeline(save("dcgan_nano", tmp_path / "plain"))
    walk = make(count=5, seed=1, walk=2)
    assert pixels(walk[0]) == pixels(make(seed=1)[0])
    assert np.abs(np.asarray(walk[4], float) - np.asarray(make(seed=2)[0], float)).max() <= 1
    assert len({pixels(image) for image in walk}) == 5
    make = pipeline(save("biggan_nano", tmp_path / "classes"))
    assert {image.info["class"] for image in make(count=3, walk=2)} == {"a"}  # of one class from end to end


def test_a_walk_of_normal_noise_keeps_its_length() -> None:
    torch.manual_seed(0)
    start, end = torch.randn(2, 1, 64).unbind()
    end = end / end.norm() * start.norm()
    shares = torch.linspace(0, 1, 5)
    way = between(start, end, shares, round_sphere=True)
    torch.testing.assert_close(way.norm(dim=1), start.norm().expand(5))
    torch.testing.assert_close(way[[0, 4]], torch.cat([start, end]))
    assert float(between(start, end, shares, round_sphere=False)[2].norm()) < 0.9 * float(start.norm())
    torch.testing.assert_close(between(start, start, shares, round_sphere=True), start.expand(5, -1))


# Films


def test_a_film_has_every_picture_at_a_size_that_players_show() -> None:
    av = pytest.importorskip("av")
    frames = [Image.new("L", (9, 7), 40 * n) for n in range(4)]
    content = mp4_bytes(frames, 0.1)
    assert content == mp4_bytes(frames, 0.1)
    with av.open(io.BytesIO(content)) as film:
        shown = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        assert film.streams.video[0].average_rate == 10
    assert [one.shape for one in shown] == [(7 * 37 + 1, 9 * 37 + 1, 3)] * 4  # 37 times as large, and even
    assert [abs(int(one.mean()) - 40 * n) <= 2 for n, one in enumerate(shown)] == [True] * 4


def test_a_walk_becomes_the_film_that_is_asked_for(styled: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    options = {"count": 3, "walk": 7, "animation": "mp4", "out": tmp_path / "out"}
    (files,) = answer(styled, [], options)
    assert Path(files.to_json()["animation"]).name == "walk.mp4" and (tmp_path / "out" / "walk.mp4").stat().st_size > 0
    with pytest.raises(UsageError, match="of an earlier call"):
        list(answer(styled, [], options))


def test_without_the_library_a_film_is_refused_before_images_are_made(styled: Path, tmp_path: Path) -> None:
    options = {"count": 3, "walk": 7, "animation": "mp4", "out": tmp_path / "out"}
    with patch.dict(sys.modules, {"av": None}), pytest.raises(UsageError, match=r"pip install 'orchard\[video\]'"):
        list(answer(styled, [], options))
    assert not (tmp_path / "out").exists()


# Projection


def test_the_learning_rate_rises_in_a_line_and_falls_in_half_a_cosine() -> None:
    found = [learning_rate(done) for done in (0, 0.025, 0.05, 0.5, 0.75, 0.875, 1)]
    assert found == pytest.approx([0, 0.05, 0.1, 0.1, 0.1, 0.05, 0], abs=1e-12)


def test_noise_maps_pay_for_neighbours_that_are_alike() -> None:
    level = torch.arange(4.0).view(1, 1, 2, 2)  # 0 1 / 2 3
    across, down = (0 * 1 + 2 * 3) * 2 / 4, (0 * 2 + 1 * 3) * 2 / 4
    assert float(map_penalty([level])) == pytest.approx(across**2 + down**2)
    torch.manual_seed(0)
    noise = torch.randn(1, 1, 32, 32)
    smooth = torch.nn.functional.avg_pool2d(noise, 3, 1, 1) * 3
    assert float(map_penalty([noise])) < 0.05 * float(map_penalty([smooth]))
    blocks = torch.randn(1, 1, 16, 16).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert float(map_penalty([blocks])) > 10 * float(map_penalty([noise]))


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_as_far_apart_as_they_differ(channels: int) -> None:
    judge = make_judge(None, channels, CPU)
    torch.manual_seed(0)
    image = torch.rand(1, channels, 16, 16)
    near, far = (image + s * torch.randn_like(image) for s in (0.02, 0.2))
    assert float(feature_distance(judge, image, image)) == 0
    assert 0 < float(feature_distance(judge, image, near)) < 0.5 * float(feature_distance(judge, image, far))
    flat = [torch.full((1, channels, 16, 16), value) for value in (0.2, 0.4)]
    assert float(feature_distance(judge, *flat)) >= 0.04 - 1e-6
    assert reduced(torch.rand(1, 1, 1024, 1024)).shape == (1, 1, LARGEST, LARGEST)


def test_a_style_is_found_again_from_its_image() -> None:
    torch.manual_seed(0)
    pair: Any = create_model("stylegan2_nano", **SMALL["stylegan2_nano"]).eval()
    with torch.no_grad():
        wanted = pair.synthesise(pair.latents(torch.randn(1, 6)))
        mean = pair.synthesise(pair.mean_latent().expand(1, pair.layers, -1))
    before = float((mean - wanted).square().mean())

    def distance(image: torch.Tensor) -> torch.Tensor:
        return (image - wanted).square().mean() / before

    seen: list[int] = []
    found = project(pair, distance, 120, seen.append)
    assert seen == list(range(1, 121))
    with torch.no_grad():
        assert float(distance(pair.synthesise(found.styles, found.maps))) < 0.05
    assert all(parameter.grad is None for parameter in pair.parameters())
    again = project(pair, distance, 120)
    assert torch.equal(found.styles, again.styles)
    for level in found.maps:
        assert math.isclose(float(level.square().mean()), 1, rel_tol=1e-4) and abs(float(level.mean())) < 1e-5


def test_a_picture_is_projected_and_its_latent_taken_on(styled: Path, tmp_path: Path) -> None:
    make = pipeline(styled)
    make(seed=9)[0].save(tmp_path / "mine.png")
    options = {"project": tmp_path / "mine.png", "project_steps": 30, "out": tmp_path / "out"}
    (said,) = answer(styled, [], options)
    table = said.to_json()
    assert table["psnr"] > 12 and table["steps"] == 30 and table["features"] == "fixed random weights"
    assert f"PSNR {table['psnr']:.2f} dB" in said.sentence
    with Image.open(table["target"]) as target, Image.open(tmp_path / "mine.png") as mine:
        assert pixels(target) == pixels(mine)
    latent = table["latent"]
    with Image.open(table["projected"]) as projected:
        assert pixels(make(latent=latent)[0]) == pixels(projected)
        assert pixels(make(latent=latent, walk=3, count=4)[0]) == pixels(projected)
        assert pixels(make(latent=latent, mixing=4)[0]) != pixels(projected)
    with Image.open(table["sheet"]) as sheet:
        assert sheet.size == (18, 8)
    with pytest.raises(OrchardError, match="has 1 image; 2 are asked for"):
        make(latent=latent, count=2)
    np.savez(tmp_path / "other.npz", styles=np.zeros((1, 2, 6)))
    with pytest.raises(OrchardError, match=r"'styles' is \(1, 2, 6\); this model has \(N, 4, 6\)"):
        make(latent=tmp_path / "other.npz")
    (tmp_path / "no.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(OrchardError, match=r"no\.npz is no \.npz file of latents"):
        make(latent=tmp_path / "no.npz")
    with pytest.raises(OrchardError, match=r"no\.npz: "):
        list(answer(styled, [], {**options, "project": tmp_path / "no.npz", "out": tmp_path / "new"}))
