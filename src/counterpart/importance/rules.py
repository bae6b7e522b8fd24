"""Budget rules, which turn one forward pass on a batch into the budget of each of its images.

A budget rule is ``rule(probe, batch, keys, full) -> Budget``: it narrows the full budget of an attack. It is
``draw_budget`` with its options bound by ``functools.partial``, or ``constant``. What ``draw_budget`` needs is a
mask rule, ``rule(probe, batch, keys) -> Mask``: one of the classes below with options of its
own, such as ``Quantile(share=0.25)``, or any function of that form.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

from jaxtyping import Bool
from torch import Tensor

from ..batch import Batch
from ..budget import Budget, Linf
from ..budget.arithmetic import without_checks
from ..contracts import Probe
from ..part_maps import predicted_parts
from ..saliency import probe_map, score_weights
from ..seeding import Keys
from . import controls, masks
from .masks import Mask


@dataclass(frozen=True)
class Masked(Linf):
    """The budget that a mask draws: a radius per pixel, and which images had a flat map.

    Attributes:
        flat: (B,) whether an image keeps the full radius everywhere because its map was flat or not finite.
    """

    flat: Bool[Tensor, " b"]


@runtime_checkable
class MaskRule(Protocol):
    """A function that draws the mask of a batch from one forward pass on it.

    Rules that draw at random use the keys.
    """

    def __call__(self, probe: Probe, batch: Batch, keys: Keys) -> Mask:
        """The mask of each image in the batch."""
        ...


Control: TypeAlias = Callable[[Mask, Keys, float], Mask]
"""A function that changes a mask as a control of an experiment.

It takes the mask, the keys, and the share that "inverse" reflects at, and it returns a mask.
"""


@dataclass(frozen=True)
class MapSource:
    """The source of a mask rule's maps: the batch where it holds stored maps, and the probe elsewhere.

    Attributes:
        kind: the kind of map, one of ``saliency.MAPS``.
        map_class: what the map explains: the "true" class, the "predicted" one, or the "margin" between the true class
            and the best other.
    """

    kind: str = "grad-cam"
    map_class: str = "true"

    def __call__(self, probe: Probe, batch: Batch) -> Tensor:
        """The maps (B, h, w) of a batch."""
        if batch.importance is not None:
            return batch.importance
        return explain(probe, batch.labels, self.map_class, self.kind)


@dataclass(frozen=True)
class Standardised:
    """The rule of the paper, ``masks.paper_mask``: eps where the standardised map exceeds 1."""

    source: MapSource = field(default_factory=MapSource)

    def __call__(self, probe: Probe, batch: Batch, keys: Keys) -> Mask:
        """The mask of each image in the batch."""
        return masks.paper_mask(self.source(probe, batch), _size(batch))


@dataclass(frozen=True)
class Quantile:
    """The rule ``masks.quantile_mask``: eps on a fixed share of the pixels."""

    share: float = 0.25
    source: MapSource = field(default_factory=MapSource)

    def __call__(self, probe: Probe, batch: Batch, keys: Keys) -> Mask:
        """The mask of each image in the batch."""
        return masks.quantile_mask(self.source(probe, batch), _size(batch), keys, self.share)


@dataclass(frozen=True)
class Soft:
    """The rule ``masks.soft_mask``: the radius grows with the pixel's rank in the map."""

    source: MapSource = field(default_factory=MapSource)

    def __call__(self, probe: Probe, batch: Batch, keys: Keys) -> Mask:
        """The mask of each image in the batch."""
        return masks.soft_mask(self.source(probe, batch), _size(batch))


@dataclass(frozen=True)
class MeanPreserving:
    """The rule ``masks.mean_preserving_mask``: some pixels get more than eps, so that the mean is eps."""

    share: float = 0.25
    source: MapSource = field(default_factory=MapSource)
    middle = 1.0  # the mean of such a mask, which the control "inverse" keeps

    def __call__(self, probe: Probe, batch: Batch, keys: Keys) -> Mask:
        """The mask of each image in the batch."""
        return masks.mean_preserving_mask(self.source(probe, batch), _size(batch), keys, self.share)


@dataclass(frozen=True)
class PublishedCode:
    """The rule ``masks.published_mask``: each colour channel has a mask, as in the published code."""

    source: MapSource = field(default_factory=MapSource)

    def __call__(self, probe: Probe, batch: Batch, keys: Keys) -> Mask:
        """The mask of each image, of three channels."""
        return masks.published_mask(self.source(probe, batch), _size(batch))


@dataclass(frozen=True)
class Quadrant:
    """The rule ``masks.quadrant_mask``: one quarter of every image gets eps_low, whatever a map says."""

    quadrant: str = "upper-left"

    def __call__(self, probe: Probe, batch: Batch, keys: Keys) -> Mask:
        """The mask of each image in the batch."""
        return masks.quadrant_mask(batch.images, self.quadrant)


@dataclass(frozen=True)
class Centre:
    """The rule ``masks.centre_mask``: the pixels nearest to the centre get eps, whatever a map says."""

    share: float = 0.25

    def __call__(self, probe: Probe, batch: Batch, keys: Keys) -> Mask:
        """The mask of each image in the batch."""
        return masks.centre_mask(batch.images, self.share)


