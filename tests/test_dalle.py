"""DALL-E: DALLE-pytorch's own figures, which code sees which, and cached decoding for every pattern."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from orchard.models import configuration, create_model
from orchard.models.text_to_image.dalle import Dalle, DalleConfig, position_angles
from orchard.models.text_to_image.dalle_names import dalle_pytorch_names, split_checkpoint
from orchard.nn.sparse_patterns import PATTERNS, after_text, grid_pattern
from orchard.nn.token_shift import TokenShift
from orchard.tasks.text_to_image.objective import CodeBatch, TextToImage, measure_split
from orchard.weights.names import to_theirs
from orchard.weights.official import export_official, load_official

GOLDEN = Path(__file__).parent / "golden" / "dalle_pytorch"
SIZES = dict(width=32, heads=2, text_vocabulary=50, text_length=8, codes=40)
AXIAL = ("full", "axial_row", "axial_col", "conv_like")
CASES = {
    "dalle_plain_a": DalleConfig(**SIZES, depth=2, head_width=16, image_length=16, rotary=False, shift=False),
    "dalle_rotary_shift_a": DalleConfig(**SIZES, depth=2, head_width=32, image_length=16),
    "dalle_sparse": DalleConfig(**SIZES, depth=4, head_width=32, image_length=64, attention=AXIAL),
}
every_case = pytest.mark.parametrize("case", CASES)


def golden(case: str) -> tuple[Dalle, dict[str, Tensor]]:
    model = Dalle(CASES[case]).eval()
    load_official(model, load_file(GOLDEN / case / "params.safetensors"), "dalle_pytorch")
    return model, load_file(GOLDEN / case / "io.safetensors")


def step(model: Dalle, tokens: Tensor, places: Tensor, cache: list) -> Tensor:
    for layer in cache:
        layer.positions = places
    mask = torch.arange(cache[0].keys.shape[2]) <= places[:, None]
    return model(tokens, mask=mask, cache=cache)


@every_case
def test_logits_loss_and_gradients_are_dalle_pytorch_s(case):
    model, io = golden(case)
    text, codes = io["in.text"], io["in.image_tokens"]
    tokens = torch.cat([model.prompt(text), model.code_tokens(codes[:, :-1])], dim=1)
    assert torch.equal(tokens, io["in.tokens"])
    logits = model(tokens)
    torch.testing.assert_close(logits, io["out.logits"], atol=1e-5, rtol=0)
    if "out.text_only_logits_masked_as_0" in io:
        alone = model(model.prompt(text))
        alone = alone.masked_fill(alone == torch.finfo(alone.dtype).min, 0)
        torch.testing.assert_close(alone, io["out.text_only_logits_masked_as_0"], atol=1e-5, rtol=0)
    losses = model.losses(text, codes)
    torch.testing.assert_close(losses.total, io["out.loss"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(losses.total, (losses.text + 7 * losses.image) / 8)
    losses.total.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    theirs = to_theirs(dalle_pytorch_names(model.config), gradients)
    wanted = {key.removeprefix("out.grad."): value for key, value in io.items() if key.startswith("out.grad.")}
    assert len(wanted) >= 2
    for name, gradient in wanted.items():
        torch.testing.assert_close(theirs[name], gradient, atol=1e-4 * float(gradient.abs().max()), rtol=0)


@every_case
@torch.no_grad()
def test_draws_the_codes_that_dalle_pytorch_draws(case):
    model, io = golden(case)
    wanted = next(value for key, value in io.items() if key.startswith("out.greedy"))
    tokens = model.prompt(io["in.text"])
    cache, places, drawn = model.make_cache(2, model.config.context), torch.arange(tokens.shape[1]), []
    for _ in range(wanted.shape[1]):
        drawn.append(model.code_logits(step(model, tokens, places, cache)[:, -1]).argmax(1, keepdim=True))
        tokens, places = model.code_tokens(drawn[-1]), places[-1:] + 1
    assert torch.equal(torch.cat(drawn, dim=1), wanted)


def test_names_there_and_back():
    for case in CASES:
        theirs = load_file(GOLDEN / case / "params.safetensors")
        back = export_official(golden(case)[0], "dalle_pytorch")
        assert back.keys() == theirs.keys() and all(torch.equal(back[name], theirs[name]) for name in back)
    own, tokenizer = split_checkpoint(theirs | {"vae.codebook.weight": torch.zeros(2)})
    assert own.keys() == theirs.keys() and tokenizer.keys() == {"codebook.weight"}


@pytest.mark.parametrize("case", ["dalle_rotary_shift_a", "dalle_sparse"])
def test_angles_are_dalle_pytorch_s(case):
    theirs = load_file(GOLDEN / case / "params.safetensors")["transformer.pos_emb"][0]
    torch.testing.assert_close(position_angles(CASES[case]), theirs, atol=1e-5, rtol=1e-6)
    assert position_angles(configuration("dalle_base")).shape == (
        1281,
        60,
    )  # a third of 64 is 21, an even 20 of it used


def seen_in_words(name: str, side: int, kernel: int) -> Tensor:
    """The patterns once more, code by code and from their descriptions."""
    seen = torch.zeros(side * side, side * side, dtype=torch.bool)
    if name == "conv_like":  # as an unfolded window over a grid that is padded above and to the left
        numbers = torch.arange(1.0, side * side + 1).reshape(1, 1, side, side)
        windows = F.unfold(F.pad(numbers, (kernel - 1, 0, kernel - 1, 0)), kernel)[0].long()  # (kernel², side²)
        for code, window in enumerate(windows.T):
            seen[code, window[window > 0] - 1] = True
        return seen
    for code in range(side * side):
        row, column = divmod(code, side)
        if name == "axial_row":
            seen[code, row * side : code + 1] = True
        elif name == "axial_col":
            seen[code, column : code + 1 : side] = True
        elif name == "full":
            seen[code, : code + 1] = True
        elif name == "paper_row":  # back to the code above: of a grid of 4, five codes with itself (figure 11 a)
            seen[code, max(code - side, 0) : code + 1] = True
        else:  # a centred window, what came before of it, in the sequence: a row's end is the next one's beginning
            for up in range(kernel // 2 + 1):
                for across in range(-(kernel // 2), kernel // 2 + 1):
                    other = code - up * side + across
                    if 0 <= other <= code:
                        seen[code, other] = True
    return seen


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("side, kernel", [(4, 3), (5, 3), (7, 5)])
def test_patterns_are_what_their_descriptions_say(name, side, kernel):
    pattern = grid_pattern(name, side, kernel)
    assert torch.equal(pattern, seen_in_words(name, side, kernel))
    mask = after_text(pattern, 6)
    assert mask[6:, :6].all() and torch.equal(mask[6:, 6:], pattern)
    assert torch.equal(mask[:6], torch.ones(6, 6 + side * side, dtype=torch.bool).tril())


def test_figure_11():
    """The figure's grid of 4 x 4: the row, the column and the 3 x 3 window of the last code."""
    rows = {name: grid_pattern(name, 4, 3)[-1].nonzero().flatten().tolist() for name in PATTERNS}
    assert rows["paper_row"] == [11, 12, 13, 14, 15]
    assert rows["axial_col"] == [3, 7, 11, 15]
    assert rows["paper_conv"] == [10, 11, 12, 14, 15]
    assert rows["axial_row"] == [12, 13, 14, 15] and rows["conv_like"] == [5, 6, 7, 9, 10, 11, 13, 14, 15]


