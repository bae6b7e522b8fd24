"""What a model looks at, and where an attacker may move: maps, radii and attacked images as tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .. import build
from ..attacks import pgd
from ..batch import Batch
from ..budget import Linf
from ..checks import check_labels, class_indices
from ..config import merge, resolve
from ..dotted_names import nest
from ..errors import UserError
from ..evaluation.answers import logits_of
from ..importance.rules import Masked
from ..importance.rules import explain as draw_maps
from ..jobs.named_models import open_model
from ..jobs.objects import understand_images
from ..models.inference import InferenceView, decide_form
from ..seeding import Keys
from .state import left_as_found


@dataclass(frozen=True, repr=False, eq=False)
class Explanation:
    """What ``counterpart.explain`` shows of each image.

    Attributes:
        maps: (B, h, w) how much each place counts for the class, at the map's own resolution. It is None for
            a mask rule that looks at no map.
        radius: (B, 1 or C, H, W) how far an attacker may move each pixel, in units of the images.
        flat: (B,) whether the map tells no pixel from another, so that the full radius holds everywhere.
        attacked: (B, C, H, W) the images that PGD makes within these radii, in [0, 1].
        labels: (B,) the classes that were explained.
        clean: (B, K) the model's probabilities for the clean images.
        fooled: (B, K) the model's probabilities for the attacked images.
    """

    maps: Float[Tensor, "b u v"] | None
    radius: Float[Tensor, "b p h w"]
    flat: Tensor
    attacked: Float[Tensor, "b c h w"]
    labels: Int[Tensor, " b"]
    clean: Float[Tensor, "b k"]
    fooled: Float[Tensor, "b k"]

    @property
    def mask(self) -> Tensor:
        """(B, 1 or C, H, W): whether a pixel has the largest radius of its image."""
        return self.radius >= self.radius.amax(dim=(1, 2, 3), keepdim=True)

    def __repr__(self) -> str:
        low, high = self.radius.aminmax()
        changed = int((self.clean.argmax(dim=1) != self.fooled.argmax(dim=1)).sum())
        shape = "x".join(map(str, self.attacked.shape[1:]))
        return (
            f"Explanation({len(self.labels)} images of {shape}, radii {float(low):.4g} to {float(high):.4g}, "
            f"{changed} answers change under attack)"
        )


def explain(
    model: nn.Module | str | Path,
    images: Any,
    labels: Any = None,
    *,
    eps: float | str = 8 / 255,
    eps_low: float | str | None = None,
    steps: int = 20,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
) -> Explanation:
    """The maps of what a model looks at, the radii that a mask draws from them, and images attacked so.

    Args:
        model: any module from images in [0, 1] to logits, or a run folder.
        images: a tensor or array (B, C, H, W) of 8-bit integers or of floats in [0, 1].
        labels: (B,) the classes to explain. The default is what the model answers.
        eps: the full radius, for the pixels that matter, such as "8/255".
        eps_low: the radius of the pixels that matter less. The default is seven eighths of ``eps``, as in the
            paper.
        steps: the number of gradient steps that PGD takes.
        mean: the value of each channel to subtract from the images, for a model that wants normalised ones.
        std: the value of each channel to divide by after that, for a model that wants normalised images.
        seed: the number that everything random is drawn from.
        changes: settings of the mask and the map, such as {"mask.rule": "quantile", "mask.layer": "layer3"}.

    Returns:
        The maps, radii and attacked images, with the model's probabilities before and after the attack.

    Raises:
        UserError: no such map can be drawn from the model, or an argument is not understood.
    """
    full = {"train": {"method": "part"}, "attack": {"eps": eps}}
    config = resolve(full, source="counterpart.explain")
    low = config.attack.eps * 7 / 8 if eps_low is None else eps_low
    config = resolve(merge(full, {"mask": {"eps_low": low}}, nest(changes)), source="counterpart.explain")
    if config.mask.eps_low == "auto":
        raise UserError("mask.eps_low auto is found in training: give a number.")
    network = model if isinstance(model, nn.Module) else open_model(str(model))[0]
    with left_as_found(network):
        classifier, pixels = understand_images(network, images, mean=mean, std=std)
        try:
            clean = logits_of(classifier, pixels)
            chosen = clean.argmax(dim=1)
            if labels is not None:
                chosen = class_indices(labels, len(pixels)).to(pixels.device)
                check_labels(chosen, clean.shape[1])
            return _explain(classifier, pixels, chosen, clean, config, steps, seed)
        except ValueError as error:
            raise UserError(f"counterpart.explain: {error}") from error


def _explain(
    model: nn.Module, images: Tensor, labels: Tensor, clean: Tensor, config: Any, steps: int, seed: int
) -> Explanation:
    form, _ = decide_form(model, images[:4])
    view = InferenceView(model, form=form, **build.choose_view_options(config))
    batch = Batch(images, labels, torch.arange(len(images), device=images.device))
    probe = view.probe(images)
    maps = None
    if build.mask_needs_map(config):
        maps = draw_maps(probe, labels, config.mask.map_class, config.mask.map).detach()
    keys = Keys(seed, "explain", batch.index)
    full = Linf(config.attack.eps)
    budget = build.build_mask_rule(config, float(config.mask.eps_low))(probe, batch, keys, full)
    assert isinstance(budget, Masked)
    attacked = pgd(view, images, labels, budget=budget, keys=keys, steps=steps).images
    radius = budget.radius(images).detach()
    answers = logits_of(model, attacked)
    return Explanation(
        maps, radius, budget.flat, attacked.detach(), labels, clean.softmax(dim=1), answers.softmax(dim=1)
    )
