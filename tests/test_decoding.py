"""Writing in few bits: the native kernels beside torch's, and a decoder in each precision beside float32."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from orchard.errors import UsageError
from orchard.inference import decode_layers, decoding, kernels, native_step
from orchard.inference.decode_layers import DecodeAttention, DecodeLinear
from orchard.inference.decoding import Decoder, writing_precision
from orchard.inference.fast import relative_difference
from orchard.inference.kernels import native_kernels
from orchard.inference.native_step import NativeStep, parts_of
from orchard.models import create_model
from orchard.nn.attention import Attention, KVCache

needs_native = pytest.mark.skipif(not native_kernels(), reason="there is no C++ compiler")
MODELS: dict[str, dict[str, Any]] = {
    "gpt2": {"vocabulary": 50, "context": 40, "width": 48, "depth": 2, "heads": 3},
    "gpt2_tiny": {"vocabulary": 51, "context": 40, "width": 42, "depth": 3, "heads": 3},
    "painter_nano": {"text_vocabulary": 30, "text_length": 5, "codes": 20, "image_length": 16, "width": 48},
    "dalle_nano": {"text_vocabulary": 30, "text_length": 5, "codes": 20, "image_length": 16, "width": 48, "depth": 4,
              "heads": 3, "head_width": 16},
}  # fmt: skip


@needs_native
@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize(("outputs", "inputs"), [(8, 16), (50, 37), (3, 5), (100, 260)])
def test_rows_are_multiplied_as_by_torch_each_by_itself(int8, outputs, inputs):
    torch.manual_seed(outputs)
    weight, bias, x = torch.randn(outputs, inputs).bfloat16(), torch.randn(outputs), torch.randn(7, inputs).bfloat16()
    layer = DecodeLinear(weight, bias, int8=int8)
    assert layer.native
    exact = weight.float()
    if isinstance(layer.scale, torch.Tensor):
        exact = (exact / layer.scale[:, None]).round() * layer.scale[:, None]
    for count in range(1, 8):
        y = layer(x[:count])
        torch.testing.assert_close(y.float(), x[:count].float() @ exact.T + bias, rtol=0.01, atol=0.03)
        assert torch.equal(y, torch.cat([layer(x[n : n + 1]) for n in range(count)]))


@needs_native
@pytest.mark.parametrize("inputs", [4096, 12288, 40000])
def test_sums_of_int8_do_not_overflow(inputs):
    layer = DecodeLinear(torch.ones(5, inputs), None, int8=True)
    torch.testing.assert_close(
        layer(torch.full((3, inputs), -2.0)), torch.full((3, 5), -2.0 * inputs), rtol=1e-3, atol=0
    )


@needs_native
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_is_not_hidden_by_int8(bad):
    x = torch.ones(3, 40)
    x[1, 7] = bad
    found = DecodeLinear(torch.ones(5, 40), None, int8=True)(x)
    assert torch.isnan(found).any(1).tolist() == [False, True, False]


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


def model_and_tokens(name: str) -> tuple[Any, list[list[int]], torch.Tensor]:
    """A model with random weights, prompts, and what follows each of them, (rows, 12)."""
    torch.manual_seed(0)
    model: Any = create_model(name, **MODELS[name]).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    if name.startswith("gpt"):
        return model, [[1, 2, 3], [4, 5, 6], [7]], torch.randint(20, (8, 12))
    prompts = model.prompt(torch.randint(1, 30, (3, 5))).tolist()
    return model, prompts, model.code_tokens(torch.randint(20, (8, 12)))


def told(
    model: Any, prompts: list[list[int]], rest: torch.Tensor, precision: decoding.Precision, rows_: int
) -> torch.Tensor:
    """Logits after the prompts and after each of what follows, (13, prompts, V), by a decoder of `rows_`."""
    decoder = Decoder(model, rows_, max(map(len, prompts)) + 12, precision=precision, compiled=False)
    logits = [decoder.prefill(prompts)] + [decoder.decode_step(rest[: decoder.rows, n]) for n in range(12)]
    return torch.stack([one[: len(prompts)] for one in logits])


@pytest.mark.parametrize("native", [pytest.param(True, marks=needs_native), False])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("name", MODELS)
def test_a_decoder_tells_what_the_model_tells(name, precision, native, monkeypatch):
    for module in (decoding, decode_layers, native_step):
        monkeypatch.setattr(module, "native_kernels", lambda: native)
    model, prompts, rest = model_and_tokens(name)
    found = told(model, prompts, rest, precision, 3)
    expected = torch.zeros_like(found)
    for row, prompt in enumerate(prompts):
        tokens = torch.cat([torch.tensor(prompt), rest[row]])
        with torch.no_grad():
            expected[:, row] = model(tokens[None])[0, len(prompt) - 1 :]
    known = expected.isfinite()
    share = {"fp32": 1e-4, "bf16": 0.1, "int8": 0.2}[precision]
    assert (found - expected)[known].abs().max() < share * expected[known].std()


@needs_native
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("name", ["gpt2", "painter_nano"])
def test_a_row_gets_the_same_bits_in_any_company(name, precision):
    model, prompts, rest = model_and_tokens(name)
    for row in range(2):  # of one length
        alone = told(model, prompts[row : row + 1], rest[row : row + 1], precision, 1)
        assert torch.equal(alone[:, 0], told(model, prompts[:2], rest[:2], precision, 2)[:, row])


@needs_native
def test_a_long_prompt_goes_through_the_blocks_in_pieces(monkeypatch):
    model, prompts, rest = model_and_tokens("gpt2")
    whole = told(model, prompts, rest, "bf16", 3)
    monkeypatch.setattr(native_step, "MOST", 6)
    assert torch.equal(told(model, prompts, rest, "bf16", 3), whole)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@needs_native
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_a_team_of_threads_gives_the_bits_of_one(precision, two_threads):
    torch.manual_seed(0)
    model = create_model("gpt2", vocabulary=50, context=40, width=250, depth=2, heads=5).eval()
    prompts, rest = torch.randint(50, (3, 4)).tolist(), torch.randint(50, (3, 12))
    team = told(model, prompts, rest, precision, 3)
    torch.set_num_threads(1)
    assert torch.equal(told(model, prompts, rest, precision, 3), team)


@needs_native
def test_kernels_say_what_does_not_fit():
    model, prompts, rest = model_and_tokens("gpt2")
    decoder = Decoder(model, 3, 8, precision="bf16", compiled=False)
    decoder.prefill(prompts)
    decoder.position = 8
    with pytest.raises(IndexError, match="position 8 of 8"):
        decoder.decode_step(rest[:3, 0])
    tokens, starts = torch.tensor([[1, 2]] * 3), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(RuntimeError, match=r"the cache \[3, 3, 8, 16\] is of other rows than tokens \[4, 1\]"):
        decoder.step(rest[:4, :1], torch.tensor([7]), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(IndexError, match="token 50 of 50"):
        decoder.step(tokens + 48, torch.arange(2), starts)
    with pytest.raises(IndexError, match="start -1 of 8"):
        decoder.step(tokens, torch.arange(2), starts - 1)
    with pytest.raises(RuntimeError, match="positions do not follow each other"):
        decoder.step(tokens, torch.tensor([3, 5]), starts)
    with pytest.raises(TypeError, match="expected a token of int64, got Int"):
        decoder.step(tokens.int(), torch.arange(2), starts)
    with pytest.raises(RuntimeError, match=r"tokens \(R, T\), positions \(T\), starts \(R\), got \[3, 2\], \[1\]"):
        decoder.step(tokens, torch.arange(1), starts)
    with pytest.raises(RuntimeError, match=r"got \[2, 3, 1, 8\], \[1, 3, 5, 8\]"):
        torch.ops.orchard.attend(*(torch.ones(n, 3, m, 8) for n, m in ((2, 1), (1, 5), (1, 5))), torch.ones(1) > 0)
    with pytest.raises(TypeError, match="expected a bool mask, got Float"):
        torch.ops.orchard.attend(*(torch.ones(1, 3, m, 8) for m in (1, 5, 5)), torch.ones(1))
    with pytest.raises(RuntimeError, match="expected the blocks of 9 outputs, got 1"):
        torch.ops.orchard.rows(torch.ones(1, 32), torch.ops.orchard.pack(torch.ones(4, 32)), None, None, 9)


@needs_native
def test_tensors_that_are_views_are_read_as_they_look():
    model, _, _ = model_and_tokens("gpt2")
    decoder = Decoder(model, 3, 8, precision="fp32", compiled=False)
    tokens, positions, starts = torch.tensor([[7, 9]] * 3), torch.arange(2), torch.ones(3, dtype=torch.int64)
    expected = decoder.step(tokens, positions, starts)
    views = (
        torch.tensor([[7, 9]]).expand(3, 2),
        torch.tensor([0, 5, 1, 5])[::2],
        torch.ones(1, dtype=torch.int64).expand(3),
    )
    assert not any(view.is_contiguous() for view in views)
    assert torch.equal(decoder.step(*views), expected)
    assert torch.equal(decoder.step(tokens.T.contiguous().T, positions, starts), expected)
    assert torch.equal(decoder.step(tokens[:, 1:], torch.tensor([1]).expand(1), starts), expected)


@needs_native
@pytest.mark.parametrize(
    ("width", "mean", "std"), [(33, 1000.0, 0.1), (40, 100.0, 1.0), (64, -1000.0, 0.1), (5, 0.0, 1.0)]
)
def test_the_layer_norm_keeps_its_precision_far_from_zero(width, mean, std):
    torch.manual_seed(width)
    model: Any = create_model(
        "gpt2", vocabulary=width, context=4, width=width, depth=1, heads=1, tied_head=False
    ).eval()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)  # what the blocks add is nothing
    torch.nn.init.normal_(model.token.weight, mean, std)
    torch.nn.init.normal_(model.stack.norm.weight)
    torch.nn.init.normal_(model.stack.norm.bias)
    torch.nn.init.eye_(model.head.weight)
    parts = parts_of(model)
    assert parts is not None
    step = NativeStep(parts, width, 4, precision="fp32")
    tokens, zeros = torch.arange(width)[:, None], torch.zeros(width, dtype=torch.int64)
    found = step(tokens, torch.tensor([0]), zeros)
    expected = model.stack.norm.double()(model.token.weight.double())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-5)


def test_a_compiler_that_fails_is_asked_once(tmp_path, monkeypatch):
    monkeypatch.setenv("ORCHARD_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "false")  # a program that does nothing and fails
    monkeypatch.setattr(kernels, "native_kernels", kernels.native_kernels.__wrapped__)  # each time as in a new process
    said: list[str] = []
    for _ in range(2):
        kernels.build_kernels(said.append)
        assert not kernels.native_kernels()
    assert [line.partition(" ")[0] for line in said] == ["compiling", "they", "they"]  # slow, but never in silence
    (kept,) = (tmp_path / "compiled").glob("kernels-*.failed")
    assert f"{kept} says why" in said[1]
    kept.unlink()
    kernels.build_kernels(said.append)
    assert [line.partition(" ")[0] for line in said[3:]] == ["compiling", "they"]


@needs_native
def test_models_that_the_native_step_does_not_know_go_layer_by_layer():
    model, _, _ = model_and_tokens("gpt2")
    assert decoding.one_call(model)
    block = model.stack.blocks[1]
    for place, name, other in (
        (block, "norm1", torch.nn.LayerNorm(48, elementwise_affine=False)),
        (block, "norm2", torch.nn.RMSNorm(48)),
        (block.mlp, "activation", torch.nn.ReLU()),
        (block.attention, "causal", False),
        (block, "mlp", torch.nn.Sequential()),
        (model.stack, "norm", torch.nn.RMSNorm(48)),
    ):
        own = getattr(place, name)
        setattr(place, name, other)
        assert not decoding.one_call(model)
        setattr(place, name, own)
    assert decoding.one_call(model)


@needs_native
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_the_same_parts_joined_in_another_way_are_noticed(precision):
    model, prompts, rest = model_and_tokens("gpt2")
    expected = 2 * told(model, prompts, rest, precision, 3)

    class Louder(type(model)):
        def forward(self, *given):
            return 2 * super().forward(*given)

    model.__class__ = Louder
    assert decoding.one_call(model)
    assert isinstance(Decoder(model, 3, 8, precision=precision, compiled=False).step, decoding.Step)
    assert relative_difference(told(model, prompts, rest, precision, 3), expected) < 0.02


@needs_native
def test_cached_attention_of_one_token_is_causal_whatever_the_mask():
    torch.manual_seed(0)
    attention = Attention(24, 3, bias=True, causal=True).eval()
    masks = None, torch.rand(2, 1, 1, 6) < 0.5
    for mask in masks:
        caches = [KVCache(*(torch.ones(2, 3, 6, 8) for _ in range(2)), torch.tensor([3])) for _ in range(2)]
        x = torch.randn(2, 1, 24)
        if mask is not None:
            mask[..., 0] = True
        with torch.no_grad():
            found = DecodeAttention(attention)(x, mask=mask, cache=caches[0])
            torch.testing.assert_close(found, attention(x, mask=mask, cache=caches[1]))


def test_a_precision_nobody_knows_is_named():
    with pytest.raises(UsageError, match="unknown precision 'int9'; did you mean int8"):
        writing_precision(torch.nn.Linear(2, 2), "int9")  # type: ignore[arg-type]