@pytest.mark.parametrize("name", PATTERNS)
def test_logits_depend_on_what_a_pattern_shows_and_on_nothing_else(name):
    """One layer without token shift: a gradient reaches exactly the tokens that the place may see."""
    torch.manual_seed(0)
    config = DalleConfig(**SIZES, depth=1, head_width=16, image_length=16, kernel=3, attention=(name,), shift=False)
    model = Dalle(config).double().eval()
    tokens = torch.cat([torch.randint(50, (1, 9)), torch.randint(58, 98, (1, 15))], dim=1)
    inputs: list[Tensor] = []
    model.tokens.register_forward_hook(lambda _m, _i, out: inputs.append(out.requires_grad_()))
    states = model.states(tokens)
    weights = torch.randn(32, dtype=torch.float64)
    for place in range(9, 24):
        (gradient,) = torch.autograd.grad((states[0, place] * weights).sum(), inputs[0], retain_graph=True)
        reached = gradient[0].abs().amax(1) > 0
        assert reached[:9].all()
        assert torch.equal(reached[9:], grid_pattern(name, 4, 3)[place - 9, :15])


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("name", PATTERNS)
@torch.no_grad()
def test_one_token_at_a_time_is_the_whole_at_once(name, rotary, shift):
    torch.manual_seed(0)
    config = DalleConfig(
        **SIZES, depth=2, head_width=16, image_length=16, kernel=3, attention=(name, "full"), rotary=rotary, shift=shift
    )
    model = Dalle(config).eval()
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    text, codes = torch.randint(50, (3, 8)), torch.randint(40, (3, 15))
    tokens = torch.cat([model.prompt(text), model.code_tokens(codes)], dim=1)
    whole = model(tokens)
    assert whole.shape == (3, 24, 98)
    for first in (1, 9, 13):  # the prompt in one call or token by token, with some codes or without
        cache = model.make_cache(3, config.context)
        pieces = [step(model, tokens[:, :first], torch.arange(first), cache)]
        for n in range(first, 24):
            pieces.append(step(model, tokens[:, n : n + 1], torch.tensor([n]), cache))
        torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=1e-5, rtol=0)


