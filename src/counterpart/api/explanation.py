"""What a model looks at, and where an attacker may move: maps, radii and attacked images as tensors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import build
from ..attacks import pgd
from ..batch import Batch
from ..budget import Linf
from ..checks import check_labels, class_indices
from ..config import Config, merge, resolve
from ..contracts import PartModel, Probe, Rule
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
from ..progress import track
from ..saliency.agreement import deletion_and_insertion
from ..seeding import Keys
from .explanation_folder import write_explanation
from .explanation_summary import names_of_classes, summarise
from .explanation_tensors import ExplanationTensors
from .state import left_as_found

PORTION = 32  # images that are explained at once


class Explanation(ExplanationTensors):
    """What ``counterpart.explain`` shows of each image: tensors, and a folder of pictures of them."""

    def save(
        self, folder: str | Path, *, names: Sequence[str] = (), classes: Sequence[str] | None = None
    ) -> Path:
        """Write pictures, arrays, a table and a page that shows them into a folder that does not exist yet.

        Args:
            folder: the folder.
            names: what each image is called, such as the name of its file.
            classes: the name of each class.
        """
        return write_explanation(self, Path(folder).expanduser(), list(names), classes)

    def summary(self, classes: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The means over the images of each class that was explained, and over all at the end: a mapping for each.

        Args:
            classes: the name of each class.
        """
        return summarise(self, names_of_classes(self, classes))

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
    masks: Any = None,
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
        masks: a tensor or array (B, H, W) that is not 0 where the object is, such as part ids; 0 everywhere for an
            image that nobody annotated. With them the explanation says how often its maps point at the object.
        changes: settings of the mask and the map, such as {"mask.rule": "quantile", "mask.layer": "layer3"}.

    Returns:
        The maps, radii and attacked images, with the model's probabilities before and after the attack, and how far
        the attack moved the explanation. ``save`` writes all of it into a folder.

    Raises:
        UserError: no such map can be drawn from the model, or an argument is not understood.
    """
    network = model if isinstance(model, nn.Module) else open_model(str(model))[0]
    config = _config_of(network, eps, eps_low, changes)
    with left_as_found(network):
        classifier, pixels = understand_images(network, images, mean=mean, std=std)
        objects = None if masks is None else _objects_of(masks, pixels)
        try:
            clean = logits_of(classifier, pixels)
            chosen = clean.argmax(dim=1)
            if labels is not None:
                chosen = class_indices(labels, len(pixels)).to(pixels.device)
                check_labels(chosen, clean.shape[1])
            work = _open_work(classifier, pixels, config, steps, seed)
            return replace(_explain(work, pixels, chosen, clean), objects=objects)
        except ValueError as error:
            raise UserError(f"counterpart.explain: {error}") from error


def map_drawer(model: nn.Module, images: Tensor, changes: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """What draws the maps (B, h, w) of the classes that a model answers with, and attacks nothing.

    Args:
        model: the model, in eval mode.
        images: (B, C, H, W) in [0, 1], some of the images.
        changes: settings of the map, such as {"mask.layer": "layer3"}.

    Raises:
        UserError: as of ``explain``.
    """
    classifier, pixels = understand_images(model, images, mean=None, std=None)
    work = _open_work(classifier, pixels, _config_of(model, 8 / 255, None, changes), steps=0, seed=0)

    def draw(images: Tensor) -> Tensor:
        try:
            labels = logits_of(classifier, images).argmax(dim=1)
            batch = Batch(images, labels, torch.arange(len(images), device=images.device))
            return work.draw(work.view.probe(images), batch)
        except ValueError as error:
            raise UserError(f"No map can be drawn: {error}") from error

    return draw


def _config_of(
    network: nn.Module, eps: float | str, eps_low: float | str | None, changes: Mapping[str, Any] | None
) -> Config:
    """The settings that decide masks and maps."""
    full: dict[str, Any] = {"train": {"method": "part"}, "attack": {"eps": eps}}
    if isinstance(network, PartModel):  # so that masks may be drawn from the parts that it sees
        full["model"] = {"name": "parts/downsampled"}
    radius = resolve({"attack": {"eps": eps}}, source="counterpart.explain").attack.eps  # a number
    low = radius * 7 / 8 if eps_low is None else eps_low
    config = resolve(merge(full, {"mask": {"eps_low": low}}, nest(changes)), source="counterpart.explain")
    if config.mask.eps_low == "auto":
        raise UserError("mask.eps_low auto is found in training: give a number.")
    return config


def _objects_of(masks: Any, images: Tensor) -> Tensor:
    """Masks as (B, H, W): whether a pixel belongs to the object.

    Raises:
        UserError: they do not fit the images.
    """
    objects = torch.as_tensor(masks) != 0
    expected = (len(images), *images.shape[2:])
    if tuple(objects.shape) != expected:
        raise UserError(f"masks have the shape {tuple(objects.shape)}, and the images want {expected}.")
    return objects.to(images.device)


def _open_work(model: nn.Module, images: Tensor, config: Config, steps: int, seed: int) -> "_Explaining":
    """What explains images such as these."""
    form, _ = decide_form(model, images[:4])
    view = InferenceView(model, form=form, **build.choose_view_options(config))
    low = float(config.mask.eps_low)  # a number: auto is refused before
    return _Explaining(model, view, config, build.build_mask_rule(config, low), steps, seed)


def _explain(work: "_Explaining", images: Tensor, labels: Tensor, clean: Tensor) -> Explanation:
    """The explanation of all images, a portion at a time: each is explained as it would be alone."""
    index = torch.arange(len(images), device=images.device)
    portions = zip(*(torch.split(each, PORTION) for each in (images, labels, clean, index)), strict=True)
    explained = []
    with track("explaining", len(images)) as bar:
        for portion in portions:
            explained.append(_explain_portion(work, *portion))
            bar.advance(len(portion[0]))
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
        probe = self.view.probe(batch.images)
        maps = self.draw(probe, batch) if build.mask_needs_map(self.config) else None
        budget = self.rule(probe, batch, keys, Linf(self.config.attack.eps))
        assert isinstance(budget, Masked)
        return maps, budget

    def draw(self, probe: Probe, batch: Batch) -> Tensor:
        """The maps (B, h, w) of the batch's classes."""
        mask = self.config.mask
        return draw_maps(probe, batch.labels, mask.map_class, mask.map).detach()

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
        work.see_parts(attacked), None,
    )  # fmt: skip
