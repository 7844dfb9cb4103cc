"""Stage two: captions and codes in, a model that paints out. Small painters on the embedded digits and on a TSV."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from orchard.app.train import resolve_training, train
from orchard.data.captions import CaptionSettings, open_captions, write_row
from orchard.data.contracts import Preprocess
from orchard.data.settings import CaptionSource, TextSettings
from orchard.data.text_tokenizer import make_text_tokenizer
from orchard.errors import OrchardError, UsageError
from orchard.inference.loading import load
from orchard.models import create_model
from orchard.report.pictures import record_uri
from orchard.tasks.image_tokenization.image_tokenizer import ImageTokenizer, read_image_tokenizer
from orchard.tasks.text_to_image.caption_ids import CaptionIds
from orchard.tasks.text_to_image.encoded_captions import encode_split
from orchard.tasks.text_to_image.job import evaluate_loaded, settle_text_length
from orchard.weights.portable import Portable, architecture_of, fingerprint_of, save_portable

SMALL: dict[str, Any] = {
    "architecture.width": 32,
    "architecture.depth": 1,
    "architecture.heads": 2,
    "batch_size": 8,
    "epochs": 2,
    "checkpoint_minutes": 0,
    "checkpoint_steps": 2,
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCHARD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stage one without a training: codes say little, but always the same."""
    folder = tmp_path_factory.mktemp("tokenizer")
    torch.manual_seed(0)
    model = create_model("vqvae_nano", width=8, code_width=4, codes=16, image_size=12, in_channels=1)
    preprocess = Preprocess((12, 12), 1, (0.5,), (0.5,), resize="stretch").to_json()
    about = Portable("vqvae_nano", architecture_of(model), "image-tokenization", preprocess=preprocess)
    save_portable(folder, model, about)
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "dots.tsv"
    rng = np.random.default_rng(0)
    texts = ("一个黑点", "白色的点", "a grey dot that is described at great length indeed", "a dot")
    rows = [
        write_row(str(n), texts[n % 4], Image.fromarray(rng.integers(0, 256, (12, 12), np.uint8))) for n in range(60)
    ]
    path.write_text("".join(rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(table: Path, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    train("painter_nano", str(table), out, tokenizer=str(tokenizer), **SMALL)
    return out


class Pictures(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.pictures += tag == "img"
        if tag not in ("img", "meta", "link", "br", "line", "path", "circle", "rect", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag


def test_run_has_model_tokenizers_and_report(run: Path, table: Path, tokenizer: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert 0 < metrics["test"]["bits_per_code"] < 5
    loaded = load(run)
    stage_one = load(run / "model" / "picture_tokenizer")
    assert loaded.facts["picture_tokenizer"] == fingerprint_of(stage_one.model) == fingerprint_of(load(tokenizer).model)
    assert loaded.facts["grid"] == [3, 3]
    config = loaded.model.config
    assert (config.codes, config.image_length, config.text_length) == (16, 9, 51)
    assert (run / "model" / "text_tokenizer" / "text.json").is_file()
    page = Pictures()
    page.feed((run / "report.html").read_text())
    test = open_captions(str(table), CaptionSettings()).splits["test"]
    different = len({test.text(n) for n in range(len(test))})
    assert page.pictures == 4 * different  # each caption painted three times beside its true picture
    assert record_uri(test, 0) in (run / "report.html").read_text()  # as it is stored, not as the tokenizer draws it
    assert not page.open
    assert "https:" not in (run / "report.html").read_text()


def test_long_captions_are_cut_with_one_warning(
    table: Path, tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = SMALL | {"max_steps": 1, "text.length": 32}
    train("painter_nano", str(table), tmp_path / "run", tokenizer=str(tokenizer), **settings)
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1 and "captions are longer than 32 tokens" in warnings[0]
    assert "the longest has 51" in warnings[0]


def test_the_length_of_captions_is_chosen_from_them_and_stays(
    run: Path, table: Path, tokenizer: Path, tmp_path: Path
) -> None:
    row = json.loads((run / "settings.json").read_text())["text.length"]
    assert row == {"value": 51, "origin": "chosen: so long are 99.5% of the training captions at most"}
    assert json.loads((run / "run.json").read_text())["requested"]["text"]["length"] is None
    resolved, _ = resolve_training("painter_nano", "digits", {})
    open_, _ = resolve_training("painter_nano", "a.tsv", {})
    assert settle_text_length(resolved, np.array([99])).settings.text.length == 24  # the recipe says so
    for counts, length in (([5] * 995 + [90] * 5, 5), ([5] * 994 + [90] * 6, 90), ([9000], 256), ([0], 1)):
        chosen = settle_text_length(open_, np.array(counts))
        assert chosen.settings.text.length == length and chosen.origins["text.length"].startswith("chosen: ")
        assert chosen.settings.text.tokenizer == open_.settings.text.tokenizer
    out = tmp_path / "run"  # of a time when the default was 32
    train("painter_nano", str(table), out, tokenizer=str(tokenizer), **SMALL, **{"text.length": 32})
    for name in ("run.json", "settings.json"):
        old = (out / name).read_text().replace('32,\n    "origin": "command"', '32, "origin": "default"')
        (out / name).write_text(old)
    (out / "report.html").unlink()
    assert train("painter_nano", str(table), out, tokenizer=str(tokenizer), **SMALL)["run"] == str(out)
    assert json.loads((out / "settings.json").read_text())["text.length"] == {"value": 32, "origin": "default"}
    assert load(out).model.config.text_length == 32


def test_stopped_and_gone_on_ends_in_the_same_bits(run: Path, table: Path, tokenizer: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train("painter_nano", str(table), out, tokenizer=str(tokenizer), **SMALL)
    for name in ("report.html", "metrics.json"):
        (out / name).unlink()
    newest = sorted((out / "checkpoints").glob("step_*"))
    shutil.rmtree(newest[-1])  # as if it had been killed after the checkpoint before
    shutil.rmtree(out / "best")
    train("painter_nano", str(table), out, tokenizer=str(tokenizer), **SMALL)
    found, expected = (load_file(path / "model" / "model.safetensors") for path in (out, run))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_evaluation_gives_the_figures_of_the_run(run: Path, table: Path) -> None:
    figures = evaluate_loaded(load(run), str(table), "test", CaptionSource(source=str(table)))
    assert figures["loss"] == pytest.approx(json.loads((run / "metrics.json").read_text())["test"]["loss"], rel=1e-5)
    with pytest.raises(UsageError, match="has no tset split; it has train"):
        evaluate_loaded(load(run), str(table), "tset", CaptionSource(source=str(table)))


def test_what_does_not_fit_is_refused(run: Path, table: Path, tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs one: --tokenizer RUN"):
        train("painter_nano", str(table), tmp_path / "a", **SMALL)
    with pytest.raises(UsageError, match="no picture tokenizer; expected a run of image-tokenization"):
        train("painter_nano", str(table), tmp_path / "b", tokenizer=str(run), **SMALL)
    with pytest.raises(UsageError, match=r"architecture\.codes follows from"):
        train("painter_nano", str(table), tmp_path / "c", tokenizer=str(tokenizer), **SMALL | {"architecture.codes": 8})
    with pytest.raises(UsageError, match="no file or folder"):
        train("painter_nano", str(tmp_path / "none.tsv"), tmp_path / "d", tokenizer=str(tokenizer), **SMALL)


def test_gone_on_from_a_run_it_keeps_both_tokenizers(run: Path, table: Path, tokenizer: Path, tmp_path: Path) -> None:
    more = SMALL | {"max_steps": 1, "optimizer.lr": 1e-9}
    train("painter_nano", str(table), tmp_path / "run", start_from=str(run), **more)
    before, after = load(run), load(tmp_path / "run")
    assert after.facts == before.facts
    text = (path / "model" / "text_tokenizer" / "text.json" for path in (run, tmp_path / "run"))
    assert len({file.read_text() for file in text}) == 1
    assert torch.allclose(before.model.head.weight, after.model.head.weight, atol=1e-6)


def test_named_sets_have_several_wordings_for_a_picture(tokenizer: Path, tmp_path: Path) -> None:
    changes = {"batch_size": 64, "data.language": "zh", "architecture.head_width": 16}
    settings = {**SMALL, **changes, "architecture.attention": ["full", "axial_row"]}
    metrics = train("dalle_nano", "digits", tmp_path / "run", tokenizer=str(tokenizer), max_steps=2, **settings)
    assert metrics["test"]["text_nats"] > 0
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["data"]["captions"] == 5 * facts["data"]["counts"]["train"]


def test_codes_and_captions_are_kept_on_disk_and_read_from_there(
    table: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, reader = open_captions(str(table), CaptionSettings()), read_image_tokenizer(tokenizer)
    first = encode_split(data, "train", reader, 0)
    split = data.splits["train"]
    assert list(first.captions()) == [text for n in range(len(split)) for text in split.texts(n)]
    with monkeypatch.context() as patch:
        patch.setattr(ImageTokenizer, "encode", lambda *_: pytest.fail("pictures were read again"))
        again = encode_split(data, "train", reader, 0)
    for name, array in vars(again).items():
        assert np.array_equal(array, getattr(first, name))
        while isinstance(array, np.ndarray) and array.base is not None and not isinstance(array, np.memmap):
            array = array.base
        assert isinstance(array, np.memmap), name


@pytest.mark.parametrize("room", [0, 1, 2])
def test_all_pictures_are_learned_from_where_the_disk_is_full(
    table: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    data, reader = open_captions(str(table), CaptionSettings()), read_image_tokenizer(tokenizer)
    whole = encode_split(data, "train", reader, 0)
    monkeypatch.setattr("orchard.tasks.text_to_image.encoded_captions.BATCH", 4)
    monkeypatch.setenv("ORCHARD_CACHE", str(table.with_name(f"room{room}")))
    opened, writes = Path.open, []

    def open_little(path: Path, mode: str = "r", *how: Any, **more: Any) -> Any:
        if mode == "ab":
            writes.append(path)
            if len(writes) > room * 4:
                raise OSError(28, "No space left on device")
        return opened(path, mode, *how, **more)

    monkeypatch.setattr(Path, "open", open_little)
    found = encode_split(data, "train", reader, 0)
    assert len(writes) > room * 4 and len(found) == len(whole) == len(data.splits["train"])
    assert all(np.array_equal(array, getattr(whole, name)) for name, array in vars(found).items())


def test_word_ids_leave_zero_to_the_padding() -> None:
    ids = CaptionIds(make_text_tokenizer(TextSettings(), ["abc"], None), 4)
    assert ids.row("ab") == ([1, 2, 0, 0], 2)
    assert ids.row("abcab") == ([1, 2, 3, 1], 5)
    assert ids.vocabulary == 5
    assert ids.kept("abcab") == "abca"
    assert ids.strange("a 狗 b") == ["狗"]


def test_text_tokenizers_by_settings(tmp_path: Path) -> None:
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("[PAD]\n[UNK]\na\ncat\n##s\n", encoding="utf-8")
    pieces = make_text_tokenizer(TextSettings(tokenizer="wordpiece", files=(str(vocabulary),)), [], None)
    assert pieces.encode("A Cats") == [2, 3, 4]  # no capital in the vocabulary: text is read in lower case
    assert CaptionIds(pieces, 4).row("a cat")[0] == [2, 3, 0, 0]  # its own padding is 0 already
    assert make_text_tokenizer(TextSettings(tokenizer="chinese"), [], None).encode("狗")
    assert make_text_tokenizer(TextSettings(tokenizer="bytes"), [], None).vocabulary == 256
    assert make_text_tokenizer(TextSettings(tokenizer="bpe", vocabulary=259), ["aaaa bbbb"] * 2, None).vocabulary == 259
    with pytest.raises(UsageError, match="expects one, a vocab"):
        make_text_tokenizer(TextSettings(tokenizer="wordpiece", files=("a", "b")), [], None)
    with pytest.raises(OrchardError, match="has no text_tokenizer"):
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "config.json").write_text(
            json.dumps({"model": "gpt2_nano", "task": "text-generation", "architecture": {}})
        )
        make_text_tokenizer(TextSettings(), [], str(folder))
