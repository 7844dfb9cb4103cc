"""GPT: the golden cases, transformers, the official names, and one token at a time."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from orchard.cards import card_of
from orchard.errors import OrchardError
from orchard.models import create_model
from orchard.models.language.gpt import GPT, VARIANTS, GPTConfig
from orchard.models.language.gpt_names import NAMES
from orchard.nn.attention import causal_mask
from orchard.training.optim import decayed_names
from orchard.weights.official import export_official, load_official
from orchard.weights.proof import verify

GOLDEN = Path(__file__).parent / "golden"
SMALL = GPTConfig(32, 2, 4, vocabulary=60, context=24)


def golden(case: str, config: GPTConfig, source: str) -> tuple[GPT, dict[str, Tensor]]:
    folder = GOLDEN / case
    model = GPT(config).eval()
    load_official(model, load_file(folder / "params.safetensors"), source)
    return model, load_file(folder / "io.safetensors")


def randomised(model: GPT, seed: int = 0) -> GPT:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def tokens_of(config: GPTConfig, batch: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(config.vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def greedy(model: GPT, tokens: Tensor, count: int) -> Tensor:
    """The most likely token `count` times; of a text longer than the context its end is read."""
    for _ in range(count):
        logits = model(tokens[:, -model.config.context :])[:, -1]
        tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], dim=1)
    return tokens


def test_golden_of_transformers() -> None:
    model, io = golden("gpt2_hf/tiny_a", SMALL, "hf")
    tokens = io["in.input_ids"]
    mask = causal_mask(14) & io["in.attention_mask"].bool()[:, None, None, :]
    logits = model(tokens, mask=mask)
    torch.testing.assert_close(logits, io["out.logits"], atol=1e-5, rtol=0)
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), io["in.labels"][:, 1:].flatten(), ignore_index=-100)
    torch.testing.assert_close(loss, io["out.loss"], atol=0, rtol=1e-5)
    loss.backward()
    torch.testing.assert_close(model.token.weight.grad, io["out.grad.transformer.wte.weight"], atol=1e-5, rtol=1e-4)
    assert torch.equal(greedy(model, tokens[:1, :5], 10), io["out.greedy10"])


def test_golden_of_mingpt() -> None:
    config = GPTConfig(32, 2, 2, vocabulary=50, context=16, tied_head=False)
    model, io = golden("mingpt/tiny_a", config, "mingpt")
    logits = model(io["in.idx"])
    torch.testing.assert_close(logits, io["out.logits"], atol=1e-5, rtol=0)
    loss = F.cross_entropy(logits.flatten(0, 1), io["in.targets"].flatten(), ignore_index=-1)
    torch.testing.assert_close(loss, io["out.loss"], atol=0, rtol=1e-5)
    loss.backward()
    for ours, theirs in (("token.weight", "transformer.wte.weight"), ("head.weight", "lm_head.weight")):
        gradient = model.get_parameter(ours).grad
        torch.testing.assert_close(gradient, io[f"out.grad.{theirs}"], atol=1e-5, rtol=1e-4)
    generated = greedy(model, io["in.prompt"], 16)
    assert generated.shape[1] > config.context and torch.equal(generated, io["out.greedy16"])
    decayed = decayed_names(model)
    assert len(decayed) == io["out.n_decay_params"] and "token.weight" not in decayed
    assert len(list(model.parameters())) - len(decayed) == io["out.n_no_decay_params"]


@pytest.mark.parametrize("name", ["gpt2", "gpt2_nano", "gpt3_125m", "gpt3_1_3b", "gpt3_175b"])
def test_proof(name: str) -> None:
    for row in verify(name):
        assert row["ok"], row


def test_published_sizes() -> None:
    """In millions, as transformers counts the tied models of these shapes."""
    published = {"gpt2": 124.4398, "gpt2_medium": 354.8232, "gpt2_large": 774.0301, "gpt2_xl": 1557.6112}
    for name, millions in published.items():
        assert card_of("gpt2").variants[name].parameters / 1e6 == pytest.approx(millions, abs=1e-4)
    assert VARIANTS.keys() == card_of("gpt2").variants.keys() | card_of("gpt3").variants.keys()


def test_no_biases_is_the_same_as_biases_of_zero() -> None:
    bare = randomised(GPT(GPTConfig(32, 2, 4, vocabulary=60, context=24, bias=False, tanh_gelu=False)))
    assert not any(name.endswith("bias") for name, _ in bare.named_parameters())
    full = GPT(GPTConfig(32, 2, 4, vocabulary=60, context=24, tanh_gelu=False)).eval()
    zeros = {name: torch.zeros_like(p) for name, p in full.named_parameters() if name.endswith("bias")}
    full.load_state_dict(bare.state_dict() | zeros)
    tokens = tokens_of(SMALL, 2, 24)
    torch.testing.assert_close(bare(tokens), full(tokens), atol=1e-6, rtol=0)


@pytest.mark.parametrize("config", [SMALL, GPTConfig(32, 2, 2, vocabulary=50, context=16, bias=False, tied_head=False)])
def test_one_token_at_a_time_is_the_same_as_all_at_once(config: GPTConfig) -> None:
    model, length = randomised(GPT(config)), config.context
    tokens = tokens_of(config, 3, length)
    cache = model.make_cache(3, length)
    steps = []
    with torch.no_grad():
        for start, end in [(0, 5), *((n, n + 1) for n in range(5, length))]:  # a beginning, then one by one
            places = torch.arange(start, end)
            for layer in cache:
                layer.positions = places
            steps.append(model(tokens[:, start:end], cache=cache))
        torch.testing.assert_close(torch.cat(steps, dim=1), model(tokens), atol=1e-5, rtol=0)


def test_a_batch_padded_on_the_left_says_what_each_sequence_says_alone() -> None:
    model, lengths, longest, room = randomised(GPT(SMALL)), (4, 9, 7), 9, 12
    texts = [tokens_of(SMALL, 1, n + 3, seed=n) for n in lengths]  # each with three more tokens to come
    padding = torch.tensor([longest - n for n in lengths])
    tokens = torch.cat([F.pad(text, (longest + 3 - text.shape[1], 0)) for text in texts])
    positions = (torch.arange(room) - padding[:, None]).clamp(min=0)
    real = torch.arange(room) >= padding[:, None]  # (B, room)
    # Padding sees itself, as a softmax over nothing is no number.
    mask = (causal_mask(room) & real[:, None, :] | torch.eye(room, dtype=torch.bool))[:, None]  # (B, 1, room, room)
    cache = model.make_cache(3, room)
    steps = []
    with torch.no_grad():
        for start, end in [(0, longest), *((n, n + 1) for n in range(longest, room))]:
            for layer in cache:
                layer.positions = torch.arange(start, end)
            steps.append(model(tokens[:, start:end], positions[:, start:end], mask[:, :, start:end], cache))
        together, at_once = torch.cat(steps, dim=1), model(tokens, positions, mask)
        torch.testing.assert_close(together, at_once, atol=1e-5, rtol=0)
        for row, text in enumerate(texts):
            torch.testing.assert_close(together[row, padding[row] :], model(text)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("source", NAMES)
@pytest.mark.parametrize("tied", [True, False])
def test_names_there_and_back(source: str, tied: bool) -> None:
    exact = source == "nanogpt"
    config = GPTConfig(32, 2, 4, vocabulary=60, context=24, tied_head=tied, tanh_gelu=not exact, bias=not exact)
    model, fresh = randomised(GPT(config)), GPT(config)
    if not tied and source in ("hf_base", "hf_hub", "openai"):
        with pytest.raises(OrchardError, match="no rule"):
            export_official(model, source)
        return
    theirs = export_official(model, source)
    load_official(fresh, theirs)  # the source is found by the names
    assert all(torch.equal(tensor, fresh.state_dict()[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(OrchardError, match="left over"):
        load_official(fresh, theirs | {"stranger": torch.zeros(1)}, source)
    with pytest.raises(OrchardError, match="has no"):
        load_official(fresh, {name: theirs[name] for name in sorted(theirs)[1:]}, source)


def test_names_and_shapes_of_the_released_checkpoint() -> None:
    released = json.loads((GOLDEN / "gpt2_hf" / "official_checkpoint_keys.json").read_text())["gpt2 (124M)"]
    with torch.device("meta"):
        model = create_model("gpt2")
        found = {name: list(tensor.shape) for name, tensor in export_official(model, "hf").items()}
        hub = export_official(model, "hf_hub")
        openai = export_official(model, "openai")
    assert found == released
    assert len(hub) == 160 and hub["h.11.attn.bias"].shape == (1, 1, 1024, 1024)
    assert openai["model/h11/mlp/c_fc/w"].shape == (1, 768, 3072) and openai["model/ln_f/g"].shape == (768,)
    assert len(openai) == 12 * 12 + 4


def test_openai_matrices_are_those_of_transformers() -> None:
    model = randomised(GPT(SMALL))
    openai, hf = export_official(model, "openai"), export_official(model, "hf")
    for n in range(2):
        for path in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
            theirs = f"model/h{n}/{path.replace('.', '/')}"
            assert torch.equal(openai[f"{theirs}/w"][0], hf[f"transformer.h.{n}.{path}.weight"])
            assert torch.equal(openai[f"{theirs}/b"], hf[f"transformer.h.{n}.{path}.bias"])
    assert torch.equal(openai["model/h1/ln_2/g"], hf["transformer.h.1.ln_2.weight"])


def test_reads_the_files_that_transformers_writes(tmp_path: Path) -> None:
    import transformers

    settings = dict(n_embd=32, n_layer=2, n_head=4, vocab_size=60, n_positions=24, bos_token_id=0, eos_token_id=0)
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**settings)).eval()
    theirs.save_pretrained(tmp_path)
    model, tokens = GPT(SMALL).eval(), tokens_of(SMALL, 2, 24)
    load_official(model, tmp_path / "model.safetensors")
    torch.testing.assert_close(model(tokens), theirs(tokens).logits, atol=1e-5, rtol=0)
    theirs.transformer.save_pretrained(tmp_path)
    load_official(model, tmp_path / "model.safetensors", "hf_base")


def test_a_head_that_was_trained_apart_is_refused() -> None:
    theirs = export_official(GPT(SMALL), "hf")
    with pytest.raises(OrchardError, match="tied_head=False"):
        load_official(GPT(SMALL), theirs | {"lm_head.weight": theirs["lm_head.weight"] + 1})


def test_starts_as_the_paper_says() -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(128, 8, 4, vocabulary=300, context=256))
    assert model.token.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert model.position.weight.std().item() == pytest.approx(0.01, rel=0.03)
    block = model.stack.blocks[3]
    assert block.mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.03)
    for layer in (block.attention.out, block.mlp.fc2):
        assert layer.weight.std().item() == pytest.approx(0.02 / 4, rel=0.03)
        assert not layer.bias.any()


def test_dropout_falls_where_gpt2_has_it() -> None:
    model = GPT(GPTConfig(32, 1, 2, vocabulary=50, context=16, dropout=0.5)).train()
    widths = []
    for module in model.modules():
        if isinstance(module, nn.Dropout) and module.p > 0:
            module.register_forward_hook(lambda _m, args, _out: widths.append(args[0].shape[-1]))
    model(tokens_of(model.config, 2, 16))
    assert widths == [32, 32, 32]  # embeddings and both branches, nothing of the 128 hidden units


def test_groups_cover_every_parameter_once() -> None:
    for config in (SMALL, VARIANTS["gpt2_tiny"]):
        model = GPT(config)
        groups = model.layer_groups()
        for name, _ in model.named_parameters():
            assert sum(name.startswith(group) for group in groups) == 1, name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(tokens=torch.zeros(4, dtype=torch.int64)), r"\(B, T\) int64"),
        (dict(tokens=torch.zeros(1, 4)), "int64"),
        (dict(tokens=torch.zeros(1, 25, dtype=torch.int64)), "1 to 24 tokens"),
        (dict(tokens=torch.zeros(1, 0, dtype=torch.int64)), "1 to 24 tokens"),
        (dict(tokens=torch.full((1, 4), 60)), "ids below 60"),
        (dict(tokens=torch.full((1, 4), -1)), "ids below 60"),
        (dict(tokens=torch.zeros(1, 2, dtype=torch.int64), positions=torch.tensor([23, 24])), "positions below 24"),
        (dict(tokens=torch.zeros(1, 2, dtype=torch.int64), mask=torch.zeros(2, 2)), "bool mask"),
    ],
)
def test_wrong_input_is_refused_in_one_line(arguments: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        GPT(SMALL)(**arguments)
    assert "\n" not in str(caught.value)


def test_exports_for_any_batch() -> None:
    model = randomised(GPT(SMALL))
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (tokens_of(SMALL, 2, 24),), dynamic_shapes=({0: batch},))
    tokens = tokens_of(SMALL, 3, 24)
    torch.testing.assert_close(program.module()(tokens), model(tokens), atol=1e-5, rtol=0)
