"""Settings of data: how files become splits, how images are varied, how text becomes tokens. Read without torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationInfo, field_validator

Resize = Literal["shorter-side", "stretch", "letterbox"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Target = Literal["class", "classes", "number"]
TokenizerName = Literal["bytes", "characters", "chinese", "bpe", "wordpiece", "unigram", "words", "whitespace"]
TOKENIZERS = (
    "bytes; characters of the training text; chinese (GB 2312); byte-level BPE; WordPiece; unigram pieces (as "
    "SentencePiece); words in lower case, signs apart; whitespace: what stands between spaces (for text-generation)"
)


class Settings(BaseModel):
    """Settings that refuse what they do not know, and what is not a finite number."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False, defer_build=True)


class DataSettings(Settings):
    """How files become splits."""

    root: str | None = Field(None, description="folder that holds a named set's files (mnist, cifar10, ...)")
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="share of train held out where no split is given")
    test_fraction: float = Field(0.1, ge=0, lt=1, description="share of a set without splits kept for the test")
    split_seed: int = Field(0, description="seed of the splits that we make ourselves")
    bad_records: Literal["refuse", "skip"] = Field("refuse", description="what to do with a record that cannot be read")
    workers: int | None = Field(
        None, ge=0, description="processes that make batches; default: chosen from image size and cores"
    )
    _training: bool = PrivateAttr(True)

    @property
    def training(self) -> bool:
        """Is there to be something to learn from? If not, a set needs no training records, and may have one class."""
        return self._training

    @property
    def whole(self) -> bool:
        """Is all of a set without splits its test?"""
        return self.test_fraction == 1

    @property
    def held_fold(self) -> tuple[int, int] | None:
        """Which of how many folds is the validation split; None where data are not cut into folds."""
        return None

    def for_evaluation(self, *, whole: bool) -> Self:
        """The same for a model that is there; `whole`: of a set without splits all is its test."""
        copy = self.model_copy(update={"test_fraction": 1.0} if whole else None)
        copy._training = False
        return copy


