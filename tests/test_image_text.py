"""Pictures and sentences: the loss and the figures of search on cases that can be worked out, and CLIP put to work."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.data.contracts import Preprocess
from orchard.data.text_tokenizer import add_special_tokens
from orchard.errors import UsageError
from orchard.models import create_model
from orchard.models.image_text.clip import CLIPOutput
from orchard.tasks.zero_shot_image_classification.matcher import Matcher
from orchard.tasks.zero_shot_image_classification.objective import (
    MOST_SCALE,
    Features,
    ImageText,
    PairBatch,
    embed_split,
)

WORDS = {name: n for n, name in enumerate(("dark", "light", "left", "right", "top", "bottom", "a"), 1)}
START, END = 62, 63
SIZE = dict(vision_width=32, vision_depth=2, text_width=32, vocabulary=64, context=8)


def encode(text: str) -> Tensor:
    return add_special_tokens([WORDS[word] for word in text.split()], SIZE["context"], START, END)


def pictures() -> tuple[Tensor, list[str]]:
    """Eight pictures (8, 1, 28, 28) uint8, a dark or light half on one of four sides, and what they show."""
    sides = {"left": (slice(None), slice(14)), "right": (slice(None), slice(14, None))}
    sides |= {"top": (slice(14), slice(None)), "bottom": (slice(14, None), slice(None))}
    images, texts = torch.full((8, 1, 28, 28), 128, dtype=torch.uint8), []
    for n, (shade, side) in enumerate((shade, side) for shade in ("dark", "light") for side in sides):
        images[n, 0][sides[side]] = 0 if shade == "dark" else 255
        texts.append(f"{shade} {side}")
    return images, texts


PREPROCESS = Preprocess((28, 28), 1, (0.5,), (0.5,), resize="stretch")


def pairs() -> PairBatch:
    images, texts = pictures()
    return PairBatch(PREPROCESS.normalise(images), torch.stack([encode(text) for text in texts]), torch.arange(8))


def features(images: Tensor, texts: Tensor, picture_keys: list[int], text_keys: list[int]) -> Features:
    keys = torch.tensor(picture_keys), torch.tensor(text_keys)
    return Features(F.normalize(images), F.normalize(texts), *keys, torch.arange(len(images)), 10.0)


@pytest.fixture(scope="module")
def learned() -> nn.Module:
    torch.manual_seed(0)
    model = create_model("clip_nano", **SIZE)
    task, batch = ImageText(), pairs()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(150):
        loss, outputs = task.loss(model.train(), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    assert outputs["accuracy"] == 1
    return model.eval()


def test_learns_to_match(learned: nn.Module) -> None:
    figures = ImageText().compute_metrics(embed_split(learned, pairs().parts(3)))
    assert figures["mean_reciprocal_rank"] == 1
    assert figures["image_to_text_recall_at_1"] == figures["text_to_image_recall_at_1"] == 1
    assert figures["loss"] == pytest.approx(ImageText().loss(learned, pairs())[0].item(), abs=1e-4)


def test_learned_model_classifies_and_searches(learned: nn.Module) -> None:
    images, texts = pictures()
    matcher = Matcher(learned, encode, PREPROCESS)
    chances = matcher.classify(images, texts, templates=("{}",))
    torch.testing.assert_close(chances.sum(1), torch.ones(8))
    assert chances.argmax(1).tolist() == list(range(8))
    sides = matcher.classify(images, ("left", "right"), templates=("dark {}", "light {}"))
    assert sides.shape == (8, 2) and [int(sides[n].argmax()) for n in (0, 1, 4, 5)] == [0, 1, 0, 1]
    for n, text in enumerate(texts):
        found = matcher.rank_pictures(images, text)
        assert found.order[0] == n and sorted(found.order.tolist()) == list(range(8))
        assert (found.scores.diff() <= 0).all() and found.scores[0] <= 1 + 1e-6
        assert matcher.rank_texts(images[n], texts).order[0] == n


def test_pictures_of_any_form_are_prepared(learned: nn.Module) -> None:
    images, texts = pictures()
    matcher = Matcher(learned, encode, PREPROCESS)
    plain = matcher.image_features(images)
    torch.testing.assert_close(matcher.image_features(images / 255), plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(matcher.image_features(images.expand(-1, 3, -1, -1)), plain, atol=1e-4, rtol=0)
    large = images.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert [int(matcher.rank_texts(image, texts).order[0]) for image in large] == list(range(8))


def test_what_cannot_be_asked(learned: nn.Module) -> None:
    matcher = Matcher(learned, encode, PREPROCESS)
    images, texts = pictures()
    with pytest.raises(UsageError, match="where the class stands"):
        matcher.classify(images, texts, templates=("a",))
    with pytest.raises(UsageError, match="no sentence"):
        matcher.rank_texts(images[0], [])
    with pytest.raises(UsageError, match="no picture"):
        matcher.rank_pictures(images[:0], texts[0])


def test_figures_of_a_case_worked_out_by_hand() -> None:
    """Three pictures, four sentences: picture 0 has sentences 0 and 1, and sentence 2 belongs to pictures 1 and 2."""
    axes = torch.eye(4)
    a, b, c = axes[:3]
    texts = torch.stack([a + 0.5 * b, c, b, axes[3]])
    rows = [(0, 0), (0, 1), (1, 2), (2, 2), (2, 3)]
    found = ImageText().compute_metrics(
        features(
            torch.stack([(a, b, c)[i] for i, _ in rows]),
            torch.stack([texts[t] for _, t in rows]),
            [i for i, _ in rows],
            [t for _, t in rows],
        )
    )
    # Cosines, pictures by sentences: [.9 0 0 0], [.4 0 1 0], [0 1 0 0]. Picture 2 has sentence 1 before its own two,
    # which tie with sentence 0: rank 3. Sentences 1 and 3 have no better than a tie at 0 with the wrong ones: rank 3.
    assert found["image_to_text_recall_at_1"] == pytest.approx(2 / 3)
    assert found["image_to_text_mean_rank"] == pytest.approx((1 + 1 + 3) / 3)
    assert found["text_to_image_recall_at_1"] == pytest.approx(2 / 4)
    assert found["text_to_image_recall_at_5"] == 1
    assert found["text_to_image_mean_rank"] == pytest.approx((1 + 3 + 1 + 3) / 4)
    reciprocal = ((1 + 1 + 1 / 3) / 3 + (1 + 1 / 3 + 1 + 1 / 3) / 4) / 2
    assert found["mean_reciprocal_rank"] == pytest.approx(reciprocal)


def test_a_model_that_knows_nothing_finds_nothing() -> None:
    same = torch.ones(20, 4)
    found = ImageText().compute_metrics(features(same, same, list(range(20)), list(range(20))))
    assert found["image_to_text_recall_at_10"] == 0 and found["image_to_text_mean_rank"] == 20
    assert found["loss"] == pytest.approx(math.log(20), abs=1e-5)


def test_features_come_back_in_the_order_of_the_split() -> None:
    torch.manual_seed(0)
    model, batch = create_model("clip_nano", **SIZE).eval(), pairs()
    whole = embed_split(model, [batch])
    turned = PairBatch(batch.images.flip(0), batch.tokens.flip(0), batch.indices.flip(0))
    parts = Features.merge([embed_split(model, [part]) for part in turned.parts(2)])
    assert torch.equal(parts.indices, whole.indices) and torch.equal(parts.picture_keys, whole.picture_keys)
    torch.testing.assert_close(parts.images, whole.images, atol=1e-5, rtol=0)
    assert len(whole.picture_keys.unique()) == len(whole.text_keys.unique()) == 8
    short = PairBatch(batch.images, batch.tokens[:, :4], batch.indices)  # as long as these sentences need
    assert torch.equal(embed_split(model, [short]).text_keys, whole.text_keys)


class Given(nn.Module):
    """A model that gives the logits it is told."""

    def __init__(self, logits: Tensor):
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.logit_scale = nn.Parameter(torch.tensor(9.0))

    def forward(self, images: Tensor, tokens: Tensor) -> CLIPOutput:
        return CLIPOutput(images, tokens, self.logits)


def test_loss_is_both_cross_entropies_and_bounds_the_scale() -> None:
    model = Given(torch.tensor([[2.0, 0.0], [1.0, 3.0]]))
    batch = PairBatch(torch.zeros(2, 1, 1, 1), torch.tensor([[1, 9], [2, 9]]), torch.arange(2))
    loss, outputs = ImageText().loss(model.eval(), batch)
    assert model.logit_scale.item() == 9
    nll = [math.log1p(math.exp(-gap)) for gap in (2, 2, 1, 3)]  # rows, then columns
    assert loss.item() == pytest.approx(sum(nll) / 4, abs=1e-6)
    ImageText().loss(model.train(), batch)
    assert model.logit_scale.item() == pytest.approx(MOST_SCALE)
    assert outputs["accuracy"] == 1


def test_equal_sentences_are_asked_for_alike() -> None:
    """With two rows that read the same, the gradient is that of either of them being right."""
    torch.manual_seed(0)
    images, texts = torch.randn(3, 5), torch.randn(2, 5, requires_grad=True)
    tokens = torch.tensor([[1, 9], [1, 9], [2, 9]])
    logits = images @ texts[[0, 0, 1]].T
    batch = PairBatch(images, tokens, torch.arange(3))
    model = nn.Module()
    model.forward = lambda images, tokens: CLIPOutput(images, texts, logits)  # type: ignore[method-assign]
    loss, _ = ImageText().loss(model.eval(), batch)
    soft = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    wanted = (F.cross_entropy(logits, soft) + F.cross_entropy(logits.T, soft)) / 2
    found = torch.autograd.grad(loss, texts, retain_graph=True)[0]
    torch.testing.assert_close(found, torch.autograd.grad(wanted, texts)[0])
    chosen = torch.tensor([[0.0, 9, 0], [9, 0, 0], [0, 0, 9]])
    assert ImageText().accuracy(chosen, tokens) == 1


def test_frames() -> None:
    assert add_special_tokens([5, 6], 6, 8, 9).tolist() == [8, 5, 6, 9, 0, 0]
    assert add_special_tokens([5, 6, 7, 5], 5, 8, 9).tolist() == [8, 5, 6, 7, 9]
    assert add_special_tokens([], 3, 1, 9).tolist() == [1, 9, 0]
    with pytest.raises(ValueError, match="id 12 is not smaller"):
        add_special_tokens([12], 6, 8, 9)


def test_batches_move_and_split() -> None:
    batch = pairs().to("cpu", channels_last=True)
    assert len(batch) == 8 and [len(part) for part in batch.parts(3)] == [3, 3, 2]
    assert torch.equal(torch.cat([part.tokens for part in batch.parts(3)]), batch.tokens)
