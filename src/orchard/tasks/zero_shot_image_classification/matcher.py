"""CLIP at work: what is on a picture, which of these pictures or sentences fit, which of the painted ones is best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from orchard.data.clip_bpe import read_clip_bpe
from orchard.data.contracts import Preprocess
from orchard.data.preprocess import LUMA
from orchard.data.resample import fit_pixels
from orchard.data.text_tokenizer import SentenceEncoder
from orchard.data.tokenizers import Tokenizer, load_tokenizer
from orchard.errors import OrchardError, UsageError
from orchard.inference.loading import Loaded, load
from orchard.models.image_text.clip import CLIP, CLIPConfig
from orchard.tasks.zero_shot_image_classification import TASK

TOKENIZER = "text_tokenizer"  # folder in a model's folder
MERGES = "bpe_simple_vocab_16e6.txt.gz"  # OpenAI's own file, for weights of theirs: it is laid into the model's folder
Encode = Callable[
    [str], Tensor
]  # a sentence to (context,) int64, framed (`orchard.tasks.zero_shot_image_classification.objective.frame`)
PROMPTS = ("a photo of a {}.",)  # the paper's plainest; a model of other captions wants sentences like those
BATCH = 64


@dataclass(frozen=True)
class Ranking:
    """What fits best first: the places of N candidates, (N,) int64, and the cosine of each in that order, (N,)."""

    order: Tensor
    scores: Tensor


class Matcher:
    """A trained CLIP and what brings sentences and pictures to it.

    Pictures are (B, C, H, W), uint8 or float in [0, 1], grey or RGB, of any size; they go through `preprocess` as in
    training. The work is done where the model is; answers come back to the CPU.
    """

    def __init__(self, model: CLIP, encode: SentenceEncoder, preprocess: Preprocess):
        self.model = model.eval()
        self.encode = self.encoder = encode
        self.preprocess = preprocess
        self.device = model.logit_scale.device

    @torch.no_grad()
    def image_features(self, pictures: Tensor) -> Tensor:
        """(B, D), of length one."""
        if not len(pictures):
            raise UsageError("no picture was given; name at least one")
        parts = [self.model.image_features(self._prepare(pictures[n : n + BATCH])) for n in _starts(pictures)]
        return torch.cat(parts).float().cpu()

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """(N, D), of length one."""
        if not texts:
            raise UsageError("no sentence was given; name at least one")
        if not all(text.strip() for text in texts):
            raise UsageError("a sentence is empty; say what is looked for")
        parts = [torch.stack([self.encode(text) for text in texts[n : n + BATCH]]) for n in _starts(texts)]
        return torch.cat([self.model.text_features(part.to(self.device)) for part in parts]).float().cpu()

    def class_features(self, classes: Sequence[str], templates: Sequence[str] = PROMPTS) -> Tensor:
        """(K, D), of length one: for each class the mean of its prompts (section 3.1.4), "{}" standing for its name."""
        plain = [template for template in templates if "{}" not in template]
        if plain or not templates:
            raise UsageError(f"a template needs a {{}} where the class stands, got {plain or 'none at all'}")
        prompts = [template.replace("{}", name) for name in classes for template in templates]
        features = self.text_features(prompts).view(len(classes), len(templates), -1)
        return F.normalize(features.mean(1), dim=1)

    def classify(self, pictures: Tensor, classes: Sequence[str], templates: Sequence[str] = PROMPTS) -> Tensor:
        """Zero-shot classification: the probability of each class, (B, K), whatever the classes are."""
        cosines = self.image_features(pictures) @ self.class_features(classes, templates).T
        return (self.model.logit_scale.detach().exp().cpu() * cosines).softmax(1)

    def rank_texts(self, picture: Tensor, texts: Sequence[str]) -> Ranking:
        """The sentences that fit one picture (C, H, W) best."""
        return _ranking(self.text_features(texts) @ self.image_features(picture[None])[0])

    def rank_pictures(self, pictures: Tensor, text: str) -> Ranking:
        """The pictures that fit a sentence best, whether they were found or painted for it."""
        return _ranking(self.image_features(pictures) @ self.text_features([text])[0])

    def _prepare(self, pictures: Tensor) -> Tensor:
        """With the right channels, cut, resized and normalised, on the model's device."""
        wanted = self.preprocess
        x = pictures.to(self.device)
        x = x.float() if x.dtype == torch.uint8 else 255 * x
        if x.shape[1] == 3 and wanted.channels == 1:
            x = torch.einsum("bchw,c->bhw", x, x.new_tensor(LUMA))[:, None]
        elif x.shape[1] == 1:
            x = x.expand(-1, wanted.channels, -1, -1)
        return wanted.normalise(fit_pixels(x, wanted))


def encoder_of(tokenizer: Tokenizer, context: int) -> SentenceEncoder:
    """Sentences as models trained here read them: START and END have the two ids that follow the tokenizer's own."""
    return SentenceEncoder(tokenizer.encode, context, tokenizer.vocabulary, tokenizer.vocabulary + 1)


def read_encoder(folder: Path, config: CLIPConfig) -> SentenceEncoder:
    """What brings sentences to the model in `folder`; OrchardError where that is missing or of another model."""
    if (folder / MERGES).is_file():
        return read_clip_bpe(folder / MERGES, config.context)
    if not (folder / TOKENIZER).is_dir():
        raise OrchardError(
            f"{folder} has no {TOKENIZER}, so sentences cannot be read; models trained here have one, and OpenAI's "
            f"need their {MERGES} beside the weights"
        )
    tokenizer = load_tokenizer(folder / TOKENIZER)
    if tokenizer.vocabulary + 2 != config.vocabulary:
        raise OrchardError(
            f"{folder / TOKENIZER} has {tokenizer.vocabulary} tokens, the model expects {config.vocabulary - 2} and "
            "two for start and end; is it of another model?"
        )
    return encoder_of(tokenizer, config.context)


def load_matcher(path: str | Path) -> Matcher:
    """The CLIP of a run or of a model's folder, with its tokenizer, on a GPU where there is one.

    Raises UsageError where there is no such model, OrchardError for one that is not whole.
    """
    return matcher_of(load(path))


def matcher_of(loaded: Loaded) -> Matcher:
    """As `load_matcher`, of a model that is loaded already."""
    if not isinstance(loaded.model, CLIP):
        raise UsageError(f"{loaded.folder} is for {loaded.task}; text and pictures are matched by {TASK.name}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encode = read_encoder(loaded.folder, loaded.model.config)
    return Matcher(loaded.model.to(device), encode, loaded.pictures)


def _starts(rows: Sequence[str] | Tensor) -> range:
    return range(0, len(rows), BATCH)


def _ranking(cosines: Tensor) -> Ranking:
    scores, order = cosines.sort(descending=True, stable=True)
    return Ranking(order, scores)
