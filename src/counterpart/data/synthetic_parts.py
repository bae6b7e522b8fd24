"""Drawn objects with parts: six classes that share colours and differ by shape and layout, made in memory.

For tests, demonstrations and first experiments with part-based models, without a download: colours say nothing of the
class, clutter of the same shapes lies behind every object, and every pixel's part is known.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from ..errors import UserError
from ..seeding import Keys
from .image_sets import SPLIT_SEED, ImageSet, Splits, content_fingerprint, hold_out, numbered
from .parts import PartNames, Parts, largest

DEFAULT_SIZE = 48
SMALLEST = 16  # pixels a side; in smaller images parts would be single pixels
TRAIN, TEST = 3000, 1000  # enough for 95 % intervals of test accuracies within 3.1 points
CHUNK = 500  # images drawn at once


@dataclass(frozen=True)
class Ellipse:
    """An ellipse by its centre and half-axes, in a frame where the object reaches from -1 to 1 and y points down."""

    x: float
    y: float
    rx: float
    ry: float

    def holds(self, u: Tensor, v: Tensor) -> Bool[Tensor, "..."]:
        """Which points (u, v) lie inside."""
        return ((u - self.x) / self.rx) ** 2 + ((v - self.y) / self.ry) ** 2 <= 1


@dataclass(frozen=True)
class Polygon:
    """A convex polygon by its corners, clockwise on the screen, in the same frame."""

    corners: tuple[tuple[float, float], ...]

    def holds(self, u: Tensor, v: Tensor) -> Bool[Tensor, "..."]:
        """Which points (u, v) lie inside."""
        inside = torch.ones_like(u, dtype=torch.bool)
        for (x0, y0), (x1, y1) in zip(self.corners, (*self.corners[1:], self.corners[0]), strict=True):
            across, down = x1 - x0, y1 - y0
            inside &= across * v - down * u >= across * y0 - down * x0
        return inside


def _box(left: float, top: float, right: float, bottom: float) -> Polygon:
    return Polygon(((left, top), (right, top), (right, bottom), (left, bottom)))


# What is painted later covers what was painted before.
OBJECTS: dict[str, tuple[tuple[str, Ellipse | Polygon], ...]] = {
    "boat": (
        ("mast", _box(-0.06, -0.95, 0.06, 0.35)),
        ("sail", Polygon(((0.06, -0.9), (0.75, 0.15), (0.06, 0.15)))),
        ("hull", Polygon(((-0.95, 0.3), (0.95, 0.3), (0.6, 0.8), (-0.6, 0.8)))),
    ),
    "car": (
        ("window", Polygon(((-0.45, -0.5), (0.35, -0.5), (0.6, 0.0), (-0.6, 0.0)))),
        ("body", _box(-0.95, -0.02, 0.95, 0.42)),
        ("wheel", Ellipse(-0.55, 0.45, 0.26, 0.26)),
        ("wheel", Ellipse(0.55, 0.45, 0.26, 0.26)),
    ),
    "fish": (
        ("tail", Polygon(((-0.95, -0.45), (-0.4, 0.0), (-0.95, 0.45)))),
        ("fin", Polygon(((-0.35, -0.25), (0.15, -0.7), (0.3, -0.25)))),
        ("body", Ellipse(0.2, 0.0, 0.72, 0.38)),
    ),
    "house": (
        ("wall", _box(-0.65, -0.15, 0.65, 0.85)),
        ("roof", Polygon(((0.0, -0.95), (0.9, -0.15), (-0.9, -0.15)))),
        ("door", _box(-0.18, 0.3, 0.18, 0.85)),
    ),
    "person": (
        ("leg", _box(-0.3, 0.2, -0.08, 0.95)),
        ("leg", _box(0.08, 0.2, 0.3, 0.95)),
        ("arm", Polygon(((-0.35, -0.45), (-0.2, -0.3), (-0.7, 0.25), (-0.85, 0.1)))),
        ("arm", Polygon(((0.35, -0.45), (0.85, 0.1), (0.7, 0.25), (0.2, -0.3)))),
        ("torso", _box(-0.32, -0.48, 0.32, 0.25)),
        ("head", Ellipse(0.0, -0.7, 0.25, 0.27)),
    ),
    "tree": (
        ("trunk", _box(-0.16, 0.1, 0.16, 0.95)),
        ("crown", Ellipse(0.0, -0.3, 0.68, 0.62)),
    ),
}


# What lies behind each object; of the same shapes, so that no single shape gives a class away.
CLUTTER: tuple[Ellipse | Polygon, ...] = (
    Ellipse(0, 0, 0.6, 0.6), _box(-0.3, -0.9, 0.3, 0.9), Polygon(((-0.8, 0.6), (0, -0.8), (0.8, 0.6))),
    Ellipse(0, 0, 0.9, 0.5), _box(-0.8, -0.6, 0.8, 0.6), Polygon(((-0.9, -0.3), (0.9, -0.3), (0.6, 0.3), (-0.6, 0.3))),
)  # fmt: skip


def _numbered() -> PartNames:
    """Number the parts in the order of classes, and within a class in the order of painting."""
    names: dict[str, dict[str, int]] = {}
    count = 0
    for name, shapes in OBJECTS.items():
        parts = dict.fromkeys(part for part, _ in shapes)
        names[name] = {part: count + k for k, part in enumerate(parts, start=1)}
        count += len(parts)
    return names


NAMES = _numbered()


def load_synthetic_parts(
    root: Path | None = None,
    *,
    validation: float = 0.1,
    size: int | None = None,
    download: bool = False,
    train: int = TRAIN,
    test: int = TEST,
    seed: int = SPLIT_SEED,
) -> Splits:
    """Draw images with parts. The classes take turns, so that they are balanced.

    Args:
        root: not needed.
        validation: share of the ``train`` images that is kept for validation.
        size: side in pixels; 48 by default.
        download: not needed.
        train: images to draw for training and validation.
        test: images to draw for testing.
        seed: decides the drawings. Image ``i`` is the same however many there are.

    Raises:
        UserError: if the size is too small for parts.
    """
    size = size or DEFAULT_SIZE
    if size < SMALLEST:
        raise UserError(f"data.size {size}: synthetic-parts needs {SMALLEST} pixels or more.")
    drawn = {split: _drawn(split, n, size, seed) for split, n in (("train", train), ("test", test))}
    fingerprint = content_fingerprint(tensor for tensors in drawn.values() for tensor in tensors)

    def as_set(split: str) -> ImageSet:
        pixels, masks, labels = drawn[split]
        there = torch.ones(len(labels), dtype=torch.bool)
        return ImageSet(
            name="synthetic-parts",
            split=split,
            classes=tuple(OBJECTS),
            labels=labels,
            index=torch.arange(len(labels)),
            fingerprint=fingerprint,
            shape=(3, size, size),
            pixels=pixels,
            parts=Parts(NAMES, largest(NAMES), there, masks),
            names=numbered(split, len(labels)),
        )

    rest, held = hold_out(as_set("train"), validation, "validation")
    return Splits(train=rest, validation=held, test=as_set("test"))


@lru_cache(maxsize=2)  # an experiment opens the same set for each of its columns, and drawing takes seconds
def _drawn(split: str, n: int, size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw images, part ids and labels of a split. They are shared, so nobody may write into them."""
    keys = Keys(seed, f"synthetic-parts/{split}", torch.arange(n))
    labels = keys.index % len(OBJECTS)
    return *draw(labels, keys, size), labels


