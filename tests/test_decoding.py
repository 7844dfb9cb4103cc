"""Writing in few bits: the native kernels beside torch's, and a decoder in each precision beside float32."""

import pytest
import torch

from orchard.errors import UsageError
from orchard.inference import decoding, rows
from orchard.inference.decoding import Decoder, writing_precision
from orchard.inference.rows import RowLinear, native_rows
from orchard.models import create_model

needs_native = pytest.mark.skipif(not native_rows(), reason="there is no C++ compiler")
MODELS = {
    "gpt2": {"vocabulary": 50, "context": 40, "width": 48, "depth": 2, "heads": 3},
    "dalle_nano": {"text_vocabulary": 30, "text_length": 5, "codes": 20, "image_length": 16, "width": 48, "depth": 4,
              "heads": 3, "head_width": 16},
}  # fmt: skip


@needs_native
@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize(("outputs", "inputs"), [(8, 16), (50, 37), (3, 5), (100, 260)])
def test_rows_are_multiplied_as_by_torch_each_by_itself(int8, outputs, inputs):
    torch.manual_seed(outputs)
    weight, bias, x = torch.randn(outputs, inputs).bfloat16(), torch.randn(outputs), torch.randn(7, inputs).bfloat16()
    layer = RowLinear(weight, bias, int8=int8)
    assert layer.native
    exact = weight.float()
    if isinstance(layer.scale, torch.Tensor):
        exact = (exact / layer.scale[:, None]).round() * layer.scale[:, None]
    for count in range(1, 8):
        y = layer(x[:count])
        torch.testing.assert_close(y.float(), x[:count].float() @ exact.T + bias, rtol=0.01, atol=0.03)
        assert torch.equal(y, torch.cat([layer(x[n : n + 1]) for n in range(count)]))


@needs_native
@pytest.mark.parametrize(("rows_", "heads", "places", "width"), [(1, 3, 20, 16), (4, 2, 37, 20), (2, 1, 1, 64)])
def test_one_query_attends_as_in_torch_to_what_is_seen(rows_, heads, places, width):
    torch.manual_seed(places)
    q = torch.randn(rows_, heads, 1, width).bfloat16()
    k, v = (torch.randn(rows_, heads, places, width).bfloat16() for _ in range(2))
    for shape in ((rows_, 1, 1, places), (1, 1, 1, places), (rows_, heads, 1, places)):
        seen = torch.rand(shape) < 0.5
        seen[..., 0] = True
        k[:, :, ~seen.reshape(-1, places).any(0)] = float("nan")  # is not even read
        found = torch.ops.orchard.attend(q, k, v, seen)
        expected = torch.nn.functional.scaled_dot_product_attention(
            q.float(), k.float().nan_to_num(), v.float(), seen.expand(rows_, heads, 1, places)
        )
        torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.01)
        k = k.nan_to_num()


@pytest.mark.parametrize("native", [pytest.param(True, marks=needs_native), False])
@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("name", MODELS)
def test_fewer_bits_tell_nearly_the_same(name, precision, native, monkeypatch):
    for module in (decoding, rows):
        monkeypatch.setattr(module, "native_rows", lambda: native)
    torch.manual_seed(0)
    model = create_model(name, **MODELS[name]).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    prompts, rest = [[1, 2, 3], [4, 5, 6], [7]], torch.randint(20, (8, 12))
    if name == "dalle_nano":
        prompts = model.prompt(torch.randint(1, 30, (3, 5))).tolist()
        rest = model.code_tokens(torch.randint(20, (8, 12)))

    def logits(kind: decoding.Precision) -> torch.Tensor:
        decoder = Decoder(model, 3, len(prompts[0]) + 12, precision=kind, compiled=False)
        told = [decoder.read(prompts)] + [decoder.write(rest[: decoder.rows, n]) for n in range(12)]
        return torch.stack([one[:3] for one in told])

    expected, found = logits("fp32"), logits(precision)
    known = expected.isfinite()
    assert (found - expected)[known].abs().max() < (0.1 if precision == "bf16" else 0.2) * expected[known].std()


def test_a_precision_nobody_knows_is_named():
    with pytest.raises(UsageError, match="unknown precision 'int9'; did you mean int8"):
        writing_precision(torch.nn.Linear(2, 2), "int9")  # type: ignore[arg-type]