class LabelColumns(Settings):
    """Which columns of a table are labels and splits, by their names in the header."""

    label: str | tuple[str, ...] | None = Field(
        None, description="column with its class, or several with 0 and 1 or with numbers, as a,b,c; default: label, "
        "class or category, else all others where they hold 0 and 1",
    )  # fmt: skip
    split: str | None = Field(None, description="column with its split; default: split, where there is one")

    @field_validator("label", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        """`a,b,c`, as the command line has it, is a list; a comma in a name takes the list as JSON."""
        return tuple(map(str.strip, value.split(","))) if isinstance(value, str) and "," in value else value

    @field_validator("label")
    @classmethod
    def _each_once(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if isinstance(value, tuple) and (not all(value) or len({*map(str.lower, value)}) < len(value) or not value):
            raise ValueError("expected names of columns, each once")
        return value


class ImageColumns(LabelColumns):
    """Which column of a table of images is what, by its name in the header."""

    path: str | None = Field(None, description="column with the image's path; default: path, file, filename or image")


class LabelSettings(DataSettings):
    """How records with labels become splits."""

    target: Target | None = Field(
        None, description="what is learned of a record: its class, several classes (multi-label) or a number "
        "(regression); default: found by looking, and a number where it is said",
    )  # fmt: skip
    label_separator: str | None = Field(
        None, min_length=1, description="what stands between the labels of a record in one field, such as ;"
    )
    folds: int | None = Field(
        None, ge=2, description="parts into which train and validation are cut for cross-validation, by content and "
        "class; orchard train --folds sets both",
    )  # fmt: skip
    fold: int | None = Field(None, ge=0, description="which of the folds, from 0, is the validation split")

    @field_validator("fold")
    @classmethod
    def _one_of_the_folds(cls, value: int | None, others: ValidationInfo) -> int | None:
        folds = others.data.get("folds")
        if (value is None) != (folds is None):
            raise ValueError("data.fold and data.folds are set together")
        if value is not None and folds is not None and value >= folds:
            raise ValueError(f"expected 0 to {folds - 1}, as data.folds={folds}")
        return value

    @property
    def held_fold(self) -> tuple[int, int] | None:
        return None if self.fold is None or self.folds is None else (self.fold, self.folds)


class FolderSettings(LabelSettings):
    """How files of images with classes become splits."""

    classes: Literal["top", "leaf", "path"] = Field(
        "top", description="class of an image in nested folders: the outermost, the innermost, or all of them"
    )
    columns: ImageColumns = Field(default_factory=ImageColumns, description="columns of a table of images")


class LabelledTextColumns(LabelColumns):
    """Which column of a table of texts with labels is what: by its name, or by its number, counted from 1."""

    text: str | int | None = Field(
        None, description="column with the text; default: text, sentence, review and the like, else the longest"
    )
    text_pair: str | int | None = Field(
        None, description="column with a second text; default: sentence2, hypothesis and the like, where there is one"
    )


class LabelledTextSettings(LabelSettings):
    """How texts with labels become splits."""

    columns: LabelledTextColumns = Field(
        default_factory=LabelledTextColumns, description="columns of a table of texts"
    )  # fmt: skip
    column_names: tuple[str, ...] = Field(
        (), description="names of the columns of a table without a header, as a,b,c or as label:str:1,text:str:1"
    )

    @field_validator("column_names", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        """EasyNLP's notation has types and lengths behind the names."""
        return tuple(one.split(":")[0].strip() for one in value.split(",")) if isinstance(value, str) else value


class PreprocessSettings(Settings):
    """How an image of any size becomes what a model sees. What is left open fits the data, or is the weights' own where
    a training starts from some."""

    resize: Resize | None = Field(
        None,
        description="shorter-side: the middle is kept; stretch: to the model's size, whatever the aspect; letterbox: "
        "the whole image on the mean colour; default: stretch for images up to 64 pixels, else shorter-side",
    )
    crop: float | None = Field(
        None, gt=0, le=1, description="share of the shorter side that is kept (of both, unless shorter-side); default: "
        "0.875 for images over 64 pixels whose shorter side is resized, else 1",
    )  # fmt: skip
    mean: tuple[Annotated[float, Field(ge=0, le=1)], ...] | None = Field(
        None,
        description="subtracted from pixels in [0, 1]: one value, or one of each channel; default: ImageNet's for RGB "
        "files, else measured",
    )  # fmt: skip
    std: tuple[Annotated[float, Field(gt=0, le=1)], ...] | None = Field(
        None, description="what is left is divided by it: one value, or one of each channel; as mean"
    )
    interpolation: Interpolation | None = Field(
        None, description="of resizing, antialiased unless nearest; default: bilinear"
    )

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        return (value,) if isinstance(value, int | float) else value


class AugmentSettings(Settings):
    """How training pictures are varied. Everything is off unless a recipe or a person asks for it."""

    crop: Literal["none", "pad", "resized"] = Field(
        "none", description="none: as in evaluation; pad: shifted crop of the padded picture; resized: random area"
    )
    pad: int = Field(4, ge=0, description="pixels added on each side before a shifted crop")
    padding: Literal["zero", "edge", "reflect"] = Field(
        "zero", description="what a shifted crop, a turn or a shift brings in: black, the outermost pixels again, or a "
        "mirror image",
    )  # fmt: skip
    area: tuple[float, float] = Field((0.08, 1.0), description="smallest and largest share of a resized crop")
    flip: bool = Field(False, description="mirror left and right half of the time")
    rotate: float = Field(0.0, ge=0, le=180, description="largest turn in degrees, either way")
    scale: float = Field(0.0, ge=0, lt=1, description="largest change of size, as a share")
    shift: float = Field(0.0, ge=0, lt=1, description="largest shift, as a share of the side")
    color: float = Field(0.0, ge=0, le=1, description="strength of random brightness, contrast and saturation")
    erase: float = Field(0.0, ge=0, le=1, description="probability that a random rectangle is blanked")
    grayscale: float = Field(0.0, ge=0, le=1, description="probability that a picture loses its colours")
    blur: float = Field(0.0, ge=0, le=1, description="probability of a Gaussian blur, of 0.1 to 2 pixels")
    policy: Literal["none", "randaugment", "autoaugment", "trivialaugment"] = Field(
        "none", description="a published policy, as torchvision has it, before all else"
    )
    operations: int = Field(2, ge=1, description="operations of randaugment on each picture")
    magnitude: int = Field(9, ge=0, le=30, description="strength of randaugment's operations")


class MixSettings(AugmentSettings):
    """Augmentation of images with classes, which may also be mixed with one another."""

    mixup: float = Field(0.0, ge=0, description="alpha of mixup's beta distribution (arXiv:1710.09412)")
    cutmix: float = Field(0.0, ge=0, description="alpha of cutmix's beta distribution (arXiv:1905.04899)")


class Columns(Settings):
    """Which column of a table is what: by its name in the header, or by its number, counted from 1."""

    idx: str | int | None = Field(None, description="column with the record's own name")
    text: str | int | None = Field(None, description="column with the caption")
    picture: str | int | None = Field(None, description="column with the picture in base64, or with its path")


class CaptionSettings(DataSettings):
    """How files of pictures with captions become splits."""

    columns: Columns = Field(default_factory=Columns, description="columns of a table; default: found by looking")
    header: Literal["auto", "yes", "no"] = Field("auto", description="whether a table's first line names its columns")
    language: Literal["en", "zh"] = Field("en", description="language of a named set's captions")
    templates: tuple[str, ...] | None = Field(
        None, description="wordings for a named set's training captions, with {} for the class; default: our own"
    )


class MaskSettings(DataSettings):
    """How files of images with masks become splits."""

    ignore_index: int | None = Field(
        None, ge=0, le=255, description="number in masks of pixels that are not learned and not counted, beside 255"
    )


class Source(DataSettings):
    """Data of any kind, and where it is."""

    source: str = Field(description="a named set, or the path of what holds the data: a folder, an archive, a file")


class ImageSource(FolderSettings, Source):
    """Images with classes, and where they are."""

    labels_per_class: int | None = Field(
        None, ge=1, description="learn from only so many images of each class, chosen by the random seed"
    )


class LabelledTextSource(LabelledTextSettings, Source):
    """Texts with labels, and where they are."""


class MaskSource(MaskSettings, Source):
    """Images with masks, and where they are."""


class TextColumns(Settings):
    """Which column of a table holds the text."""

    text: str | int | None = Field(
        None, description="column with the text, by its name or number; default: text, content, body, sentence"
    )


class TextSource(Source):
    """Text, and where it is."""

    columns: TextColumns = Field(default_factory=TextColumns, description="columns of a table of texts")
    pattern: str | None = Field(None, description="files that are read as text, such as *.py; default: *.txt and *.md")


class TextPairSource(Source):
    """Text in pairs, and where it is."""

    source_language: str | None = Field(
        None, description="what is read: the ending of its files, or the name of its column; default: the first found"
    )
    target_language: str | None = Field(None, description="what is written; default: the other one")


class TaggedTextSource(Source):
    """Text whose words have tags, and where it is."""

    tag_column: str | int | None = Field(
        None, description="where the tags of words stand: the number of the column, from 1, or the name in JSON lines; "
        "default: the last column; ner_tags, tags or labels",
    )  # fmt: skip


class QuestionSource(Source):
    """Questions about texts, and where they are."""

    language_of: Literal["en", "de", "zh"] | None = Field(
        None, description="the language of xquad that is read; default: en"
    )


class CaptionSource(CaptionSettings, Source):
    """Images with captions, and where they are."""


class ReferenceSource(CaptionSource):
    """Images for super-resolution, with another picture of each for models that take a reference."""

    reference: Literal["stored", "neighbour", "unrelated", "self"] | None = Field(
        None, description="of a model that takes a reference picture: stored in folders input and ref, or as NAME_0 "
        "and NAME_1; neighbour: the frame with the nearest number in its name; unrelated: an image of another "
        "sequence of frames; self: the image itself; default: stored where there are such, else neighbour",
    )  # fmt: skip


class PictureColumns(Columns, ImageColumns):
    """Which column of a table of images, with classes or with captions, is what."""


class PictureSource(FolderSettings, CaptionSource):
    """Images with classes, with captions or alone, and where they are."""

    columns: PictureColumns = Field(default_factory=PictureColumns, description="columns of a table of images")


class AnyColumns(Columns, ImageColumns, LabelledTextColumns, TextColumns):
    """Which column of any table is what."""


class AnySource(
    ImageSource,
    CaptionSource,
    MaskSource,
    LabelledTextSource,
    TextPairSource,
    TaggedTextSource,
    QuestionSource,
    TextSource,
):
    """Data of any kind, for who only looks at it."""

    columns: AnyColumns = Field(default_factory=AnyColumns, description="columns of a table; default: found by looking")


class TextSettings(Settings):
    """How text becomes tokens; a run or model that is resumed or fine-tuned keeps the tokenizer it has."""

    tokenizer: TokenizerName = Field("characters", description=TOKENIZERS)
    vocabulary: int = Field(4096, ge=257, description="tokens of a tokenizer that is learned from the training text")
    files: tuple[str, ...] = Field(
        (), description="vocab.json and merges.txt of a BPE, or the vocab.txt of a WordPiece; default: one is learned"
    )
    length: int = Field(32, ge=1, description="tokens of a caption; longer ones are cut")
