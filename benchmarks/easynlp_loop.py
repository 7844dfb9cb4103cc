"""A stand-in for how EasyNLP draws a picture's codes, over our own model: the pace that ours is measured against.

EasyNLP itself is not run here. What is kept of its loop is what costs: each code is drawn after a full pass over the
whole sequence so far, with nothing remembered, in eager float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def generate(model: Any, prompt: Tensor, codes: int, top_k: int, generator: torch.Generator | None) -> Tensor:
    """Draw `codes` codes after each prompt (B, P) of tokens, from the `top_k` likeliest, (B, codes) int64.

    Codes as likely as the last of these stay in too. EasyNLP's own settings are 256 codes and a `top_k` of 100.
    """
    tokens = prompt
    drawn: list[Tensor] = []
    for _ in range(codes):
        logits = model.code_logits(model(tokens)[:, -1])
        least = logits.topk(top_k).values[:, -1:]
        probabilities = logits.masked_fill(logits < least, float("-inf")).softmax(-1)
        drawn.append(torch.multinomial(probabilities, 1, generator=generator))
        tokens = torch.cat([tokens, model.code_tokens(drawn[-1])], dim=1)
    return torch.cat(drawn, dim=1)
