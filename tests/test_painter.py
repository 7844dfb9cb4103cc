"""The painter: EasyNLP's own figures, its checkpoint taken apart, cached decoding, and the task it is trained by."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from orchard.errors import OrchardError
from orchard.inference.decoding import Decoder
from orchard.models import create_model
from orchard.models.text_to_image.painter import Painter, PainterConfig, infer_config
from orchard.models.text_to_image.painter_names import easynlp_names, split_checkpoint
from orchard.tasks.text_generation.peers import recompute, write
from orchard.tasks.text_to_image.objective import CodeBatch, SplitLosses, TextToImage, measure_split
from orchard.weights.names import find_ours, to_ours, to_theirs
from orchard.weights.official import export_official, load_official

GOLDEN = Path(__file__).parent / "golden" / "easynlp_artist"
TINY = PainterConfig(width=32, depth=2, heads=2, text_vocabulary=50, codes=64)
KNOWING = PainterConfig(width=32, depth=1, heads=2, text_vocabulary=50, codes=64, entities=10)
SMALL = PainterConfig(width=32, depth=2, heads=2, text_vocabulary=11, text_length=5, codes=7, image_length=9)


def golden(case: str, config: PainterConfig) -> tuple[Painter, dict[str, Tensor]]:
    model = Painter(config).eval()
    load_official(model, load_file(GOLDEN / case / "params.safetensors"), "easynlp")
    return model, load_file(GOLDEN / case / "io.safetensors")


@torch.no_grad()
def draw(model, text: Tensor, count: int, **first) -> Tensor:
    """The most likely codes, one at a time, with what came before remembered."""
    tokens = model.prompt(text)
    prompt = tokens.shape[1]
    cache = model.make_cache(len(text), prompt + count - 1)
    drawn: list[Tensor] = []
    for n in range(count):
        start = 0 if n == 0 else prompt + n - 1
        places = torch.arange(start, start + tokens.shape[1])
        for layer in cache:
            layer.positions = places
        mask = torch.arange(prompt + count - 1) <= places[:, None]
        logits = model.code_logits(model(tokens, mask=mask, cache=cache, **(first if n == 0 else {}))[:, -1])
        drawn.append(logits.argmax(1, keepdim=True))
        tokens = model.code_tokens(drawn[-1])
    return torch.cat(drawn, dim=1)


def test_logits_loss_and_gradients_are_easynlp_s():
    model, io = golden("tiny_a", TINY)
    text, codes = io["in.text"] - TINY.codes, io["out.z_indices"]
    torch.testing.assert_close(model(io["in.seq_in"]), io["out.transformer_full_logits"], atol=1e-5, rtol=0)
    tokens = torch.cat([model.prompt(text), model.code_tokens(codes[:, :-1])], dim=1)
    logits = model.code_logits(model(tokens)[:, TINY.text_length - 1 :])
    torch.testing.assert_close(logits, io["out.logits"], atol=1e-5, rtol=0)
    losses = model.losses(text, codes)
    torch.testing.assert_close(losses.total, io["out.loss"], atol=1e-5, rtol=1e-5)
    assert losses.text is None
    losses.total.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    theirs = to_theirs(easynlp_names(TINY), gradients)
    wanted = {key.removeprefix("out.grad."): value for key, value in io.items() if key.startswith("out.grad.")}
    assert len(wanted) == 3
    for name, gradient in wanted.items():
        torch.testing.assert_close(theirs[name], gradient, atol=1e-4 * float(gradient.abs().max()), rtol=0)


def test_draws_the_codes_that_easynlp_draws():
    model, io = golden("tiny_a", TINY)
    text = io["in.text"] - TINY.codes
    assert torch.equal(draw(model, text, 16), io["out.greedy16"])
    assert torch.equal(draw(model, text, TINY.image_length), io["out.generate_topk1_256"])


def test_stand_in_for_easynlp_s_loop_draws_the_same():
    model, io = golden("tiny_a", TINY)
    text = io["in.text"] - TINY.codes
    assert torch.equal(recompute(model, model.prompt(text), 16), io["out.greedy16"])


def test_knowledge_as_easynlp_adds_it():
    model, io = golden("knowl_a", KNOWING)
    text, codes, knowledge = io["in.text"] - KNOWING.codes, io["out.z_indices"], io["in.words_emb"]
    without, known = model(io["in.seq_in"]), model(io["in.seq_in"], knowledge=knowledge)
    torch.testing.assert_close(without, io["out.transformer_logits_flag_false"], atol=1e-5, rtol=0)
    torch.testing.assert_close(known, io["out.transformer_logits_flag_true"], atol=1e-5, rtol=0)
    words = KNOWING.text_length
    assert torch.equal(without[:, words:], known[:, words:]) and not torch.equal(without[:, :words], known[:, :words])
    losses = model.losses(text, codes, knowledge)
    torch.testing.assert_close(losses.image, io["out.loss"], atol=1e-5, rtol=1e-5)
    losses.total.backward()
    assert model.knowledge.weight.grad.abs().max() > 0
    drawn = draw(model, text, KNOWING.image_length, knowledge=knowledge)
    assert torch.equal(drawn, io["out.generate_topk1_256"])


def stored_vqgan() -> dict[str, torch.Tensor]:
    """The VQGAN of `tiny_a`, under the names that EasyNLP's checkpoints have for it."""
    stored = load_file(GOLDEN.parent / "vqgan" / "artist_a" / "params.safetensors")
    return {f"first_stage_model.{name}": tensor for name, tensor in stored.items()}


