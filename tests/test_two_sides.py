"""Pictures of two sides: layouts, what does not fit, and batches that treat a pair alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from orchard.data.contracts import Preprocess
from orchard.data.digests import digests_of
from orchard.data.kinds import kind_named
from orchard.data.settings import AnySource, Source
from orchard.data.two_sides.check import check_pairs, check_unpaired
from orchard.data.two_sides.contracts import TwoSidesData
from orchard.data.two_sides.loader import SidesLoader, evaluation_pictures
from orchard.data.two_sides.sources import open_pairs, open_unpaired
from orchard.errors import OrchardError, UsageError

PLAIN = Preprocess((8, 8), 3, (0.5,) * 3, (0.5,) * 3, interpolation="nearest")


def picture(seed: int, width: int = 12, height: int = 10, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def folders(root: Path, a: str, b: str, count: int = 8, first: int = 0) -> Path:
    """Pairs of which B is the negative of A."""
    for n in range(first, first + count):
        image = picture(n)
        save(root / a / f"{n}.png", image)
        save(root / b / f"{n}.png", Image.eval(image, lambda level: 255 - level))
    return root


def opened(root: Path, paired: bool = True, **settings: Any) -> TwoSidesData:
    return (open_pairs if paired else open_unpaired)(str(root), Source(source=str(root), **settings))


@pytest.mark.parametrize(
    ("a", "b"),
    [("A", "B"), ("trainA", "trainB"), ("A/train", "B/train"), ("train/A", "train/B"), ("train_A", "train_B")],
)
def test_two_folders_of_any_layout_are_the_same_pairs(tmp_path: Path, a: str, b: str) -> None:
    data = opened(folders(tmp_path, a, b))
    assert data.splits.keys() >= {"train", "validation"}
    assert sum(map(len, data.splits.values())) == 8 and data.channels == (3, 3)
    for split in data.splits.values():
        for n in range(len(split)):
            assert torch.equal(split.a.image(n), 255 - split.b.image(n))
    assert len(digests_of(data.splits["train"])) == len(data.splits["train"])


def test_a_test_of_its_own_and_zip_archives(tmp_path: Path) -> None:
    import shutil

    root = folders(tmp_path / "set", "trainA", "trainB")
    folders(root, "testA", "testB", 3, first=20)
    data = opened(root)
    assert len(data.splits["test"]) == 3 and data.splits["test"].key(0).endswith("testA/20.png")
    shutil.make_archive(str(tmp_path / "set"), "zip", root)
    packed = opened(tmp_path / "set.zip")
    assert packed.fingerprint == data.fingerprint


def test_side_by_side_is_cut_in_the_middle(tmp_path: Path) -> None:
    for n in range(8):
        both = Image.new("RGB", (24, 10))
        both.paste(picture(n), (0, 0))
        both.paste(picture(n + 100), (12, 0))
        save(tmp_path / f"{n}.png", both)
    data = opened(tmp_path)
    split = data.splits["train"]
    number = int(Path(split.key(0)).stem)
    expected = [torch.from_numpy(np.array(picture(n))).permute(2, 0, 1) for n in (number, number + 100)]
    assert torch.equal(split.a.image(0), expected[0]) and torch.equal(split.b.image(0), expected[1])
    assert split.a.sizes[0].tolist() == [10, 12]
    save(tmp_path / "odd.png", picture(1, width=23))
    with pytest.raises(OrchardError, match=r"1 of 9 pictures are no two pictures side by side: odd.png: is 23 pixels"):
        opened(tmp_path)
    assert len(opened(tmp_path, bad_records="skip").problems) == 1


def test_what_has_no_pair_is_named(tmp_path: Path) -> None:
    root = folders(tmp_path, "A", "B")
    (root / "B/3.png").unlink()
    with pytest.raises(OrchardError, match=r"1 of 15 pictures have no pair: A/3.png: no picture of its name on side B"):
        opened(root)
    assert sum(map(len, opened(root, bad_records="skip").splits.values())) == 7
    save(root / "B/3.png", picture(3, width=11))
    with pytest.raises(OrchardError, match=r"B/3.png: is 11x10 pixels, A/3.png is 12x10"):
        opened(root)


def test_a_side_without_pictures_and_one_without_a_folder(tmp_path: Path) -> None:
    root = folders(tmp_path, "trainA", "other")
    for paired in (True, False):
        with pytest.raises(OrchardError, match=r"has not a folder for side B; expected folders A and B"):
            opened(root, paired)
    (root / "trainB").mkdir()
    for paired in (True, False):
        with pytest.raises(OrchardError, match=r"the folder of side B in .* has no pictures"):
            opened(root, paired)
    with pytest.raises(UsageError, match=r"there is no file or folder '.*nowhere'; expected folders A and B"):
        opened(tmp_path / "nowhere", paired=False)
    with pytest.raises(OrchardError, match=r"has not folders of two sides"):
        opened(root / "trainA", paired=False)


def test_unpaired_sides_may_differ_in_number_but_share_nothing(tmp_path: Path) -> None:
    root = folders(tmp_path, "trainA", "trainB")
    for n in range(30, 42):
        save(root / f"trainB/more_{n}.png", picture(n, width=20))
    save(root / "testA/x.png", picture(90))
    data = opened(root, paired=False)
    assert len(data.splits["train"]) == len(data.splits["train"].b) > len(data.splits["train"].a)
    assert "test" not in data.splits and any("pictures of side A alone" in one.what for one in data.problems)
    save(root / "trainB/again.png", picture(2))
    with pytest.raises(OrchardError, match=r"trainB/again.png: the same picture as trainA/2.png\ntake them out of one"):
        opened(root, paired=False)
    left = opened(root, paired=False, bad_records="skip")
    names = [name for split in left.splits.values() for side in (split.a, split.b) for name in side.names]
    assert not {"trainA/2.png", "trainB/again.png"} & set(names)


def test_other_modes_are_converted_and_said(tmp_path: Path) -> None:
    root = folders(tmp_path, "A", "B")
    save(root / "A/1.png", picture(1, mode="L"))
    save(root / "B/2.png", picture(2, mode="RGBA").resize((12, 10)))
    clear = picture(5, mode="RGBA")
    clear.putalpha(0)
    save(root / "B/5.png", clear)
    data = opened(root)
    assert data.remarks[0] == "1 of 8 pictures of side A are grey, and become RGB as the others are"
    assert "side B are transparent in part: made white" in data.remarks[1]
    for n in range(8):
        save(root / f"A/{n}.png", picture(n, mode="L"))
    data = opened(root)
    assert data.channels == (1, 3) and len(data.remarks) == 1


def test_a_pair_is_varied_alike_and_strangers_are_not(tmp_path: Path) -> None:
    root = folders(tmp_path, "A", "B", count=20)
    split = opened(root).splits["train"]
    how: dict[str, Any] = {"enlarge": 1.25, "flip": True, "batch_size": 4, "seed": 3, "workers": 0}
    loader = SidesLoader(split, (PLAIN, PLAIN), **how)
    batch = loader.batch(0, 1)
    assert batch.a.shape == (4, 3, 8, 8) and torch.allclose(batch.a, -batch.b, atol=1e-6)
    again = SidesLoader(split, (PLAIN, PLAIN), **how).batch(0, 1)
    assert torch.equal(batch.a, again.a) and torch.equal(batch.indices, again.indices)
    assert not torch.equal(batch.a, loader.batch(1, 1).a)
    mirrored = SidesLoader(split, (PLAIN, PLAIN), **how | {"flip": False}).batch(0, 1)
    same = [bool(torch.equal(one, other)) for one, other in zip(batch.a, mirrored.a, strict=True)]
    turned = [bool(torch.equal(one, other.flip(-1))) for one, other in zip(batch.a, mirrored.a, strict=True)]
    assert all(one != other for one, other in zip(same, turned, strict=True)) and any(turned)
    alone = opened(root, paired=False).splits["train"]
    batch = SidesLoader(alone, (PLAIN, PLAIN), **how).batch(0, 1)
    assert batch.a.shape == batch.b.shape and not torch.allclose(batch.a, -batch.b, atol=0.1)
    middle = evaluation_pictures(split.a, np.array([0, 1]), PLAIN)
    assert middle.shape == (2, 3, 8, 8) and middle.dtype == torch.uint8


def recognised(root: Path) -> list[str]:
    """Of the two kinds those that say it is theirs; to ask all others would take seconds."""
    found = [kind_named(name) for name in ("picture-pairs", "unpaired-pictures")]
    return [kind.name for kind in found if kind.load(kind.recognise)(str(root))]


def test_data_check_reports_and_recognises(tmp_path: Path) -> None:
    root = folders(tmp_path / "pairs", "trainA", "trainB")
    assert recognised(root) == ["picture-pairs"]
    (root / "trainB/3.png").unlink()
    report = check_pairs(str(root), AnySource(source=str(root)))
    assert sum(counts["pairs"] for counts in report.counts.values()) == 7
    assert report.facts["width of A, pixels (smallest, median, largest)"] == [12, 12, 12]
    assert report.problems == ("trainA/3.png: no picture of its name on side B",)
    alone = tmp_path / "alone"
    for n in range(6):
        save(alone / f"trainA/horse{n}.png", picture(n))
        save(alone / f"trainB/zebra{n}.png", picture(n + 50, mode="L"))
    assert recognised(alone) == ["unpaired-pictures"]
    report = check_unpaired(str(alone), AnySource(source=str(alone)))
    assert sum(counts["A"] for counts in report.counts.values()) == 6 and report.facts["colour of B"] == "grey"
    assert check_pairs(str(alone), AnySource(source=str(alone))) == report  # as cyclegan's --model asks for it
    folders(tmp_path / "classes", "A", "B")
    assert not recognised(tmp_path / "classes")  # two classes are as likely