def draw(
    labels: Int[Tensor, " n"], keys: Keys, size: int
) -> tuple[UInt8[Tensor, "n 3 size size"], UInt8[Tensor, "n size size"]]:
    """Draw an object of each class asked for, by random numbers that belong to the sample: images and part ids."""
    pixels = torch.empty(len(labels), 3, size, size, dtype=torch.uint8)
    masks = torch.empty(len(labels), size, size, dtype=torch.uint8)
    for label, name in enumerate(OBJECTS):
        for some in torch.split((labels == label).nonzero()[:, 0], CHUNK):
            images, masks[some] = _draw_class(name, keys[some], size)
            pixels[some] = (images * 255).round().clamp(0, 255).byte()
    return pixels, masks


def _draw_class(name: str, keys: Keys, size: int) -> tuple[Float[Tensor, "b 3 h w"], UInt8[Tensor, "b h w"]]:
    across = (torch.arange(size) + 0.5) * (2 / size) - 1
    x, y = across.expand(size, size), across[:, None].expand(size, size)
    images, colours = _background(keys, x, y)
    masks = torch.zeros(len(keys), size, size, dtype=torch.uint8)
    frame = _pose(keys, "object", x, y, (0.6, 0.9), 0.35, 0.35)
    nudge = 0.05 * (2 * keys.fold("nudge").uniform(0, (len(OBJECTS[name]), 2)) - 1)
    for number, (part, shape) in enumerate(OBJECTS[name]):
        u, v = (axis - nudge[:, number, k, None, None] for k, axis in enumerate(frame))
        inside = shape.holds(u, v)
        place = list(NAMES[name]).index(part)
        images = torch.where(inside[:, None], colours[:, place, :, None, None], images)
        masks = masks.masked_fill(inside, NAMES[name][part])
    images = images + 0.06 * (2 * keys.fold("grain").uniform(0, (1, size, size)) - 1)
    inverted = keys.fold("invert").uniform(0, (1, 1, 1)) < 0.5
    return torch.where(inverted, 1 - images, images).clamp(0, 1), masks


