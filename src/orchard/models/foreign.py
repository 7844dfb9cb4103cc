"""Models of others, `timm:NAME`, `hf:NAME` and a person's own module, as contestants with a landmark's manners.

Those of libraries are built with fresh weights for the classes at hand. All offer what is asked of a model: `config`,
`forward`, `head_name` and `layer_groups`. No landmark is made of them.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from orchard.errors import OrchardError, UsageError, first_line, unknown
from orchard.given import MODULE, source_of
from orchard.nn.checks import check_images

LIBRARIES = ("timm", "hf")
OTHERS = (*LIBRARIES, MODULE)


@dataclass(frozen=True)
class ForeignConfig:
    num_classes: int
    in_channels: int
    image_size: int | tuple[int, int]  # one side, or height and width

    @property
    def image_hw(self) -> tuple[int, int]:
        side = self.image_size
        return (side, side) if isinstance(side, int) else (side[0], side[1])


class Foreign(nn.Module):
    """A classifier of others, or a person's own: images (B, C, H, W), normalised, to logits (B, num_classes)."""

    def __init__(self, model: nn.Module, config: ForeignConfig, head: str, groups: list[tuple[str, ...]]):
        super().__init__()
        self.model = model
        self.config = config
        self.head_name = f"model.{head}"
        self._groups = [tuple(f"model.{prefix}" for prefix in group) for group in groups]

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.config.in_channels, self.config.image_hw)
        out = self.model(images)
        logits: Tensor = out if isinstance(out, Tensor) else out.logits
        return logits

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, as far as the library tells."""
        return self._groups


def is_foreign(name: str) -> bool:
    return name.partition(":")[0] in OTHERS and ":" in name


def create_foreign(
    name: str, *, num_classes: int = 1000, in_channels: int = 3, image_size: int | tuple[int, int] | None = None
) -> Foreign:
    """Build `timm:NAME` or `hf:NAME` with fresh weights; without `image_size`, at the size the library gives it.

    `hf:` takes a model type of transformers (`hf:vit`), or the name of a model on the Hub whose config.json is in
    transformers' cache on this machine. Nothing is fetched, and no code runs that comes with a model. Raises UsageError
    for a name the library does not know and for a path, OrchardError where the library is not installed.
    """
    check_foreign(name)
    library, _, inner = name.partition(":")
    if library == MODULE:
        raise UsageError(
            f"{name} is a module of your own, which cannot be built from its name; hand it in from Python, as model="
        )
    build = {"timm": _from_timm, "hf": _from_transformers}[library]
    return build(inner, num_classes, in_channels, tuple(image_size) if isinstance(image_size, list) else image_size)


def check_foreign(name: str) -> None:
    """UsageError for a path and for what timm does not know, with the nearest names that it does.

    What transformers knows is only seen when the model is built. OrchardError where timm is not installed.
    """
    library, _, inner = name.partition(":")
    if library == MODULE:
        return
    plain_name = re.fullmatch(r"\w[\w.-]*" + (r"(/\w[\w.-]*)?" if library == "hf" else ""), inner, re.ASCII)
    if plain_name is None or ".." in inner:
        raise UsageError(f"{name!r} is no name of a {library} model; files and folders are not taken for one")
    if library == "timm":
        timm_facts(name)


def timm_facts(name: str) -> dict[str, Any]:
    """What timm knows of the weights that `timm:NAME.TAG` means, or of those that it takes without a tag."""
    inner = name.removeprefix("timm:")
    try:
        import timm
    except ImportError:
        raise OrchardError(f"{name} needs timm: pip install timm, or the extra that has it, orchard[test]") from None
    if not timm.is_model(inner):
        raise unknown("timm model", inner, timm.list_models())
    try:
        facts: dict[str, Any] = vars(timm.get_pretrained_cfg(inner))
    except RuntimeError:  # of the weights' tag behind the dot
        raise unknown("timm model", inner, timm.list_pretrained(f"{inner.partition('.')[0]}*")) from None
    return facts


def tag_remark(name: str) -> str:
    """What a person should know who names pretrained weights by a tag, `timm:NAME.TAG`: they are not loaded."""
    if not name.startswith("timm:") or "." not in name:
        return ""
    place = timm_facts(name)["hf_hub_id"]
    advice = f"orchard import {name} hub:{place} --out FOLDER, then --from FOLDER" if place else "import their file"
    return f"{name} begins with random weights; those that its tag names are not loaded: {advice}"


def _from_timm(name: str, num_classes: int, in_channels: int, size: int | tuple[int, int] | None) -> Foreign:
    import timm
    from timm.models import group_parameters

    facts = SimpleNamespace(**timm_facts(f"timm:{name}"))
    size = size or facts.input_size[-1]
    fixed: dict[str, Any] = {"img_size": size} if facts.fixed_input_size else {}
    try:
        model: Any = timm.create_model(name, num_classes=num_classes, in_chans=in_channels, **fixed)
    except (TypeError, AssertionError, ValueError) as error:
        raise UsageError(
            f"timm:{name} cannot be built with {in_channels} channels at {size} pixels: {first_line(error)}"
        ) from None
    groups = group_parameters(model, model.group_matcher(coarse=False))
    head = model.pretrained_cfg["classifier"]
    return Foreign(
        model,
        ForeignConfig(num_classes, in_channels, size),
        head if isinstance(head, str) else head[0],  # a distilled model has two
        [tuple(names) for _, names in sorted(groups.items())],
    )


def _from_transformers(name: str, num_classes: int, in_channels: int, size: int | tuple[int, int] | None) -> Foreign:
    try:
        from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForImageClassification
    except ImportError:
        raise OrchardError(
            f"hf:{name} needs transformers: pip install transformers, or the extra that has it, orchard[test]"
        ) from None
    settings: dict[str, Any] = {"num_labels": num_classes, "num_channels": in_channels}
    try:
        if name in CONFIG_MAPPING:
            config = AutoConfig.for_model(name, **settings)
        elif os.path.lexists(name):
            raise UsageError(f"hf:{name} is a file or folder here, which is not taken for a model")
        else:
            config = AutoConfig.from_pretrained(name, trust_remote_code=False, local_files_only=True, **settings)
        size = size or int(getattr(config, "image_size", 224))
        if hasattr(config, "image_size"):
            config.image_size = size
        model = AutoModelForImageClassification.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise UsageError(
            f"hf:{name} is no image classifier to be had here: {first_line(error)}; expected a model type of "
            "transformers or a model in its cache on this machine (nothing is fetched)"
        ) from None
    heads = [key for key, module in model.named_modules() if isinstance(module, nn.Linear)]
    head = heads[-1]  # the classifier is the last map of every one of them
    trunk = tuple(key for key, _ in model.named_parameters() if not key.startswith(f"{head}."))
    return Foreign(model, ForeignConfig(num_classes, in_channels, size), head, [trunk, (f"{head}.",)])


def module_name(module: nn.Module) -> str:
    """What settings call a module: its class, and a digest of its structure (kinds of layers, names and shapes).

    The weights are no part of it: a run goes on with its own.
    """
    tensors = [(name, tuple(tensor.shape)) for name, tensor in module.state_dict().items()]
    kinds = [type(inner).__name__ for inner in module.modules()]
    return source_of(MODULE, type(module).__name__, hashlib.sha256(repr((kinds, tensors)).encode()).hexdigest())


def own_classifier(module: nn.Module, config: ForeignConfig) -> Foreign:
    """A person's own module, which takes images (B, C, H, W), normalised, and gives logits (B, num_classes).

    What holds the last of its parameters is its head. Raises UsageError for a module that has none.
    """
    names = [name for name, _ in module.named_parameters()]
    if not names:
        raise UsageError(f"{type(module).__name__} has no parameters: there is nothing to learn")
    head = names[-1].rpartition(".")[0]
    trunk = tuple(name for name in names if name.rpartition(".")[0] != head)
    groups = [trunk, tuple(name for name in names if name not in trunk)]
    return Foreign(module, config, head, [group for group in groups if group])
