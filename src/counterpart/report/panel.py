"""The image panel: each image clean, with its radius, attacked, the difference made visible, and its parts."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer, UInt8

from ..pictures import Pictures
from .part_colours import coloured_parts, part_legend
from .tables import radius_text

PART_MAPS = {"true parts": "parts_true", "parts": "parts", "parts attacked": "parts_adversarial"}
Planes = Float[np.ndarray, "m h w"]


@dataclass(frozen=True)
class Tile:
    """A small picture and its name.

    Attributes:
        correct: of what the model found: whether its class is right, which the frame shows. Else None.
    """

    name: str
    uri: str
    alt: str
    correct: bool | None = None


@dataclass(frozen=True)
class Verdict:
    """What the model said about one image."""

    predicted: str
    correct: bool
    confidence: float


@dataclass(frozen=True)
class PanelSample:
    """One image of the panel; ``parts`` are the tiles of a part model."""

    true: str
    clean: Verdict
    attacked: Verdict
    tiles: list[Tile]
    parts: list[Tile]


@dataclass(frozen=True)
class Panel:
    """The samples, how many times their change is magnified, and the colour of each part that they show."""

    samples: list[PanelSample]
    factor: float
    legend: Mapping[str, str]


def radius_range(files: Iterable[Path]) -> tuple[float, float]:
    """The smallest and largest radius over some picture files, so that all share one colour scale."""
    radii = [Pictures.read(file).radius for file in files]
    return min(float(radius.min()) for radius in radii), max(float(radius.max()) for radius in radii)


def read_panel(file: Path, norm: str | None, low: float, high: float) -> Panel:
    """Draw a file of pictures.

    Args:
        file: of ``pictures.Pictures``.
        norm: the radius's norm, which decides how it is written.
        low, high: radius at the dark and at the bright end of the colours.
    """
    pictures = Pictures.read(file)
    difference = pictures.adversarial - pictures.clean
    largest = float(np.abs(difference).max(initial=0))
    factor = 0.5 / largest if largest else 1.0
    columns = _columns(pictures, 0.5 + factor * difference, low, high)
    maps = _part_maps(pictures)
    samples = [_sample(i, pictures, columns, maps, norm) for i in range(len(pictures.labels))]
    shown = np.concatenate(list(maps.values())) if maps else None
    return Panel(samples, factor, {} if shown is None else part_legend(shown, pictures.part_names or ()))


def _columns(
    pictures: Pictures, difference: Float[np.ndarray, "m c h w"], low: float, high: float
) -> dict[str, UInt8[np.ndarray, "..."]]:
    """Name -> pictures of all images, as the panel shows them side by side."""
    radius, importance = pictures.radius, pictures.importance
    return {
        "clean": as_bytes(pictures.clean),
        **({} if importance is None else {"map": coloured(stretched(importance))}),
        "radius": coloured((radius - low) / (high - low) if high > low else np.ones_like(radius)),
        "attacked": as_bytes(pictures.adversarial),
        "change": as_bytes(difference),
    }


def _part_maps(pictures: Pictures) -> dict[str, Integer[np.ndarray, "m h w"]]:
    """Name -> maps of part ids; none where the model finds no parts."""
    maps = {name: getattr(pictures, tensor) for name, tensor in PART_MAPS.items()}
    return {name: ids for name, ids in maps.items() if ids is not None}


def _sample(
    i: int,
    pictures: Pictures,
    columns: Mapping[str, UInt8[np.ndarray, "..."]],
    maps: Mapping[str, Integer[np.ndarray, "m h w"]],
    norm: str | None,
) -> PanelSample:
    """One image with everything that is shown of it."""
    label = pictures.labels[i]
    name = str(pictures.classes[label])

    def verdict(predicted: int, confidence: float) -> Verdict:
        return Verdict(str(pictures.classes[predicted]), predicted == label, float(confidence))

    clean = verdict(pictures.clean_predictions[i], pictures.confidences_clean[i])
    attacked = verdict(pictures.adversarial_predictions[i], pictures.confidences_adversarial[i])
    tiles = [
        Tile(column, _png(shown[i]), f"{name}: {_alt(column, pictures.radius[i], norm)}")
        for column, shown in columns.items()
    ]
    correct = {"parts": clean.correct, "parts attacked": attacked.correct}
    parts = []
    for column, ids in maps.items():
        if column in correct or (pictures.annotated or ())[i]:
            alt = _parts_alt(column, ids[i], pictures.part_names or ())
            parts.append(Tile(column, _png(coloured_parts(ids[i])), f"{name}: {alt}", correct.get(column)))
    return PanelSample(name, clean, attacked, tiles, parts)


def ramp() -> str:
    """The radius colours from low to high, as an image."""
    return _png(coloured(np.linspace(0, 1, 64)[None]))


def _alt(column: str, radius: Float[np.ndarray, "h w"], norm: str | None) -> str:
    low, high = radius_text(float(radius.min()), norm), radius_text(float(radius.max()), norm)
    return {
        "clean": "clean image",
        "map": "importance map",
        "radius": f"radius {low} everywhere" if low == high else f"radius of each pixel, {low} to {high}",
        "attacked": "attacked image",
        "change": "what the attack changed",
    }[column]


def _parts_alt(column: str, ids: Integer[np.ndarray, "h w"], names: Sequence[str]) -> str:
    """The parts of a tile, the largest first: what eyes that do not tell the colours apart can read."""
    shown, sizes = np.unique(ids, return_counts=True)
    parts = [names[part] for part in shown[np.argsort(-sizes, kind="stable")].tolist() if part]
    return f"{column}: {', '.join(parts) or 'none'}"


def as_bytes(images: Float[np.ndarray, "m c h w"]) -> UInt8[np.ndarray, "m h w c"]:
    """Images in [0, 1] as pictures."""
    return (images.clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)


def stretched(maps: Planes) -> Planes:
    """Each map stretched to [0, 1]; a flat map becomes 0."""
    low = maps.min(axis=(1, 2), keepdims=True)
    span = maps.max(axis=(1, 2), keepdims=True) - low
    stretched: Planes = (maps - low) / np.where(span > 0, span, 1)
    return stretched


def coloured(values: Float[np.ndarray, "*planes"]) -> UInt8[np.ndarray, "*planes 3"]:
    """[0, 1] as cividis, which reads the same to colour-blind eyes and in grey."""
    from matplotlib import colormaps

    return np.asarray(colormaps["cividis"](values, bytes=True))[..., :3]


def _png(picture: UInt8[np.ndarray, "h w c"]) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
