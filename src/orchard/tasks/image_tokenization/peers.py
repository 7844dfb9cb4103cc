"""Speed of a training step of a picture tokenizer beside the peer's.

The peer is the VQGAN that transformers has for Janus, whose network is taming's. Its own forward pass does what Janus
needs of a frozen one (codes are normalised, the encoder gets no gradient), so its parts are put together here as
taming does. Both sides have the same weights and learn by the mean absolute difference and the codebook's loss;
discriminator and perceptual loss, which would cost both the same, are left out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from orchard.errors import UsageError, unknown
from orchard.inference.cost import multiply_adds
from orchard.inference.fast import TOLERANCE, pick_precision
from orchard.inference.timing import MATRIX, check, compared, matrix_product, steps_of_pictures, time_in_turn
from orchard.models import create_model
from orchard.weights.official import export_official
from orchard.weights.reference import randomise


def bench_tokenizer_training(
    name: str, against: str, *, batch: int = 1, precision: str = "auto", rounds: int = 5
) -> dict[str, Any]:
    """Time one training step of variant `name` on pictures of its size beside transformers' network of the same shape.

    Raises UsageError where transformers has none, OrchardError where the sides disagree.
    """
    if against != "transformers":
        raise unknown("peer of a tokenizer's training", against, ["transformers"])
    chosen = pick_precision(precision)  # type: ignore[arg-type]
    torch.manual_seed(0)
    model = create_model(name)
    config: Any = model.config
    images = torch.randn(batch, config.in_channels, config.image_size, config.image_size)
    randomise(model, lambda: model(images), seed=0)
    twin = transformers_twin(name, model)
    with torch.no_grad():
        check("ours in float32", model(images).images, reconstruct(twin, images)[0], TOLERANCE["fp32"])

    def loss(network: Any, given: Tensor) -> Tensor:
        found = network(given)
        return (found.images - given).abs().mean() + found.codebook_loss  # type: ignore[no-any-return]

    def peer_loss(network: Any, given: Tensor) -> Tensor:
        drawn, codebook_loss = reconstruct(network, given)
        return (drawn - given).abs().mean() + codebook_loss

    sides, how = steps_of_pictures(model, loss, twin, peer_loss, images, chosen)
    medians = time_in_turn({**sides, "matrix": matrix_product(chosen)}, rounds)
    rate = 2 * MATRIX**3 / medians["matrix"]
    facts = {"mode": "training", "precision": chosen, "batch": batch, "rounds": rounds}
    return {
        **compared(name, "transformers:JanusVQVAE", medians, how, samples=batch),
        **facts,
        "matrix_rate": rate,
        "limit_fraction": 6 * multiply_adds(model, images.shape) / medians["ours"] / rate,
    }


def transformers_twin(name: str, model: nn.Module) -> Any:
    """JanusVQVAE of a VQGAN's shape, with its weights."""
    from transformers.models.janus import JanusVQVAE, JanusVQVAEConfig

    c: Any = model.config
    lowest = c.image_size // c.stride
    fits = getattr(c, "quantizer", None) == "nearest" and c.attention_at == (lowest,)
    if not fits or c.groups != 32 or c.beta_on != "codebook":
        raise UsageError(
            f"transformers has no network of the shape of {name}, only VQGANs with attention at the lowest resolution, "
            "32 groups and the published loss, such as vqgan_f16_1024"
        )
    twin: Any = JanusVQVAE(
        JanusVQVAEConfig(
            embed_dim=c.code_width, num_embeddings=c.codes, latent_channels=c.latent, in_channels=c.in_channels,
            out_channels=c.in_channels, base_channels=c.width, channel_multiplier=list(c.multipliers),
            num_res_blocks=c.blocks, num_patches=lowest,
        )
    )  # fmt: skip
    twin.load_state_dict(export_official(model, "hf"))
    return twin


def reconstruct(twin: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures through codes, with the gradient passed on, and the codebook's loss."""
    vectors, codebook_loss, _ = twin.quantize(twin.quant_conv(twin.encoder(images)))
    return twin.decoder(twin.post_quant_conv(vectors)), codebook_loss


def bench(
    name: str, against: str, mode: str, *, batch: int | None, precision: Any, rounds: int | None, tokens: int
) -> dict[str, Any]:
    """Time a training step."""
    if mode != "training":
        raise UsageError(f"of {name}, --mode training is timed; its inference is part of a text-to-image model's")
    return bench_tokenizer_training(name, against, batch=batch or 1, precision=precision, rounds=rounds or 11)
