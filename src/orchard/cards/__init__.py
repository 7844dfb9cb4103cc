"""The cards: one flat TOML file of facts per landmark, read without importing torch.

A card says what a landmark is (paper, year, idea, ancestors), which variants it has and how large they are,
what proves it (references), how it learns (recipes) and where the reference departs from the paper. How large the
variants are is counted, not written: `sizes.json`, made by `python -m orchard.weights.sizes`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchard.cache import cache_folder, is_kept, keep, scratch
from orchard.errors import OrchardError, UsageError, unknown

FOLDER = Path(__file__).parent
FOREIGN = ("timm:", "hf:", "module:")  # how models of others begin, a person's own too, which have no cards
SIZES = FOLDER / "sizes.json"
# What recipes call one's own data.
ANY = ("images", "text", "captions", "boxes", "masks", "panoptic", "text-pairs", "environments", "tagged-text",
       "questions")  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """One size of a landmark, as the field counts it; 0 where it has not been counted yet."""

    parameters: int  # trainable parameters at the configuration of the variant's name
    macs: int  # multiply-adds of one picture (or sequence) at the standard input
    note: str = ""


@dataclass(frozen=True)
class LossReference:
    """A landmark's own loss, and the reference's values and gradients of it.

    `function` is `module:function` or `module:Class.method`; it is called with our model and `inputs`, and returns a
    scalar or several in a mapping or dataclass. The tables give, for names of ours, those of the reference.
    """

    function: str
    inputs: dict[str, str]  # its arguments (a golden case: tensors named so after "in.", else after "out.")
    outputs: dict[str, str] = field(default_factory=lambda: {"": "loss"})  # what is compared; empty: the scalar itself
    gradients: dict[str, str] = field(default_factory=dict)  # golden cases: "grad" stands for out.grad.PARAMETER


@dataclass(frozen=True)
class Reference:
    """One thing a variant is proven against: the same weights, the same input, the same output.

    `reference` names it: the dotted path of a constructor (`torch.nn.Transformer`), in short `timm:NAME`,
    `torchvision:NAME` or `hf:CLASS`, or `golden:CASE`. `ours` and `theirs` are the overrides that make both sides the
    same small network. `inputs` gives, for arguments of our `forward`, the reference's own names for them (a golden
    case: the tensor's name after "in.", else after "out."); the one argument of a picture model needs none. `outputs`
    gives what is compared: a path into what our `forward` returns (`auxiliary.0.boxes`; empty where it returns the
    tensor itself) and the reference's path for it (a golden case: the tensor's name). `prefix` is what the names of
    this network's weights begin with where the reference keeps several networks together. `adapter` names a module of
    orchard.weights.adapters for what cannot be said here.
    """

    reference: str
    source: str  # the name table of the landmark that translates its weights
    variant: str
    ours: dict[str, Any] = field(default_factory=dict)
    theirs: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-5  # largest absolute difference of the outputs, float32 on the CPU
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=lambda: {"": "logits"})
    loss: LossReference | None = None
    prefix: str = ""
    adapter: str = ""


@dataclass(frozen=True)
class Recipe:
    """How a variant learns a data set: settings over the defaults, and what they reached."""

    model: str  # in the file, a list where several variants learn alike
    data: str  # the name of a set, or one of ANY for a person's own pictures, text or pictures with captions
    settings: dict[str, Any] = field(default_factory=dict)  # dotted keys of TrainSettings
    reached: dict[str, Any] = field(default_factory=dict)  # figures, and epochs, minutes, hardware, command
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A published result."""

    variant: str
    data: str
    metric: str
    value: float
    source: str


@dataclass(frozen=True)
class Weights:
    """Official weights that a publisher has under a URL for each variant; `orchard import VARIANT card:NAME` has them.

    A URL states its file's sha256 where that is known: as a folder of its path, behind the last hyphen of the file's
    name, or as a fragment `#sha256=...`.
    """

    name: str
    files: dict[str, str]  # the URL for each variant
    vocabulary: tuple[str, ...] = ()  # the URLs of the text tokenizer's files


@dataclass(frozen=True)
class Card:
    name: str
    label: str
    title: str
    year: int
    authors: str
    paper: str
    family: str
    task: str
    module: str
    idea: str
    diagram: str
    variants: dict[str, Variant]
    code: str = ""
    tasks: tuple[str, ...] = ()  # other tasks that its models learn, where the data that they are given are of these
    ancestors: tuple[str, ...] = ()
    deviations: tuple[str, ...] = ()
    references: tuple[Reference, ...] = ()
    recipes: tuple[Recipe, ...] = ()
    figures: tuple[Figure, ...] = ()
    weights: tuple[Weights, ...] = ()


TABLES = (("references", Reference), ("recipes", Recipe), ("figures", Figure), ("weights", Weights))


def _fill(kind: type, table: dict[str, Any], where: str) -> Any:
    """Make a dataclass from a TOML table; a key too many or too few is an error that names the card."""
    known, required = _keys(kind)
    if not known >= table.keys():
        raise OrchardError(f"{where}: {unknown('key', min(table.keys() - known), known)}")
    if not required <= table.keys():
        raise OrchardError(f"{where}: {', '.join(sorted(required - table.keys()))} missing; every card states them")
    return kind(**table)


