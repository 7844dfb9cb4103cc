"""Words to pictures: the same ones in any company, completed from above, in tables that are gone on with."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from painters import save_painter, save_tokenizer
from PIL import Image

import orchard
from orchard.data.captions import CaptionSettings, open_captions
from orchard.errors import OrchardError, UsageError
from orchard.files import locked
from orchard.inference.loading import load
from orchard.inference.png_files import png_bytes, save_picture, sheet
from orchard.inference.sampling import Sampling
from orchard.tasks.text_to_image import files as painted_files
from orchard.tasks.text_to_image.files import generate_table, read_picture
from orchard.tasks.text_to_image.pipeline import ROWS, TextToImagePipeline
from orchard.tasks.text_to_image.preview import Progress
from orchard.tasks.zero_shot_image_classification.matcher import Ranking

PROMPTS = ["a red", "apple", "the", "digit"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_painter(tmp_path_factory.mktemp("painter"))


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> TextToImagePipeline:
    return TextToImagePipeline(folder)


def test_a_picture_is_the_same_alone_and_in_any_company(pipeline: TextToImagePipeline) -> None:
    together = list(pipeline.generate(PROMPTS, count=3, seed=5))  # more than fit side by side
    assert len(together) == 12 > ROWS
    assert len({tuple(one.codes.tolist()) for one in together}) > 6
    for one in together:
        alone = list(pipeline.generate([one.prompt], count=one.candidate + 1, seed=5))[-1]
        assert torch.equal(alone.codes, one.codes)
        assert png_bytes(alone.picture) == png_bytes(one.picture)
    other = list(pipeline.generate(PROMPTS, count=3, seed=6))
    assert any(not torch.equal(a.codes, b.codes) for a, b in zip(together, other, strict=True))


@pytest.mark.parametrize("variant", ["painter_nano", "dalle_nano"])
def test_codes_are_those_of_the_plain_model(variant: str, tmp_path: Path) -> None:
    sizes = {"head_width": 12, "attention": ("full", "axial_row")} if variant == "dalle_nano" else {}
    pipeline = TextToImagePipeline(save_painter(tmp_path, variant, (12, 12), **sizes))
    (painted,) = pipeline.generate(["apple"], sampling=Sampling(temperature=0))
    model: Any = load(tmp_path).model
    tokens = model.prompt(torch.tensor([pipeline.ids.row("apple")[0]]))
    for code in painted.codes.tolist():
        logits = model.code_logits(model(tokens)[:, -1])
        assert int(logits.argmax()) == code
        tokens = torch.cat([tokens, model.code_tokens(torch.tensor([[code]]))], dim=1)


def test_pictures_say_where_they_come_from(pipeline: TextToImagePipeline, tmp_path: Path) -> None:
    (picture,) = pipeline("the 狗", seed=3)
    save_picture(picture, tmp_path / "new" / "one.png")
    with Image.open(tmp_path / "new" / "one.png") as found:
        assert found.size == (16, 12)
        assert found.mode == "L"
        assert found.text["prompt"] == "the 狗"  # type: ignore[attr-defined]
        assert found.text["seed"] == "3"  # type: ignore[attr-defined]
        assert found.text["model_hash"] == pipeline.fingerprint  # type: ignore[attr-defined]
        assert found.text["version"].startswith("orchard ")  # type: ignore[attr-defined]
        assert found.text["sampling"] == "temperature 1.0, top_k 2, repetition_penalty 1.0, fp32"  # type: ignore[attr-defined]
    with pytest.raises(OrchardError, match=r"one\.png.*cannot be written"):
        save_picture(picture, tmp_path / "new" / "one.png" / "two.png")


def test_pipeline_by_task(folder: Path) -> None:
    (picture,) = orchard.pipeline("text-to-image", folder)("a red apple")
    assert isinstance(picture, Image.Image)
    assert [len(group) for group in orchard.pipeline(folder)(PROMPTS, count=2)] == [2, 2, 2, 2]
    with pytest.raises(UsageError, match="is for text-to-image, not for text-generation"):
        orchard.pipeline("text-generation", folder)
    with pytest.raises(UsageError, match="unknown task"):
        orchard.pipeline("text-to-picture", folder)
    with pytest.raises(UsageError, match="which has no pipeline"):
        orchard.pipeline(folder / "picture_tokenizer")


def test_what_is_wrong_with_prompts_is_said(folder: Path) -> None:
    said: list[str] = []
    pipeline = TextToImagePipeline(folder, say=said.append)
    pipeline("the digit a red apple")
    assert said == ["a prompt of 21 tokens is longer than the 8 that are read; kept: 'the digi'"]
    pipeline("狗 a")
    assert said[1] == "'狗 a': this model has never seen '狗'"
    with pytest.raises(UsageError, match="prompt 2 is empty"):
        pipeline(["a", " "])
    with pytest.raises(UsageError, match="expected 1 or more"):
        pipeline("a", count=0)


def test_what_does_not_belong_together_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is for image-tokenization; it paints nothing"):
        TextToImagePipeline(folder / "picture_tokenizer")
    save_painter(tmp_path)
    save_tokenizer(tmp_path / "picture_tokenizer", seed=7)
    with pytest.raises(OrchardError, match="is not the picture tokenizer that painter_nano was trained with"):
        TextToImagePipeline(tmp_path)
    with pytest.raises(OrchardError, match="there is no code 16: "):
        TextToImagePipeline(folder).tokenizer.draw(torch.full((12,), 16))


def test_a_picture_is_completed_from_its_upper_part(pipeline: TextToImagePipeline) -> None:
    rng = np.random.default_rng(0)
    upper = Image.fromarray(rng.integers(0, 256, (9, 16), np.uint8))  # two whole rows of codes and a quarter
    painted = list(pipeline.complete(upper, "a red apple", count=2))
    kept = pipeline.tokenizer.upper_codes(upper)
    assert len(kept) == 8
    for one in painted:
        assert torch.equal(one.codes[:8], kept)
        assert one.picture.size == (16, 12)
        assert one.picture.info["completed"] == "8 codes given"
    assert len(pipeline.tokenizer.upper_codes(upper.resize((32, 18)))) == 8  # at the width of the whole
    for size in ((16, 12), (16, 3), (100, 1)):
        with pytest.raises(UsageError, match="expected at least one row, and one that is left to paint"):
            next(pipeline.complete(upper.resize(size), "a"))


def test_somebody_who_waits_sees_pictures_grow(pipeline: TextToImagePipeline) -> None:
    seen: list[Progress] = []
    pictures = pipeline(["a", "the"], count=5, watch=seen.append)
    assert [growth.told for growth in seen] == list(range(1, 13)) * 2
    assert [(growth.first, growth.count) for growth in seen[::12]] == [(0, 8), (8, 2)]
    last = seen[-1].previews
    assert last is not None
    assert [np.array_equal(a, b) for a, b in zip(last, pictures[1][3:], strict=True)] == [True, True]
    early = seen[0].previews
    assert early is None or np.asarray(early[0])[:4, 4:].tolist() == [[128] * 12] * 4


class Reversed:
    """A judge that likes later candidates better."""

    def rank_pictures(self, pictures: torch.Tensor, text: str) -> Ranking:
        count = len(pictures)
        return Ranking(torch.arange(count - 1, -1, -1), torch.linspace(1, 0, count))


def test_candidates_are_ranked(folder: Path) -> None:
    pipeline = TextToImagePipeline(folder)
    plain = pipeline("a red", count=3)
    pipeline.matcher = Reversed()  # type: ignore[assignment]
    ranked = pipeline.rank(list(pipeline.generate(["a red"], count=3)))
    assert [one.candidate for one in ranked] == [2, 1, 0]
    assert ranked[0].score == 1
    assert np.array_equal(pipeline("a red", count=3)[0], plain[2])


def table(count: int) -> list[tuple[str, str]]:
    return [(str(n), ("a red", 'the "digit"', '"apple')[n % 3]) for n in range(count)]


def test_a_table_is_gone_on_with_wherever_it_was_cut(pipeline: TextToImagePipeline, tmp_path: Path) -> None:
    prompts = table(11)
    assert generate_table(pipeline, prompts, tmp_path / "whole.tsv", seed=2) == 11
    whole = (tmp_path / "whole.tsv").read_bytes()
    data = open_captions(str(tmp_path / "whole.tsv"), CaptionSettings())
    read = sorted((split.idx(n), split.text(n)) for split in data.splits.values() for n in range(len(split)))
    assert read == sorted(prompts)
    ends = [n for n, byte in enumerate(whole) if byte == ord("\n")]
    for cut in (0, 5, ends[2] + 1, ends[7] + 4, ends[9] - 1, len(whole)):
        (tmp_path / "cut.tsv").write_bytes(whole[:cut])
        left = 11 - whole[:cut].count(b"\n")
        assert generate_table(pipeline, prompts, tmp_path / "cut.tsv", seed=2) == left
        assert (tmp_path / "cut.tsv").read_bytes() == whole


def test_a_table_of_something_else_is_left_alone(pipeline: TextToImagePipeline, tmp_path: Path) -> None:
    out = tmp_path / "out.tsv"
    generate_table(pipeline, table(3), out)
    before = out.read_bytes()
    with pytest.raises(UsageError, match="line 2 is not for prompt 2 of these"):
        generate_table(pipeline, [("0", "a red"), ("1", "apple")], out)
    with pytest.raises(UsageError, match="was begun with seed 0, not 1"):
        generate_table(pipeline, table(4), out, seed=1)
    with pytest.raises(UsageError, match="begun with sampling temperature"):
        generate_table(pipeline, table(4), out, sampling=replace(pipeline.sampling, temperature=0.5))
    with pytest.raises(UsageError, match="name a CLIP"):
        generate_table(pipeline, table(4), out, count=2)
    assert out.read_bytes() == before
    for notes in ("remember the milk", "remember\n", "0\ta red\tnotes of mine, not pictures"):
        (tmp_path / "notes.txt").write_text(notes)
        with pytest.raises(UsageError, match="line 1 is not for prompt 1"):
            generate_table(pipeline, table(3), tmp_path / "notes.txt")
        assert (tmp_path / "notes.txt").read_text() == notes
    with (tmp_path / "more.tsv").open("wb") as file:
        file.write(before + b"and a word of mine")
    with pytest.raises(UsageError, match="line 4 is not for prompt 4"):
        generate_table(pipeline, table(3), tmp_path / "more.tsv")
    with locked(out, ""), pytest.raises(OrchardError, match="another process is writing"):
        generate_table(pipeline, table(4), out)
    assert out.read_bytes() == before


def test_a_full_disk_loses_nothing(
    pipeline: TextToImagePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = tmp_path / "out.tsv", painted_files.write_whole
    lines = 0

    def full(file: io.FileIO, data: bytes) -> None:
        nonlocal lines
        lines += 1
        if lines == 4:
            file.write(data[:10])
            raise OSError(28, "No space left on device")
        whole(file, data)

    monkeypatch.setattr(painted_files, "write_whole", full)
    with pytest.raises(OrchardError, match="No space left on device; its lines are whole, and"):
        generate_table(pipeline, table(6), out)
    assert out.read_bytes().count(b"\n") == 3
    assert out.read_bytes().endswith(b"\n")
    assert generate_table(pipeline, table(6), out) == 3
    assert generate_table(pipeline, table(6), out) == 0


def test_sheets_and_files(pipeline: TextToImagePipeline, tmp_path: Path) -> None:
    pictures = pipeline("a red apple", count=5)
    whole = sheet(pictures)
    assert whole.size == (3 * 18 - 2, 2 * 14 - 2)
    assert "candidate" not in whole.info
    assert np.array_equal(np.asarray(whole)[14:, :16], pictures[3])
    (tmp_path / "no.png").write_text("no picture")
    with pytest.raises(OrchardError, match=r"no\.png: not a picture"):
        read_picture(tmp_path / "no.png")
    assert json.dumps(whole.info)
