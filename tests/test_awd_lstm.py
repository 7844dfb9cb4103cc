"""AWD-LSTM against what the authors' code computed: every dropout mask, gradients, the trigger, the pointer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from orchard.models import create_model
from orchard.nn.pointer_cache import PointerCache
from orchard.tasks.text_generation.averaging import NonMonotonicAverage
from orchard.tasks.text_generation.streams import read_stream
from orchard.weights.adapters.awd_lstm import ADAPTER, losses
from orchard.weights.golden import GOLDEN, Stored, read_golden
from orchard.weights.official import load_official


def case(name: str, **config: Any) -> tuple[Stored, Any]:
    stored = read_golden(GOLDEN / "awd_lstm" / name)
    if "in.stream" in stored.tensors:
        stored = ADAPTER.stored(stored)
    model = create_model("awd_lstm_ptb", **config).eval()
    load_official(model, dict(stored.state), "salesforce")
    return stored, model


def test_gradients_but_for_the_row_that_is_their_padding() -> None:
    stored, model = case("lstm_tied", width=22, embedding=16, vocabulary=40)
    losses(model, stored.tensors["in.tokens"])["total"].backward()
    expected = stored.below("grad")
    table, recurrent = expected["encoder.weight"], expected["rnns.0.module.weight_hh_l0_raw"]
    torch.testing.assert_close(model.token.weight.grad[:-1], table[:-1], rtol=1e-4, atol=1e-7)
    assert (model.token.weight.grad[-1] - table[-1]).abs().max() > 1e-3
    torch.testing.assert_close(model.layers[0].rnn.weight_hh_l0.grad, recurrent, rtol=1e-4, atol=1e-7)


def test_every_mask_falls_where_the_official_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their masks, handed to our dropouts in the order in which they are drawn."""
    stored, model = case(
        "lstm_train_masks", width=22, embedding=16, vocabulary=40, dropout=0.4, hidden_dropout=0.3, input_dropout=0.5,
        word_dropout=0.1, weight_drop=0.5,
    )  # fmt: skip
    masks = {name: tensor for name, tensor in sorted(stored.tensors.items()) if name.startswith("out.mask.")}
    drawn: Iterator[tuple[str, Tensor]] = iter(masks.items())

    def dropout(x: Tensor, p: float, training: bool) -> Tensor:
        name, mask = next(drawn)
        mask = mask.transpose(0, 1) if name.endswith("locked") else mask  # theirs has time in front
        assert training and mask.shape == x.shape, name
        return x * mask / (1 - p)

    monkeypatch.setattr(F, "dropout", dropout)
    found = losses(model.train(), stored.tensors["in.tokens"])
    assert next(drawn, None) is None
    torch.testing.assert_close(found["raw"][0], stored.computed("raw_loss.0"), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["total"], stored.computed("total"), rtol=1e-5, atol=1e-5)
    found["total"].backward()
    expected = stored.below("grad")["rnns.0.module.weight_hh_l0_raw"]
    torch.testing.assert_close(model.layers[0].rnn.weight_hh_l0.grad, expected, rtol=1e-4, atol=1e-7)


def test_dropouts_choose_once_for_a_segment() -> None:
    torch.manual_seed(0)
    model: Any = create_model("awd_lstm_nano", width=12, embedding=10).train()
    ones = torch.ones(2, 7, 10)
    kept = model.input_dropout(ones)
    assert torch.equal(kept, kept[:, :1].expand_as(kept)) and not torch.equal(kept[0], kept[1])
    assert torch.equal(model.eval().input_dropout(ones), ones)


def test_the_average_and_its_trigger_are_those_of_their_optimizer() -> None:
    stored = read_golden(GOLDEN / "awd_lstm" / "asgd_trigger")
    model = torch.nn.Linear(3, 4, bias=False)
    average = NonMonotonicAverage(model, stored.meta["args"]["nonmono"])
    found = []
    for loss in stored.tensors["in.val_losses"].tolist():
        before = bool(average.averaging)
        average.averaging.fill_(False)
        average.validated(loss)
        found.append(bool(average.averaging))
        average.averaging.fill_(before or found[-1])
    assert found == stored.computed("trigger").tolist() and any(found)
    args = stored.meta["args"]
    model.weight.data = stored.given("w0").clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=args["lr"], weight_decay=args["wdecay"])
    for step in range(args["steps"]):
        model.weight.grad = stored.given(f"g{step}").clone()
        optimizer.step()
        average.update(model)
        torch.testing.assert_close(model.weight.data, stored.computed(f"w{step + 1}"), rtol=1e-6, atol=1e-6)
        with average.swapped_in(model):
            torch.testing.assert_close(model.weight.data, stored.computed(f"ax{step + 1}"), rtol=1e-6, atol=1e-6)


def test_the_pointer_mixes_what_the_official_one_does() -> None:
    stored, model = case("pointer_cache", context=10, width=14, depth=2, embedding=12, vocabulary=20)
    args, tokens = stored.meta["args"], stored.tensors["in.data"].T
    pointer = PointerCache(args["window"], args["theta"], args["lambdasm"])
    expected = -stored.computed("p").gather(1, tokens[0, 1:, None])[:, 0].log()
    nats = torch.cat(list(read_stream(model, tokens[0], pointer)))
    torch.testing.assert_close(nats, expected, rtol=1e-5, atol=1e-5)
    assert float(nats.sum()) / tokens.shape[1] == pytest.approx(float(stored.computed("loss")), rel=1e-5)
    mixed = PointerCache(3, 1.0, 0.5)(torch.full((5, 4), 0.25), torch.ones(5, 2), torch.tensor([0, 1, 1, 2, 3]))
    assert mixed[4].tolist() == pytest.approx([0.125, 0.125 + 0.5 * 2 / 3, 0.125 + 0.5 / 3, 0.125])