@functools.cache
def _keys(kind: type) -> tuple[set[str], set[str]]:
    """The names of all fields of a dataclass, and of those without a default."""
    fields = dataclasses.fields(kind)
    none = dataclasses.MISSING
    return {f.name for f in fields}, {f.name for f in fields if f.default is none and f.default_factory is none}


@functools.cache
def sizes() -> dict[str, dict[str, int]]:
    """Parameters and multiply-adds of every variant that has been counted."""
    counted: dict[str, dict[str, int]] = json.loads(SIZES.read_text(encoding="utf-8"))
    return counted


def _variant(name: str, row: dict[str, Any], where: str) -> Variant:
    counted = {"parameters", "macs"} & row.keys()
    if counted:
        raise OrchardError(f"{where}: {min(counted)} is counted, not written: run python -m orchard.weights.sizes")
    variant: Variant = _fill(Variant, {"parameters": 0, "macs": 0, **sizes().get(name, {}), **row}, where)
    return variant


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    import tomllib  # here, as the cards are kept parsed

    try:
        return tomllib.loads(text.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OrchardError(f"card {path.name}: not valid TOML: {error}") from None


def _tables(paths: list[Path]) -> list[dict[str, Any]]:
    """The tables in the cards, kept as JSON under the digest of their texts: reading all as TOML takes 0.2 s."""
    texts = [path.read_bytes() for path in paths]
    digest = hashlib.sha256(b"\0".join(texts)).hexdigest()
    kept: Path | None = None
    with contextlib.suppress(OSError, OrchardError, ValueError):
        kept = cache_folder("cards") / "cards.json"
        if is_kept(kept):
            found = json.loads(kept.read_bytes())
            if found["digest"] == digest:
                tables: list[dict[str, Any]] = found["tables"]
                return tables
    tables = [_parse(path, text) for path, text in zip(paths, texts, strict=True)]
    with contextlib.suppress(OSError):
        if kept is not None:
            with scratch(kept.parent) as folder:
                (folder / kept.name).write_text(json.dumps({"digest": digest, "tables": tables}))
                keep(folder / kept.name, kept)
    return tables


def _card(path: Path, table: dict[str, Any]) -> Card:
    """The card in a table; OrchardError with the card's name where it is not of the form."""
    where = f"card {path.name}"
    table["variants"] = {
        name: _variant(name, row, f"{where}, variant {name}") for name, row in table.get("variants", {}).items()
    }
    table["references"] = [
        row | {"loss": _fill(LossReference, row["loss"], f"{where}, loss of reference {n}")} if "loss" in row else row
        for n, row in enumerate(table.get("references", []), 1)
    ]
    table["recipes"] = [  # one recipe may serve several variants
        row | {"model": model}
        for row in table.get("recipes", [])
        for model in (row["model"] if isinstance(row.get("model"), list) else [row.get("model")])
    ]
    for key, kind in TABLES:
        table[key] = tuple(_fill(kind, row, f"{where}, {key} {n}") for n, row in enumerate(table.get(key, []), 1))
    for key in ("tasks", "ancestors", "deviations"):
        table[key] = tuple(table.get(key, ()))
    card: Card = _fill(Card, table, where)
    named = [reference.variant for reference in card.references] + [recipe.model for recipe in card.recipes]
    named += [name for weights in card.weights for name in weights.files]
    for name in named + [figure.variant for figure in card.figures]:
        if name not in card.variants:
            raise OrchardError(f"{where}: {unknown('variant', name, card.variants)}")
    return card


@functools.cache
def all_cards() -> dict[str, Card]:
    """Every card by its name, oldest landmark first."""
    paths = sorted(FOLDER.glob("*.toml"))
    cards = sorted(map(_card, paths, _tables(paths)), key=lambda card: (card.year, card.name))
    return {card.name: card for card in cards}


@functools.cache
def variant_names() -> dict[str, str]:
    """The name of every variant and the card it stands in."""
    return {variant: card.name for card in all_cards().values() for variant in card.variants}


def card_of(name: str) -> Card:
    """The card of a variant or of a landmark; an unknown name is an error with the nearest known ones."""
    cards = all_cards()
    if name in cards:
        return cards[name]
    if name in variant_names():
        return cards[variant_names()[name]]
    if name.startswith(FOREIGN):
        raise UsageError(f"{name} is another library's model, which can be trained and compared here and has no card")
    raise unknown("model", name, [*variant_names(), *cards])


def descendants_of(name: str) -> list[str]:
    """The landmarks whose cards name this one as an ancestor."""
    return [card.name for card in all_cards().values() if name in card.ancestors]


def find_recipe(model: str, data: str) -> Recipe | None:
    """The recipe for this model on this set, else the model's recipe for any data of its kind, else none."""
    recipes = [recipe for recipe in card_of(model).recipes if recipe.model == model]
    for wanted in (data, *ANY):
        for recipe in recipes:
            if recipe.data == wanted:
                return recipe
    return None
