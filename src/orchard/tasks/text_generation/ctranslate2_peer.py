"""CTranslate2 as a peer of the decoder: GPT-2 on the CPU by a C++ engine that is made for it."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orchard.errors import OrchardError
from orchard.inference.fast import TOLERANCE, relative_difference
from orchard.inference.timing import Side, time_in_turn

COMPUTE = {"fp32": ("float32",), "bf16": ("float32", "bfloat16"), "int8": ("int8_float32", "int8_bfloat16")}
INT8 = 0.25  # of the logits' norm; inputs in 8 bits too differ by a tenth where ours differ by a hundredth
TRIED = 24  # tokens that each compute type writes to be chosen by


def ctranslate2_sides(
    twin: Any, prompts: Tensor, expected: Tensor, tokens: int, precision: str
) -> tuple[dict[str, Side], dict[str, str]]:
    """CTranslate2 with the weights of transformers' GPT2LMHeadModel: by default, and at its best in `precision`.

    By default: converted and run as its documentation has it, in float32. At its best: the fastest of the compute types
    that `precision` allows on this processor, the prompt read in one pass. Raises OrchardError where float32 does not
    write the `expected` tokens (B, n), or other types give other logits.
    """
    try:
        import ctranslate2
    except ImportError:
        raise OrchardError("--against ctranslate2 needs CTranslate2: pip install 'orchard[peers]'") from None
    words = [[str(token) for token in prompt] for prompt in prompts.tolist()]
    end = str(min(set(range(expected.numel() + 1)) - set(expected.flatten().tolist())))  # a token that is not written

    def call(generator: Any, count: int, **switches: Any) -> Callable[[], Tensor]:
        length = count + (0 if switches else prompts.shape[1] - 1)  # by default the prompt is part of the result

        def once() -> Tensor:
            found = generator.generate_batch(words, end_token=end, max_length=length, min_length=length, **switches)
            return torch.tensor([one.sequences_ids[0][-count:] for one in found])

        return once

    known = ctranslate2.get_supported_compute_types("cpu")
    kinds = [kind for kind in COMPUTE[precision] if kind in known]
    with tempfile.TemporaryDirectory() as folder:
        paths = {kind: convert(twin, Path(folder) / kind, end, quantization=kind) for kind in {"float32", *kinds}}
        documented = ctranslate2.Generator(paths["float32"], device="cpu")
        threads = torch.get_num_threads()
        generators = {
            kind: ctranslate2.Generator(paths[kind], device="cpu", compute_type=kind, intra_threads=threads)
            for kind in kinds
        }
    if not torch.equal(call(documented, expected.shape[1], include_prompt_in_result=False)(), expected):
        raise OrchardError("CTranslate2 in float32 writes other tokens; nothing was timed")
    logits = _logits(documented, words)
    differences = {kind: relative_difference(_logits(one, words), logits) for kind, one in generators.items()}
    for kind, difference in differences.items():
        tolerance = INT8 if kind.startswith("int8") else TOLERANCE["bf16" if kind == "bfloat16" else "fp32"]
        if not difference <= tolerance:
            raise OrchardError(
                f"CTranslate2 in {kind} differs by {difference:.2g} of the logits' norm; nothing was timed"
            )
    short = {kind: call(one, TRIED, include_prompt_in_result=False) for kind, one in generators.items()}
    seconds = time_in_turn(short, rounds=1)
    best = min(seconds, key=lambda kind: seconds[kind])
    sides: dict[str, Side] = {
        "peer_default": call(documented, tokens),
        "peer_best": call(generators[best], tokens, include_prompt_in_result=False),
    }
    how = f"{best}, the prompt in one pass"
    if best != "float32":
        how += f"; logits differ from float32 by {differences[best]:.2g} of their norm"
    return sides, {"peer_default": "float32, as converted", "peer_best": how}


def convert(twin: Any, folder: Path, special: str, *, quantization: str) -> str:
    """Write transformers' GPT2LMHeadModel as a model of CTranslate2; tokens are their numbers in words."""
    from ctranslate2.converters.transformers import GPT2Loader

    spec = GPT2Loader().get_model_spec(copy.deepcopy(twin))  # quantization rounds the very tensors
    spec.register_vocabulary([str(token) for token in range(twin.config.vocab_size)])
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = special
    spec.validate()
    spec.optimize(quantization=quantization)
    folder.mkdir()
    spec.save(str(folder))
    return str(folder)


def _logits(generator: Any, words: list[list[str]]) -> Tensor:
    import ctranslate2

    return torch.from_numpy(np.array(generator.forward_batch(words).to(ctranslate2.DataType.float32)))