@pytest.mark.parametrize("case, config", [("tiny_a", TINY), ("knowl_a", KNOWING)])
def test_a_checkpoint_is_taken_apart_with_nothing_left_over(case, config):
    own, vqgan = load_file(GOLDEN / case / "params.safetensors"), stored_vqgan()
    painter, tokenizer = split_checkpoint(own | vqgan)
    assert painter.keys() == own.keys()
    assert {
        f"first_stage_model.{name}" for name in tokenizer
    } == vqgan.keys() and "quantize.embedding.weight" in tokenizer
    model = Painter(config)
    load_official(model, painter, "easynlp")
    back = export_official(model, "easynlp")
    assert back.keys() == painter.keys() and all(torch.equal(back[name], painter[name]) for name in back)
    with pytest.raises(OrchardError, match="'stranger' of the checkpoint is neither"):
        split_checkpoint(own | vqgan | {"stranger": torch.zeros(1)})


def test_names_and_shapes_of_the_released_size():
    official = json.loads((GOLDEN / "official_checkpoint_keys.json").read_text())
    with torch.device("meta"):
        model = create_model("painter_base")
        theirs = {name: torch.empty(shape) for name, shape in official["keys_base"].items()}
        large = create_model("painter_large")
    assert sum(p.numel() for p in model.parameters()) == official["base"]["transformer_parameters"]
    assert sum(p.numel() for p in large.parameters()) == official["large"]["transformer_parameters"]
    table = easynlp_names(model.config)
    own = {name: tensor for name, tensor in theirs.items() if name.startswith("transformer.")}
    to_ours(table, own, model.state_dict())
    assert to_theirs(table, model.state_dict()).keys() == own.keys()


def test_sizes_are_read_off_a_checkpoint():
    table, theirs = easynlp_names(TINY), load_file(GOLDEN / "tiny_a" / "params.safetensors")
    found = infer_config(
        PainterConfig(width=32, depth=2, heads=2), "easynlp", lambda name: find_ours(table, theirs, name)
    )
    assert found == {"codes": 64, "text_vocabulary": 50, "image_length": 256}


def test_a_mask_that_is_not_causal_is_refused():
    theirs = load_file(GOLDEN / "tiny_a" / "params.safetensors")
    theirs["transformer.blocks.1.attn.mask"][0, 0, :32, :32] = 1
    with pytest.raises(OrchardError, match="not the causal one"):
        to_ours(easynlp_names(TINY), theirs, Painter(TINY).state_dict())


def test_one_token_at_a_time_is_the_whole_at_once():
    torch.manual_seed(0)
    model = Painter(SMALL).eval()
    torch.nn.init.normal_(model.position)
    tokens = torch.randint(SMALL.vocabulary, (3, SMALL.context))
    cache = model.make_cache(3, SMALL.context)
    pieces = []
    with torch.no_grad():
        for n in range(SMALL.context):
            for layer in cache:
                layer.positions = torch.tensor([n])
            mask = (torch.arange(SMALL.context) <= n)[None]
            pieces.append(model(tokens[:, n : n + 1], mask=mask, cache=cache))
        torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens), atol=1e-5, rtol=0)
        shifted = model(tokens[:, 2:], positions=torch.arange(2, SMALL.context).expand(3, -1))
    assert not torch.allclose(shifted, model(tokens[:, 2:]))