def test_token_shift_moves_quarters():
    x = torch.arange(1.0, 14).reshape(1, 13, 1).expand(1, 13, 4)  # 4 of text, a grid of 3 x 3; each token its number
    moved = TokenShift(4, 3)(x)[0]
    assert moved[:4, 0].tolist() == [0, 1, 2, 3] and moved[:4, 1].tolist() == [0, 1, 2, 3]
    assert moved[4:, 0].tolist() == [0, 0, 0, 5, 6, 7, 8, 9, 10]  # from above
    assert moved[4:, 1].tolist() == [0, 5, 6, 0, 8, 9, 0, 11, 12]  # from the left
    assert torch.equal(moved[:, 2:], x[0, :, 2:])


def test_each_pad_has_an_id_of_its_place():
    model = Dalle(CASES["dalle_plain_a"])
    text = torch.tensor([[3, 4, 0, 0, 0, 5, 0, 0]])
    assert model.prompt(text).tolist() == [[0, 3, 4, 52, 53, 54, 5, 56, 57]]
    assert text.tolist() == [[3, 4, 0, 0, 0, 5, 0, 0]]


def test_task_learns_words_too():
    torch.manual_seed(0)
    model, task = Dalle(CASES["dalle_rotary_shift_a"]), TextToImage()
    batch = CodeBatch(torch.randint(50, (4, 8)), torch.randint(40, (4, 16)), torch.arange(4))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    before = task.compute_metrics(measure_split(model, [batch]))
    for _ in range(30):
        loss, losses = task.loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = task.compute_metrics(measure_split(model, [batch]))
    assert after["bits_per_code"] < 0.5 * before["bits_per_code"] and after["text_nats"] < before["text_nats"]
    assert losses.keys() == {"bits_per_code", "text_nats"}


@pytest.mark.parametrize(
    "settings, expected",
    [
        (dict(image_length=15), "square"),
        (dict(attention=("axial_rows",)), "did you mean axial_row"),
        (dict(width=30), "quarters"),
    ],
)
def test_wrong_settings_are_refused(settings, expected):
    with pytest.raises(ValueError, match=expected):
        DalleConfig(**SIZES | dict(depth=1, head_width=16, image_length=16) | settings)


def test_wrong_input_is_refused_in_one_line():
    model = Dalle(CASES["dalle_plain_a"])
    zeros = torch.zeros(1, 9, dtype=torch.int64)
    for call, expected in [
        (lambda: model(zeros.float()), "int64"),
        (lambda: model(zeros + 98), "0 to 97"),
        (lambda: model(zeros.repeat(1, 3)), "at most 24"),
        (lambda: model(zeros, positions=torch.arange(1, 10)), "positions 0, 1"),
        (lambda: model.code_tokens(zeros + 40), "0 to 39"),
    ]:
        with pytest.raises(ValueError, match=expected) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_groups_cover_every_parameter_once():
    for model in (Dalle(CASES["dalle_plain_a"]), create_model("dalle_nano")):
        for name, _ in model.named_parameters():
            assert sum(name.startswith(group) for group in model.layer_groups()) == 1, name