@dataclass(frozen=True)
class OwnMasks:
    """The rule ``masks.file_mask``: the masks that a user drew, which the batch holds as its importance."""

    def __call__(self, probe: Probe, batch: Batch, keys: Keys) -> Mask:
        """The mask of each image in the batch."""
        return masks.file_mask(batch.images, batch.importance)


@dataclass(frozen=True)
class PredictedParts:
    """The rule ``masks.foreground_mask`` of the parts that a part model sees: eps on the object."""

    def __call__(self, probe: Probe, batch: Batch, keys: Keys) -> Mask:
        """The mask of each image in the batch."""
        if probe.part_logits is None:
            raise ValueError("Mask rule predicted-parts needs a part model, such as parts/downsampled.")
        return masks.foreground_mask(predicted_parts(probe.part_logits, _size(batch)))


@dataclass(frozen=True)
class AnnotatedParts:
    """The rule ``masks.foreground_mask`` of the annotated parts: eps on the object.

    An image without annotation is flat.
    """

    def __call__(self, probe: Probe, batch: Batch, keys: Keys) -> Mask:
        """The mask of each image in the batch."""
        if batch.parts is None:
            raise ValueError("Mask rule annotated-parts needs images with annotated parts.")
        return masks.foreground_mask(batch.parts)


def constant(probe: Probe, batch: Batch, keys: Keys, full: Budget) -> Budget:
    """The full budget for every image, which is plain adversarial training."""
    return full


def draw_budget(
    probe: Probe,
    batch: Batch,
    keys: Keys,
    full: Budget,
    *,
    eps_low: float | Tensor,
    mask: MaskRule | None = None,
    control: Control = controls.none,
    multiply: bool = False,
) -> Masked:
    """The PART budget: the full radius where the mask is 1, ``eps_low`` where it is 0.

    Args:
        probe: a forward pass on the images, clean or at a random start. Rules without a map do not look at
            it.
        batch: the batch of the images. Where it holds stored importance, rules take that instead of the
            probe's map.
        keys: the keys of the batch's samples, for rules and controls that draw at random.
        full: the full budget, an ``Linf`` with one radius for all pixels, which the important pixels keep.
        eps_low: the radius of the other pixels, in units of the images: a number, or a tensor ().
        mask: the rule that draws the mask. The default is the paper's rule, ``Standardised()``.
        control: the change that is made to the mask, one of ``importance.controls``.
        multiply: a step of PGD multiplies by the mask, as section 3.2 of the paper prints it, in place of clamping
            each pixel to its radius: see ``Linf.multiplied_from``.

    Returns:
        The budget with a plane of radii (B, 1, H, W), or (B, C, H, W) where the rule draws a mask for each
        channel. An image whose map is flat or NaN, or whose mask is missing from the files, is ``flat``: it
        has the full radius everywhere, whatever the mask and the control.

    Raises:
        ValueError: the full budget has no radius for each pixel, the mask has another form than the images,
            or there are no predicted or annotated parts where the rule needs them.
    """
    if not isinstance(full, Linf) or (isinstance(full.eps, Tensor) and full.eps.ndim):
        raise ValueError(f"a mask narrows Linf(eps) with one radius for all pixels, got {full!r}.")
    rule = Standardised() if mask is None else mask
    drawn = rule(probe, batch, keys)
    _check_form(drawn, batch, rule)
    changed = control(drawn, keys, getattr(rule, "middle", masks.MIDDLE))
    radii = masks.radius_plane(changed, full.eps, eps_low)
    multiplied_from = full.eps if multiply else None
    return without_checks(Masked, eps=radii, flat=drawn.flat, multiplied_from=multiplied_from)


def _is_ours(rule: MaskRule) -> bool:
    """Whether a rule is one of this module, whose shares are sound: to check them the host would wait for a device."""
    return type(rule).__module__ == __name__


def _name(rule: MaskRule) -> str:
    """What a rule is called: a function by its name, an object by its class."""
    return getattr(rule, "__name__", type(rule).__name__)


def explain(probe: Probe, labels: Tensor, map_class: str, kind: str = "grad-cam") -> Tensor:
    """The maps (B, h, w) of a probe for one class of each image.

    The class is the "true" or the "predicted" one; "margin" is the true class against the best other.
    """
    return probe_map(probe, score_weights(probe.logits, labels, map_class), kind)


def _check_form(mask: Mask, batch: Batch, rule: MaskRule) -> None:
    channels = batch.images.shape[1]
    if isinstance(rule, PublishedCode) and channels != mask.share.shape[1]:
        raise ValueError(
            f"Mask rule published-code has three channels, the images have {channels}. Use another mask rule."
        )
    allowed = [(len(batch), count, *_size(batch)) for count in (1, channels)]
    if tuple(mask.share.shape) not in allowed or tuple(mask.flat.shape) != (len(batch),):
        raise ValueError(
            f"a mask rule must return Mask(share {allowed[0]}, flat ({len(batch)},)) for these images; "
            f"{_name(rule)} returned shapes {tuple(mask.share.shape)} and {tuple(mask.flat.shape)}."
        )
    if _is_ours(rule):
        return
    shares = mask.share[~mask.flat]
    if not bool(((shares >= 0) & (shares <= 1)).all()):
        raise ValueError(
            f"a mask rule must return shares in [0, 1]; those of {_name(rule)} lie from {float(shares.min()):.4g} to "
            f"{float(shares.max()):.4g}."
        )


def _size(batch: Batch) -> tuple[int, int]:
    return batch.images.shape[2], batch.images.shape[3]
