"""A model that draws at random, made deterministic: every pass, and every image, meets the same noise."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .random_passes import seeded_passes

SAME = 1e-4  # share of the logits' range that the order of additions may change


class FixedNoise(nn.Module):
    """A model's answer to each image as if it were alone and all generators had just been seeded.

    So an answer depends neither on the pass nor on the other images of a batch: the result is a function of the image.
    The images of a batch go through ``torch.vmap`` together where the model allows it, and else one after the other.

    Args:
        model: maps images (B, C, H, W) to logits (B, K). Its modes and gradients are left alone.
        seed: decides the noise.
    """

    def __init__(self, model: nn.Module, seed: int) -> None:
        super().__init__()
        self.model, self.seed = model, seed
        self.at_once: bool | None = None  # decided at the first pass
        self.training = model.training

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """The logits of each image."""
        if self.at_once is None:
            self.at_once = self._agrees(images[:2].detach())
        return self._together(images) if self.at_once else self._alone(images)

    def _together(self, images: Tensor) -> Tensor:
        with seeded_passes(self.model, self.seed, images.device):
            logits: Tensor = torch.vmap(self._answer, randomness="same")(images)
        return logits

    def _alone(self, images: Tensor) -> Tensor:
        answers = []
        for image in images:
            with seeded_passes(self.model, self.seed, images.device):
                answers.append(self._answer(image))
        return torch.stack(answers)

    def _answer(self, image: Tensor) -> Tensor:
        logits: Tensor = self.model(image[None])
        return logits[0]

    @torch.no_grad()
    def _agrees(self, images: Tensor) -> bool:
        """Whether ``vmap`` understands the model: it gives the answers to single images."""
        expected = self._alone(images)
        try:
            answers = self._together(images)
        except Exception:  # the model's own code meets tensors without a batch: anything may happen
            return False
        spread = (expected.amax() - expected.amin()).clamp_min(1e-12)
        return answers.shape == expected.shape and bool(((answers - expected).abs() <= SAME * spread).all())
