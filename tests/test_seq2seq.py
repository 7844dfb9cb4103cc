"""Models that read a sentence and write another: their references, and the contract that decoding asks of them."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from orchard.models import create_model
from orchard.weights.names import to_theirs
from orchard.weights.official import export_official, landmark_for, load_official, table_of
from orchard.weights.portable import read_tensors
from orchard.weights.reference import randomise

SMALL = {
    "transformer_nano": {"width": 16, "depth": 2, "heads": 2, "hidden": 24, "vocabulary": 19, "context": 16},
    "rnnsearch_nano": {"width": 10, "embedding": 8, "alignment": 10, "maxout": 6, "vocabulary": 19},
    "luong_nano": {"width": 10, "embedding": 8, "depth": 2, "vocabulary": 19},
}
OPENNMT = ("bahdanau_mlp", "bahdanau_mlp_nopad", "luong_general_input_feed", "luong_dot_gru")
every_model = pytest.mark.parametrize("name", SMALL)


def grown(name, **overrides):
    """A small model with every weight drawn at random."""
    torch.manual_seed(0)
    model = create_model(name, **{**SMALL[name], **overrides}).eval()
    batch = {name: ids % model.config.vocabulary for name, ids in sentences().items()}
    randomise(model, lambda: model(**batch), seed=0)
    return model


def sentences():
    """Three sources of 7, 4 and 6 tokens, filled up with 0, and their targets."""
    generator = torch.Generator().manual_seed(1)
    source = torch.randint(1, 19, (3, 7), generator=generator)
    source[1, 4:] = source[2, 6:] = 0
    return {"source": source, "target": torch.randint(1, 19, (3, 5), generator=generator)}


def weighted(logits):
    """A scalar in which every logit has a say of its own."""
    return (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum()


def gradients_under_foreign_names(model, source):
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return to_theirs(table_of(landmark_for(model), source, model.config), gradients)


# The references


class TorchTransformer(nn.Module):
    """torch.nn.Transformer between a table of embeddings, and its own causal mask."""

    def __init__(self, vocabulary, *shape, norm_first, final_norm):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, shape[0])
        kind = dict(activation="relu", batch_first=True, norm_first=norm_first)
        self.transformer = nn.Transformer(*shape, **kind).eval()
        self.transformer.encoder.use_nested_tensor = False  # it has no gradients
        if not final_norm:
            self.transformer.encoder.norm = self.transformer.decoder.norm = None

    def forward(self, source, target, positions):
        def embed(ids):
            return self.embedding(ids) * self.embedding.embedding_dim**0.5 + positions[: ids.shape[1]]

        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        padding = source == 0
        x = self.transformer(
            embed(source), embed(target), tgt_mask=causal, src_key_padding_mask=padding, memory_key_padding_mask=padding
        )
        return x @ self.embedding.weight.T


@pytest.mark.parametrize("norm, final_norm", [("post", True), ("pre", True), ("post", False)])
def test_transformer_is_torch_s(norm, final_norm):
    theirs = TorchTransformer(19, 16, 2, 2, 2, 24, norm_first=norm == "pre", final_norm=final_norm)
    ours = create_model(
        "transformer_nano", **SMALL["transformer_nano"], norm=norm, final_norm=final_norm, norm_eps=1e-5
    ).eval()
    batch = sentences()
    randomise(theirs, lambda: theirs(**batch, positions=ours.positions), seed=0)
    load_official(ours, theirs.state_dict(), "torch")
    expected, found = theirs(**batch, positions=ours.positions), ours(**batch)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    weighted(expected).backward()
    weighted(found).backward()
    gradients = gradients_under_foreign_names(ours, "torch")
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(
            gradients[name], parameter.grad, atol=1e-4 * float(parameter.grad.abs().max()), rtol=0
        )
    back = export_official(ours, "torch")
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in back.items())


def marian(tmp_path=None, bias=1.0):
    """A small MarianMTModel with every weight drawn at random, and ours with the same."""
    transformers = pytest.importorskip("transformers")
    config = transformers.MarianConfig(
        vocab_size=19, decoder_vocab_size=19, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
        forced_eos_token_id=None, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, scale_embedding=True,
        activation_function="swish", max_position_embeddings=16,
    )  # fmt: skip
    theirs = transformers.MarianMTModel(config).eval()
    generator = torch.Generator().manual_seed(2)
    for parameter in theirs.parameters():
        if parameter.requires_grad:
            parameter.data = 0.4 * torch.randn(parameter.shape, generator=generator)
    theirs.final_logits_bias.copy_(bias * torch.randn(1, 19, generator=generator))
    theirs.final_logits_bias[0, 1] += 2 * bias  # so that texts end
    ours = create_model("opus_mt", **SMALL["transformer_nano"], pad=0, output_bias=bias != 0).eval()
    load_official(ours, theirs.state_dict(), "hf")
    return theirs, ours


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_transformer_is_marian_s(bias, tmp_path):
    theirs, ours = marian(bias=bias)
    batch = sentences()
    mask = batch["source"] != 0
    expected = theirs(input_ids=batch["source"], attention_mask=mask, decoder_input_ids=batch["target"]).logits
    found = ours(**batch)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    weighted(expected).backward()
    weighted(found).backward()
    table = theirs.model.shared.weight.grad
    torch.testing.assert_close(ours.token.weight.grad, table, atol=1e-4 * float(table.abs().max()), rtol=0)
    back = export_official(ours, "hf")
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in back.items())
    theirs.save_pretrained(tmp_path)
    saved = read_tensors(tmp_path / "model.safetensors")
    fresh = create_model("opus_mt", **SMALL["transformer_nano"], pad=0, output_bias=bias != 0).eval()
    load_official(fresh, saved)
    torch.testing.assert_close(fresh(**batch), expected, atol=1e-5, rtol=0)
    assert export_official(fresh, "hf_file").keys() == saved.keys()


def test_marian_s_bias_is_not_dropped():
    theirs, _ = marian()
    plain = create_model("opus_mt", **SMALL["transformer_nano"], pad=0, output_bias=False)
    with pytest.raises(Exception, match="output_bias=True"):
        load_official(plain, theirs.state_dict(), "hf")


def opennmt(golden, case):
    """A case of OpenNMT-py: our model with its weights, what went in and came out, and its arguments."""
    folder = golden / "seq2seq_attention" / case
    args = json.loads((folder / "meta.json").read_text())["args"]
    model = create_model(
        "luong_nano", width=args["hidden"], depth=args["layers"], embedding=args["emb"], vocabulary=args["tgt_vocab"],
        source_vocabulary=args["src_vocab"], pad=1, score={"mlp": "additive"}.get(args["attn"], args["attn"]),
        cell=args["rnn"].lower(), bidirectional=args["brnn"], bridge=args.get("bridge", False),
        input_feeding=args["input_feed"],
    ).eval()  # fmt: skip
    load_official(model, read_tensors(folder / "params.safetensors"), "opennmt")
    return model, read_tensors(folder / "io.safetensors"), args


@pytest.mark.parametrize("case", OPENNMT)
def test_attention_is_opennmt_s(golden, case):
    model, stored, args = opennmt(golden, case)
    source, target = stored["in.src"][..., 0], stored["in.tgt"][..., 0]
    logits = model(source, target[:, :-1])
    torch.testing.assert_close(logits, stored["out.logits"], atol=1e-5, rtol=0)
    loss = F.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten(), ignore_index=1)
    torch.testing.assert_close(loss, stored["out.loss"], atol=0, rtol=1e-5)
    loss.backward()
    gradients = gradients_under_foreign_names(model, "opennmt")
    compared = [name for name in stored if name.startswith("out.grad.")]
    assert compared
    for name in compared:
        gradient, expected = gradients[name.removeprefix("out.grad.")], stored[name]
        torch.testing.assert_close(gradient, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)
    state = model.start(len(source), 6, source=source)
    weights = []
    for token in target[:, :-1].unbind(1):
        model.step(token[:, None], state)
        weights.append(state.attention)
    expected = stored["out.attn.std"].transpose(0, 1) if args["input_feed"] else stored["out.attn.std"]
    torch.testing.assert_close(torch.stack(weights, 1), expected, atol=1e-5, rtol=0)


def groundhog(weights, source, target):
    """The equations of RNNsearch for one sentence, in float64, on tensors as GroundHog names them: logits (T, V)."""
    w = {name: tensor.double().numpy() for name, tensor in weights.items()}

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def gru(state, x, side, context=None):
        shares = {}
        for gate, part in (("update", "updater"), ("reset", "reseter"), ("input", "inputter")):
            shares[gate] = x @ w[f"W_0_{side}_{gate}_embdr_0"]
            if context is not None:
                shares[gate] = shares[gate] + context @ w[f"W_0_dec_dec_{part}_0"]
        z = sigmoid(shares["update"] + state @ w[f"G_{side}_transition_0"])
        r = sigmoid(shares["reset"] + state @ w[f"R_{side}_transition_0"])
        new = np.tanh(shares["input"] + w[f"b_0_{side}_input_embdr_0"] + (r * state) @ w[f"W_{side}_transition_0"])
        return z * new + (1 - z) * state

    def embed(token, side):
        return w[f"W_0_{side}_approx_embdr"][token] + w[f"b_0_{side}_approx_embdr"]

    width = len(w["D_dec_transition_0"])
    right, left = [], []
    for order, side, states in ((source, "enc", right), (source[::-1], "back_enc", left)):
        state = np.zeros(width)
        for token in order:
            state = gru(state, embed(token, "enc"), side)
            states.append(state)
    annotations = np.concatenate([np.stack(right), np.stack(left[::-1])], axis=1)
    state = np.tanh(left[-1] @ w["W_0_dec_initializer_0"] + w["b_0_dec_initializer_0"])
    logits, context = [], None
    for n, token in enumerate(target):  # the first one says that there is none yet
        if n:
            state = gru(state, embed(token, "dec"), "dec", context)
        energy = (
            np.tanh(state @ w["B_dec_transition_0"] + annotations @ w["A_dec_transition_0"]) @ w["D_dec_transition_0"]
        )
        weights = np.exp(energy[:, 0]) / np.exp(energy).sum()
        context = weights @ annotations
        deep = state @ w["W_0_dec_hid_readout_0"] + w["b_0_dec_hid_readout_0"] + context @ w["W_0_dec_repr_readout"]
        deep = deep + (embed(token, "dec") @ w["W_0_dec_prev_readout_0"] if n else 0)
        pairs = deep.reshape(-1, 2).max(1)
        logits.append(pairs @ w["W1_dec_deep_softmax"] @ w["W2_dec_deep_softmax"] + w["b_dec_deep_softmax"])
    return torch.from_numpy(np.stack(logits))


def test_rnnsearch_follows_the_equations():
    model, batch = grown("rnnsearch_nano"), sentences()
    weights = export_official(model, "groundhog")
    generator = torch.Generator().manual_seed(3)
    for name in ("b_0_enc_approx_embdr", "b_0_dec_approx_embdr"):  # which ours does not have apart
        weights[name] = torch.randn(weights[name].shape, generator=generator)
    weights["W1_dec_deep_softmax"] = torch.randn(6, 8, generator=generator)
    weights["W2_dec_deep_softmax"] = torch.randn(8, 19, generator=generator)
    load_official(model, weights, "groundhog")
    logits = model(**batch)
    for source, target, found in zip(batch["source"].tolist(), batch["target"].tolist(), logits, strict=True):
        expected = groundhog(weights, [token for token in source if token], target)
        torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=0)
    plain = grown("rnnsearch_nano")
    load_official(model, export_official(plain, "groundhog"), "groundhog")
    assert torch.equal(model(**batch), plain(**batch))


# The contract


@every_model
def test_padding_and_company_change_nothing(name):
    model, batch = grown(name), sentences()
    together = model(**batch)
    longer = model(F.pad(batch["source"], (0, 4)), batch["target"])
    torch.testing.assert_close(longer, together, atol=1e-5, rtol=0)
    noise = torch.where(batch["source"] == 0, 7, batch["source"])  # what stands at padding is not looked at
    torch.testing.assert_close(
        model(noise, batch["target"], source_mask=batch["source"] != 0), together, atol=1e-5, rtol=0
    )
    for row in range(3):
        tokens = batch["source"][row][batch["source"][row] != 0]
        alone = model(tokens[None], batch["target"][row : row + 1])
        torch.testing.assert_close(alone, together[row : row + 1], atol=1e-5, rtol=0)
    other = batch["source"].clone()
    other[1, 3] = 1 + other[1, 3] % 18
    changed = (model(other, batch["target"]) - together).abs().amax((1, 2))
    assert changed[1] > 1e-3 and changed[0] < 1e-5 and changed[2] < 1e-5


@every_model
def test_steps_give_what_forward_gives(name):
    model, batch = grown(name), sentences()
    target = batch["target"]
    expected = model(**batch)
    for pieces in ([1] * 5, [3, 1, 1], [5]):
        state = model.start(3, 5, source=batch["source"])
        found = torch.cat([model.step(piece, state) for piece in target.split(pieces, dim=1)], dim=1)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@every_model
def test_reordered_rows_go_on_by_themselves(name):
    model, batch = grown(name), sentences()
    rows = torch.tensor([2, 0, 0, 1])
    state = model.start(3, 5, source=batch["source"])
    model.step(batch["target"][:, :3], state)
    state.reorder(rows)
    rest = batch["target"][rows, 3:].clone()
    rest[2] = rest[2] % 18 + 1  # two rows of one sentence that part
    found = model.step(rest, state)
    targets = torch.cat([batch["target"][rows, :3], rest], dim=1)
    expected = model(batch["source"][rows], targets)[:, 3:]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_rnnsearch_shows_what_it_reads():
    model, batch = grown("rnnsearch_nano"), sentences()
    weights = model.alignments(**batch)
    assert weights.shape == (3, 5, 7)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 5))
    assert weights[1, :, 4:].abs().max() == 0


@every_model
def test_wrong_sentences_are_refused(name):
    model, batch = grown(name), sentences()
    for wrong in (
        {"target": batch["target"][:2]},
        {"source": batch["source"].float()},
        {"source_mask": torch.ones(3, 6, dtype=torch.bool)},
        {"target": batch["target"] + 18},
    ):
        with pytest.raises(ValueError, match="expected"):
            model(**batch | wrong)
    with pytest.raises(ValueError, match="expected 2 sources"):
        model.start(2, 4, source=batch["source"])