def _background(keys: Keys, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 3, H, W) a dark gradient with clutter, and (B, 4, 3) bright colours of parts, the same for all classes."""
    ends = 0.45 * keys.fold("background").uniform(0, (2, 3, 1, 1))
    angle = 2 * math.pi * keys.fold("gradient").uniform(0, (1, 1))
    along = (0.5 + 0.35 * (angle.cos() * x[None] + angle.sin() * y[None])).clamp(0, 1)[:, None]
    images = torch.lerp(ends[:, 0], ends[:, 1], along)
    tints = 0.55 * keys.fold("tints").uniform(0, (len(CLUTTER), 3, 1, 1))
    for number, shape in enumerate(CLUTTER):
        inside = shape.holds(*_pose(keys, f"clutter/{number}", x, y, (0.1, 0.4), 1.0, math.pi))
        images = torch.where(inside[:, None], tints[:, number], images)
    colours = 0.45 + 0.55 * keys.fold("colours").uniform(0, (4, 3))
    return images, colours


def _pose(
    keys: Keys, what: str, x: Tensor, y: Tensor, scale: tuple[float, float], shift: float, turn: float
) -> tuple[Tensor, Tensor]:
    """(B, H, W) twice: where each pixel lies in the frame of a shape that is moved, turned, scaled and mirrored.

    Args:
        keys: of the samples.
        what: names the draws.
        x: (H, W) of the pixels, from -1 to 1.
        y: as x.
        scale: least and largest half-size, as a share of the image's.
        shift: largest shift of a shape of half-size 0; at half-size 1 there is none.
        turn: largest angle, in radians.
    """
    draws = keys.fold(what).uniform(0, (6, 1, 1))
    half = scale[0] + (scale[1] - scale[0]) * draws[:, 0]
    room = shift if shift == 1.0 else (1 - half).clamp_max(shift)
    dx, dy = (x[None] - room * (2 * draws[:, 1] - 1)), (y[None] - room * (2 * draws[:, 2] - 1))
    angle = turn * (2 * draws[:, 3] - 1)
    stretch = 0.85 + 0.3 * draws[:, 4]
    mirror = torch.where(draws[:, 5] < 0.5, -1.0, 1.0)
    u = (angle.cos() * dx + angle.sin() * dy) / half / stretch * mirror
    v = (angle.cos() * dy - angle.sin() * dx) / half * stretch
    return u, v