def test_padding_is_read_like_any_word():
    torch.manual_seed(0)
    model = Painter(SMALL).eval()
    text = torch.tensor([[3, 4, 0, 0, 0]])
    assert torch.equal(model.prompt(text), text + SMALL.codes)
    one = model(model.prompt(text))
    other = model(model.prompt(torch.tensor([[3, 4, 1, 0, 0]])))
    assert not torch.allclose(one[:, -1], other[:, -1])


@pytest.mark.parametrize(
    "call, expected",
    [
        (lambda m: m(torch.zeros(2, 3)), "int64"),
        (lambda m: m(torch.zeros(3, dtype=torch.int64)), "shape"),
        (lambda m: m(torch.full((1, 2), 18)), "0 to 17"),
        (lambda m: m(torch.zeros(1, 15, dtype=torch.int64)), "at most 14"),
        (lambda m: m.prompt(torch.zeros(1, 4, dtype=torch.int64)), r"\(B, 5\)"),
        (lambda m: m.losses(torch.zeros(1, 5, dtype=torch.int64), torch.zeros(1, 8, dtype=torch.int64)), r"\(B, 9\)"),
        (lambda m: m(torch.zeros(1, 5, dtype=torch.int64), knowledge=torch.zeros(1, 2, 5, 100)), "no knowledge"),
    ],
)
def test_wrong_input_is_refused_in_one_line(call, expected):
    with pytest.raises(ValueError, match=expected) as caught:
        call(Painter(SMALL))
    assert "\n" not in str(caught.value)


def test_task_scores_a_split_as_one_batch():
    torch.manual_seed(0)
    model, task = Painter(SMALL).eval(), TextToImage()
    batch = CodeBatch(torch.randint(11, (5, 5)), torch.randint(7, (5, 9)), torch.arange(5))
    assert len(batch) == 5 and [len(part) for part in batch.to("cpu").parts(2)] == [3, 2]
    loss, losses = task.loss(model, batch)
    figures = task.compute_metrics(measure_split(model, batch.parts(2)))
    assert figures["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    assert figures["bits_per_code"] == pytest.approx(figures["image_nats"] / math.log(2))
    assert figures["perplexity"] == pytest.approx(math.exp(figures["image_nats"]))
    assert "text_nats" not in figures
    assert float(losses["bits_per_code"]) == pytest.approx(figures["bits_per_code"], rel=1e-5)
    both = SplitLosses.merge([SplitLosses(1, 2.0, 1.0, 3.0), SplitLosses(3, 2.0, 5.0, 1.0)])
    assert both == SplitLosses(4, 4.0, 6.0, 4.0) and task.compute_metrics(both)["text_nats"] == 1.5


def test_learns_captions_by_heart():
    torch.manual_seed(0)
    model, task = Painter(SMALL).train(), TextToImage()
    batch = CodeBatch(torch.randint(1, 11, (4, 5)), torch.randint(7, (4, 9)), torch.arange(4))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(80):
        loss, _ = task.loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.equal(draw(model.eval(), batch.text, 9), batch.codes)


def test_groups_cover_every_parameter_once():
    with torch.device("meta"):
        models = [create_model(name) for name in ("painter_nano", "painter_knowl_base")]
    for model in models:
        for name, _ in model.named_parameters():
            assert sum(name.startswith(group) for group in model.layer_groups()) == 1, name


def test_words_become_easynlp_s_picture():
    """The whole chain: greedy codes for a caption, and the picture that the checkpoint's VQGAN draws of them."""
    model, io = golden("tiny_a", TINY)
    _, drawer = split_checkpoint(stored_vqgan())
    sizes = dict(codes=64, multipliers=(1, 1, 1), image_size=64, width=32, blocks=1, latent=32, code_width=16)
    vqgan = create_model("vqgan_f16_16384", **sizes).eval()
    load_official(vqgan, drawer, "taming")
    decoder = Decoder(model, 2, TINY.context, precision="fp32", compiled=False)
    prompts = model.prompt(io["in.text"] - TINY.codes)
    codes = write(decoder, prompts, 256)
    assert torch.equal(codes, io["out.generate_topk1_256"])
    with torch.no_grad():
        pictures = vqgan.decode(codes.view(-1, 16, 16))
    expected = io["out.decoded_greedy_image"]
    expected = expected.permute(0, 3, 1, 2) if expected.shape[-1] == 3 else expected
    torch.testing.assert_close(pictures, expected, atol=1e-4, rtol=0)
