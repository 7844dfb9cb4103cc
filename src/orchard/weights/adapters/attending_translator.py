"""U-GAT-IT of znxlwm/UGATIT-pytorch: one generator, and one discriminator where the golden case has it.

The case's generator is ours from A to B, its discriminator the local one of B; the other networks are fresh.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from orchard.models import create_model
from orchard.weights.adapters import Adapter
from orchard.weights.adapters.conditional_pair import Training
from orchard.weights.golden import Stored
from orchard.weights.official import export_official

NETWORKS = {"g.": "genA2B.", "d.": "disLB."}
FORMS = {False: {"global_layers": 4, "local_layers": 3}, True: {"global_layers": 4, "local_layers": 5}}  # light or not


def judge_of(model: Any) -> nn.Module:
    """The discriminator that a case may have."""
    found: nn.Module = model.discriminators["B"]["local"]
    return found


def run(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the generator gives, its images when rho has been clipped, and what the discriminator says in evaluation and
    in training."""
    translator: Any = model
    made = translator.attend(inputs["images"], "AtoB")
    clipped = copy.deepcopy(translator)
    clipped.settle()
    found = {
        "images": made.images,
        "logits": made.logits,
        "heat": made.heat,
        "clipped_images": clipped.translate(inputs["images"], "AtoB"),
    }
    if "judged" in inputs:
        judge: Any = judge_of(translator)
        said: Any = judge(inputs["judged"])
        in_training: Any = Training(judge)(inputs["judged"])
        found |= {"scores": said.scores, "judged_logits": said.logits, "judged_heat": said.heat}
        found |= {"training_scores": in_training.scores, "training_logits": in_training.logits,
                  "training_heat": in_training.heat}  # fmt: skip
    return found


def stored(case: Stored) -> Stored:
    """The case's networks under the names of a file with all six."""
    generator, judge = case.meta["args"]["G"], case.meta["args"]["D"]
    fresh = create_model(
        "ugatit", image_size=generator["img_size"], width=generator["ngf"], blocks=generator["n_blocks"],
        light=generator["light"], discriminator_width=judge["ndf"], **FORMS[generator["light"]],
    )  # fmt: skip
    state = export_official(fresh, "znxlwm")
    state |= {NETWORKS[name[:2]] + name[2:]: tensor for name, tensor in case.state.items()}
    return replace(case, state=state)


ADAPTER = Adapter(run=run, stored=stored)
