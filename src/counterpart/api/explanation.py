"""What a model looks at, and where an attacker may move: maps, radii and attacked images as tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
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
from ..config import Config, merge, resolve
from ..contracts import PartModel, Rule
from ..data.transforms import resize_maps
from ..dotted_names import nest
from ..errors import UserError
from ..evaluation.answers import as_judged, logits_of
from ..importance.rules import Masked
from ..importance.rules import explain as draw_maps
from ..jobs.named_models import open_model
from ..jobs.objects import understand_images
from ..models.inference import InferenceView, decide_form
from ..part_maps import predicted_parts
from ..saliency.agreement import deletion_and_insertion, mask_overlap, rank_correlation
from ..seeding import Keys
from .state import left_as_found

PORTION = 32  # images that are explained at once


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
        images: (B, C, H, W) the clean images, in [0, 1].
        attacked_maps: as ``maps``, of the attacked images and for the same classes.
        attacked_radius: as ``radius``, drawn on the attacked images.
        deletion: (B, S) the probability of the class while the pixels that the map puts first become the image's mean
            colour, from none of the pixels to all. None without a map.
        insertion: (B, S) the same while they come back into an image of that colour.
        parts: (B, H, W) the part that a part model sees at each pixel, 0 for background; None for other models.
        attacked_parts: the same of the attacked images.
    """

    maps: Float[Tensor, "b u v"] | None
    radius: Float[Tensor, "b p h w"]
    flat: Tensor
    attacked: Float[Tensor, "b c h w"]
    labels: Int[Tensor, " b"]
    clean: Float[Tensor, "b k"]
    fooled: Float[Tensor, "b k"]
    images: Float[Tensor, "b c h w"]
    attacked_maps: Float[Tensor, "b u v"] | None
    attacked_radius: Float[Tensor, "b p h w"]
    deletion: Float[Tensor, "b s"] | None
    insertion: Float[Tensor, "b s"] | None
    parts: Int[Tensor, "b h w"] | None
    attacked_parts: Int[Tensor, "b h w"] | None

    @property
    def mask(self) -> Tensor:
        """(B, 1 or C, H, W): whether a pixel has the largest radius of its image."""
        return largest(self.radius)

    @property
    def attacked_mask(self) -> Tensor:
        """As ``mask``, of the attacked images."""
        return largest(self.attacked_radius)

    @property
    def perturbation(self) -> Tensor:
        """(B, C, H, W): what the attack added to each image."""
        return self.attacked - self.images

    @property
    def overlap(self) -> Tensor:
        """(B,): the intersection over union of the masks before and after the attack, 1 where it moved nothing."""
        return mask_overlap(self.mask, self.attacked_mask)

    @property
    def correlation(self) -> Tensor | None:
        """(B,): the rank correlation of the maps before and after the attack; None without a map."""
        if self.maps is None or self.attacked_maps is None:
            return None
        return rank_correlation(self.maps, self.attacked_maps)

    def save(
        self, folder: str | Path, *, names: Sequence[str] = (), classes: Sequence[str] | None = None
    ) -> Path:
        """Write pictures, arrays, a table and a page that shows them into a folder that does not exist yet.

        Args:
            folder: the folder.
            names: what each image is called, such as the name of its file.
            classes: the name of each class.
        """
        from .explanation_folder import write_explanation

        return write_explanation(self, Path(folder).expanduser(), list(names), classes)

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
        model: any module from images in [0, 1] to logits, or what ``load`` takes, such as a run folder.
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
        The maps, radii and attacked images, with the model's probabilities before and after the attack, and how far
        the attack moved the explanation. ``save`` writes all of it into a folder.

    Raises:
        UserError: no such map can be drawn from the model, or an argument is not understood.
    """
    network = model if isinstance(model, nn.Module) else open_model(str(model))[0]
    full: dict[str, Any] = {"train": {"method": "part"}, "attack": {"eps": eps}}
    if isinstance(network, PartModel):  # so that masks may be drawn from the parts that it sees
        full["model"] = {"name": "parts/downsampled"}
    config = resolve(full, source="counterpart.explain")
    low = config.attack.eps * 7 / 8 if eps_low is None else eps_low
    config = resolve(merge(full, {"mask": {"eps_low": low}}, nest(changes)), source="counterpart.explain")
    if config.mask.eps_low == "auto":
        raise UserError("mask.eps_low auto is found in training: give a number.")
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
    """The explanation of all images, a portion at a time: each is explained as it would be alone."""
    form, _ = decide_form(model, images[:4])
    view = InferenceView(model, form=form, **build.choose_view_options(config))
    low = float(config.mask.eps_low)
    work = _Explaining(model, view, config, build.build_mask_rule(config, low), steps, seed)
    index = torch.arange(len(images), device=images.device)
    portions = zip(*(torch.split(each, PORTION) for each in (images, labels, clean, index)), strict=True)
    explained = [_explain_portion(work, *portion) for portion in portions]
    joined: dict[str, Any] = {}
    for field in fields(Explanation):
        values = [getattr(portion, field.name) for portion in explained]
        joined[field.name] = None if values[0] is None else torch.cat(values)
    return Explanation(**joined)


@dataclass(frozen=True)
class _Explaining:
    """What every portion of the images is explained with."""

    model: nn.Module
    view: InferenceView
    config: Config
    rule: Rule
    steps: int
    seed: int

    def look(self, batch: Batch, keys: Keys) -> tuple[Tensor | None, Masked]:
        """The maps of a batch, where the rule draws on one, and its budget."""
        probe, mask = self.view.probe(batch.images), self.config.mask
        maps = None
        if build.mask_needs_map(self.config):
            maps = draw_maps(probe, batch.labels, mask.map_class, mask.map).detach()
        budget = self.rule(probe, batch, keys, Linf(self.config.attack.eps))
        assert isinstance(budget, Masked)
        return maps, budget

    def see_parts(self, images: Tensor) -> Tensor | None:
        """The parts that a part model sees; None of another model."""
        if not isinstance(self.model, PartModel):
            return None
        with torch.no_grad(), as_judged(self.model, images.device):
            part_logits = self.model.forward_parts(images).part_logits
        return predicted_parts(part_logits, (images.shape[2], images.shape[3]))


def _explain_portion(
    work: _Explaining, images: Tensor, labels: Tensor, clean: Tensor, index: Tensor
) -> Explanation:
    batch, keys = Batch(images, labels, index), Keys(work.seed, "explain", index)
    maps, budget = work.look(batch, keys)
    attacked = pgd(work.view, images, labels, budget=budget, keys=keys, steps=work.steps).images.detach()
    attacked_maps, attacked_budget = work.look(replace(batch, images=attacked), keys)
    deletion, insertion = None, None
    if maps is not None:
        enlarged = resize_maps(maps, (images.shape[2], images.shape[3]))
        ask = partial(logits_of, work.model)
        deletion, insertion = deletion_and_insertion(ask, images, labels, enlarged)
    return Explanation(
        maps, budget.radius(images).detach(), budget.flat, attacked, labels, clean.softmax(dim=1),
        logits_of(work.model, attacked).softmax(dim=1), images, attacked_maps,
        attacked_budget.radius(attacked).detach(), deletion, insertion, work.see_parts(images),
        work.see_parts(attacked),
    )  # fmt: skip


def largest(radius: Tensor) -> Tensor:
    """Whether each pixel has the largest radius of its image."""
    return radius >= radius.amax(dim=(1, 2, 3), keepdim=True)
