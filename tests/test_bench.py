"""The benchmark compares before it times, times in turn, and keeps its contract. No figure is asserted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from orchard.app.bench import bench
from orchard.cli.bench import row, show
from orchard.data.contracts import Preprocess
from orchard.errors import OrchardError, UsageError
from orchard.inference import fast
from orchard.inference.timing import check, time_in_turn
from orchard.models import configuration, create_model
from orchard.tasks.image_classification import peers as bench_module
from orchard.tasks.image_classification.agreement import agreement
from orchard.tasks.image_classification.engines import engine_sides
from orchard.tasks.image_classification.peers import best_peer, peer_of, training_sides
from orchard.tasks.image_tokenization import peers as bench_tokenizers
from orchard.tasks.text_generation.peers import bench_generation, bench_sequence_training
from orchard.weights.portable import Portable, architecture_of, save_portable


@pytest.fixture(autouse=True)
def no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", "no-such-compiler")  # compiling is tested elsewhere, and takes its time
    monkeypatch.setattr(fast, "ENGINES", ())
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)


def test_sides_take_turns_and_warm_up() -> None:
    calls: list[str] = []
    sides = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    medians = time_in_turn(sides, rounds=3)
    assert calls == ["a", "a", "b", "b", *"ababab"]
    assert set(medians) == {"a", "b"} and all(seconds >= 0 for seconds in medians.values())


def test_what_computes_something_else_is_not_timed() -> None:
    x = torch.randn(4, 10)
    check("ours", x + 1e-6, x, 1e-3)
    with pytest.raises(OrchardError, match=r"ours differs from the peer by .* nothing was timed"):
        check("ours", x * 1.01, x, 1e-3)
    with pytest.raises(OrchardError, match="differs"):
        check("ours", x * float("nan"), x, 1e-3)


def test_peers_by_name() -> None:
    assert peer_of("resnet50", "timm") == ("timm", "timm:resnet50")
    assert peer_of("vit_base_patch16_224", "torchvision:vit_b_16") == ("torchvision", "torchvision:vit_b_16")
    assert peer_of("vit_base_patch16_224", "transformers") == ("hf", "hf:ViTForImageClassification")
    with pytest.raises(UsageError, match="write --against torchvision:NAME"):
        peer_of("vit_base_patch16_224", "torchvision")
    with pytest.raises(UsageError, match="unknown peer 'tim'; did you mean timm"):
        peer_of("resnet50", "tim")


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_the_answer_keeps_its_contract(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm")
    found = bench("resnet18", "timm", mode, batch=1, precision="fp32", rounds=1)  # type: ignore[arg-type]
    contract = "name peer mode device precision ours peer_best peer_default ratio_default ratio_best limit_fraction"
    assert set(contract.split()) <= set(found)
    for side in ("ours", "peer_best", "peer_default"):
        assert found[side]["throughput"] == pytest.approx(1 / found[side]["median_s"])
    assert found["ratio_default"] == pytest.approx(found["peer_default"]["median_s"] / found["ours"]["median_s"])
    operations = 2 * (3 if mode == "training" else 1) * 1_814_073_344  # multiply-adds of ResNet-18 at 224 pixels
    assert found["limit_fraction"] == pytest.approx(operations / found["ours"]["median_s"] / found["matrix_rate"])
    assert row(found).count("|") == 10
    show(found)
    assert "resnet18" in capsys.readouterr().out


def test_a_peer_with_other_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    plain = bench_module.load_official

    def wrong(model: nn.Module, *rest: Any) -> Any:
        went = plain(model, *rest)
        nn.init.normal_(model.head.weight)
        return went

    monkeypatch.setattr(bench_module, "load_official", wrong)
    for mode in ("inference", "training"):
        with pytest.raises(OrchardError, match="ours in float32 differs"):
            bench("resnet18", "timm", mode, batch=1, rounds=1)  # type: ignore[arg-type]


def test_the_peer_at_its_best_is_the_fastest_of_its_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    model = create_model("lenet5").eval()
    images = torch.randn(2, 1, 32, 32)
    monkeypatch.setattr(bench_module, "time_in_turn", lambda sides, rounds: {how: -n for n, how in enumerate(sides)})
    side, how = best_peer(model, images, model(images), "bf16")
    assert how == "channels-last, eager, weights in bf16"
    assert side().dtype == torch.bfloat16  # type: ignore[attr-defined]


def test_a_training_step_changes_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    model = create_model("lenet5").eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sides, _ = training_sides(model, model, torch.randn(4, 1, 32, 32), "fp32", 10)
    stepped: list[nn.Module] = []
    plain = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: (stepped.append(self), plain(self))[1])
    for side in sides.values():
        side()
    assert len(stepped) == 3
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_agreement_is_counted_on_a_data_set(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("lenet5")
    about = Portable(
        "lenet5",
        architecture_of(model),
        "image-classification",
        tuple("0123456789"),
        Preprocess((32, 32), 1, (0.3,), (0.4,), resize="stretch").to_json(),
    )
    save_portable(tmp_path / "model", model, about)
    found = agreement(tmp_path / "model", "digits", count=60, precision="fp32")
    assert found["pictures"] == 60 and found["agreement"] == 1.0
    assert found["margin"] > 0 and found["error"] < 1e-5
    with pytest.raises(UsageError, match="no split of 5000 pictures"):
        agreement(tmp_path / "model", "digits", count=5000)


def test_writing_is_timed_beside_a_loop_that_remembers_nothing():
    found = bench_generation("painter_nano", "recompute", tokens=26, rounds=1)
    assert found["mode"] == "generation" and found["ratio_default"] > 0 and found["limit_fraction"] > 0
    assert found["ours"]["throughput"] == pytest.approx(26 / found["ours"]["median_s"])
    with pytest.raises(UsageError, match="transformers"):
        bench_generation("painter_nano", "transformer")


def test_a_step_of_training_is_timed_beside_transformers():
    found = bench_sequence_training("gpt2_nano", "transformers", batch=1, tokens=16, rounds=1)
    assert found["mode"] == "training" and found["ratio_best"] > 0 and found["peer_default"]["how"] == "eager float32"


TINY_VQGAN = dict(
    codes=32, multipliers=(1, 2), image_size=16, attention_at=(8,), width=32, blocks=1, latent=32, code_width=8
)


def test_training_of_a_tokenizer_beside_transformers(monkeypatch):
    def tiny(name: str) -> torch.nn.Module:
        return create_model(name, **TINY_VQGAN)

    monkeypatch.setattr(bench_tokenizers, "create_model", tiny)
    found = bench_tokenizers.bench_tokenizer_training("vqgan_f16_1024", "transformers", precision="fp32", rounds=1)
    assert found["ratio_best"] > 0 and found["ours"]["how"] == found["peer_best"]["how"]
    model = tiny("vqgan_f16_1024")
    twin = bench_tokenizers.transformers_twin("vqgan_f16_1024", model)
    images = torch.randn(2, 3, 16, 16)
    ours, (theirs, codebook_loss) = model(images), bench_tokenizers.reconstruct(twin, images)
    torch.testing.assert_close(ours.images, theirs, atol=1e-5, rtol=1e-4)
    (ours.images.square().mean() + ours.codebook_loss).backward()
    (theirs.square().mean() + codebook_loss).backward()
    for part in ("encoder.conv_in", "decoder.conv_out"):  # the gradient goes the same way all through
        one, other = model.get_submodule(part).weight.grad, twin.get_submodule(part).weight.grad
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("name", ["vqgan_nano", "vqgan_gumbel_f8", "vqvae_nano", "vqgan_f4"])
def test_a_tokenizer_without_a_peer_is_refused(name):
    config = SimpleNamespace(config=configuration(name))
    with pytest.raises(UsageError, match=f"no network of the shape of {name}"):
        bench_tokenizers.transformers_twin(name, config)  # type: ignore[arg-type]


def test_an_engine_is_timed_with_the_same_weights() -> None:
    pytest.importorskip("onnxruntime")
    found = bench("lenet5", "onnxruntime", batch=2, rounds=1)
    assert found["peer"] == "onnxruntime" and found["ratio_best"] > 0 and found["eager_s"] > 0
    assert found["peer_best"]["how"] == "float32, for latency, our number of threads"
    with pytest.raises(UsageError, match="onnxruntime does not train"):
        bench("lenet5", "onnxruntime", "training")


def test_an_engine_that_computes_something_else_is_refused() -> None:
    pytest.importorskip("onnxruntime")
    model = create_model("lenet5").eval()
    images = torch.randn(2, 1, 32, 32)
    with pytest.raises(OrchardError, match="onnxruntime differs"):
        engine_sides("onnxruntime", model, images, model(images) + 1)
