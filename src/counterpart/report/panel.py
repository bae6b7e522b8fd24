"""The image panel: each image clean, attacked, with the radius of its pixels, the change and its parts."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer, UInt8

from ..part_colours import coloured_parts, part_legend
from ..pictures import Pictures
from .class_names import called
from .setting import radius_text

# From the name of each tile of parts to the field of ``Pictures`` that it shows.
PART_MAPS = {"true parts": "parts_true", "parts": "parts", "parts attacked": "parts_adversarial"}
OF_ATTACK = ("attacked", "map attacked", "change", "parts attacked")
"""Tiles that say nothing of an image that no attack touched."""
Planes = Float[np.ndarray, "m h w"]


@dataclass(frozen=True)
class Tile:
    """A small picture and its name.

    Attributes:
        name: the words below the picture.
        uri: the picture itself, as a data URI of a PNG file.
        alt: the words in place of the picture, for those who do not see it.
        correct: whether the class that the model answers with these parts is right, which the frame shows.
            None for pictures of something else.
    """

    name: str
    uri: str
    alt: str
    correct: bool | None = None


@dataclass(frozen=True)
class Verdict:
    """The answer of the model for one image.

    Attributes:
        predicted: the name of the class that the model answers.
        correct: whether that is the true class.
        confidence: the probability that the model gives to it, in [0, 1].
    """

    predicted: str
    correct: bool
    confidence: float


@dataclass(frozen=True)
class PanelSample:
    """One image of the panel.

    Attributes:
        true: the name of the true class.
        clean: the answer for the clean image.
        attacked: the answer for the attacked image.
        tiles: the pictures of the image.
        parts: the pictures of its parts; empty if the model finds none.
        attack: the name of the attack that fooled the model; "" where none did, or where an older file does not say.
        tried: whether any attack was tried.
    """

    true: str
    clean: Verdict
    attacked: Verdict
    tiles: list[Tile]
    parts: list[Tile]
    attack: str = ""
    tried: bool = True

    @property
    def outcome(self) -> str:
        """What became of the image: wrong from the start, fooled or held; right where no attack was tried."""
        if not self.clean.correct:
            return "wrong from the start"
        if not self.tried:
            return "right"
        return "held" if self.attacked.correct else "fooled"


@dataclass(frozen=True)
class Panel:
    """The panel of one row of the table.

    Attributes:
        samples: the images.
        factor: how many times the change of pixels is magnified.
        legend: a mapping from the name of each part that is shown to its colour.
        drawn: whether the images were drawn at random, as those of older files were not.
    """

    samples: list[PanelSample]
    factor: float
    legend: Mapping[str, str]
    drawn: bool = False


def radius_range(files: Iterable[Path]) -> tuple[float, float]:
    """The smallest and the largest radius over some picture files, so that all can share one colour scale."""
    radii = [Pictures.read(file).radius for file in files]
    return min(float(radius.min()) for radius in radii), max(float(radius.max()) for radius in radii)


def read_panel(file: Path, norm: str | None, low: float, high: float, tried: bool = True) -> Panel:
    """The panel that shows a file of pictures.

    Args:
        file: a file that ``pictures.Pictures`` wrote.
        norm: the norm of the radius, which decides how it is written.
        low, high: the radius at the dark and at the bright end of the colours.
        tried: whether any attack was tried.
    """
    pictures = Pictures.read(file)
    difference = pictures.adversarial - pictures.clean
    largest = float(np.abs(difference).max(initial=0))
    factor = 0.5 / largest if largest else 1.0
    columns = _columns(pictures, 0.5 + factor * difference, low, high)
    maps = _part_maps(pictures)
    of_all = [_sample(i, pictures, columns, maps, norm) for i in range(len(pictures.labels))]
    samples = [replace(sample, tried=tried) for sample in of_all]
    legend = {}
    if maps:
        legend = part_legend(np.concatenate(list(maps.values())), pictures.part_names or ())
    return Panel(samples, factor, legend, pictures.fooled_by is not None)


def _columns(
    pictures: Pictures, difference: Float[np.ndarray, "m c h w"], low: float, high: float
) -> dict[str, UInt8[np.ndarray, "..."]]:
    """A mapping from the name of each column to the pictures of all images in it.

    A radius that is the same in every pixel of all panels is no column: the page says it in words.
    """
    columns = {"clean": as_bytes(pictures.clean)}
    if pictures.importance is not None:
        columns["map"] = coloured(stretched(pictures.importance))
    if high > low:
        columns["radius"] = coloured((pictures.radius - low) / (high - low))
    columns["attacked"] = as_bytes(pictures.adversarial)
    if pictures.importance_adversarial is not None:
        columns["map attacked"] = coloured(stretched(pictures.importance_adversarial))
    columns["change"] = as_bytes(difference)
    return columns


def _part_maps(pictures: Pictures) -> dict[str, Integer[np.ndarray, "m h w"]]:
    """A mapping from the name of each tile of parts to its maps of part ids; empty where there are none."""
    maps = {name: getattr(pictures, tensor) for name, tensor in PART_MAPS.items()}
    return {name: ids for name, ids in maps.items() if ids is not None}


def _sample(
    i: int,
    pictures: Pictures,
    columns: Mapping[str, UInt8[np.ndarray, "..."]],
    maps: Mapping[str, Integer[np.ndarray, "m h w"]],
    norm: str | None,
) -> PanelSample:
    """The image at place ``i``, with everything that is shown of it."""
    label = pictures.labels[i]
    name = called(str(pictures.classes[label]))

    def verdict(predicted: int, confidence: float) -> Verdict:
        return Verdict(called(str(pictures.classes[predicted])), predicted == label, float(confidence))

    clean = verdict(pictures.clean_predictions[i], pictures.confidences_clean[i])
    attacked = verdict(pictures.adversarial_predictions[i], pictures.confidences_adversarial[i])
    tiles = []
    untouched = np.array_equal(pictures.clean[i], pictures.adversarial[i])
    left_out = OF_ATTACK if untouched else ()
    for column, images in columns.items():
        if column not in left_out:
            alt = f"{name}: {_alt(column, pictures.radius[i], norm)}"
            tiles.append(Tile(column, _png(images[i]), alt))
    correct = {"parts": clean.correct, "parts attacked": attacked.correct}
    parts = []
    for column, ids in maps.items():
        if column in left_out:
            continue
        if column in correct or (pictures.annotated or ())[i]:
            alt = _parts_alt(column, ids[i], pictures.part_names or ())
            parts.append(Tile(column, _png(coloured_parts(ids[i])), f"{name}: {alt}", correct.get(column)))
    fooled_by = "" if pictures.fooled_by is None else str(pictures.fooled_by[i])
    return PanelSample(name, clean, attacked, tiles, parts, fooled_by)


def ramp() -> str:
    """The colours of radii from low to high, as the data URI of a picture."""
    return _png(coloured(np.linspace(0, 1, 64)[None]))


def _alt(column: str, radius: Float[np.ndarray, "h w"], norm: str | None) -> str:
    """The words in place of a picture of the given column."""
    low, high = radius_text(float(radius.min()), norm), radius_text(float(radius.max()), norm)
    return {
        "clean": "clean image",
        "map": "importance map",
        "map attacked": "importance map of the attacked image",
        "radius": f"radius {low} everywhere" if low == high else f"radius of each pixel, {low} to {high}",
        "attacked": "attacked image",
        "change": "what the attack changed",
    }[column]


def _parts_alt(column: str, ids: Integer[np.ndarray, "h w"], names: Sequence[str]) -> str:
    """The names of the parts in a tile, the largest first, for readers who cannot tell the colours apart."""
    part_ids, sizes = np.unique(ids, return_counts=True)
    parts = [names[part] for part in part_ids[np.argsort(-sizes, kind="stable")].tolist() if part]
    return f"{column}: {', '.join(parts) or 'none'}"


def as_bytes(images: Float[np.ndarray, "m c h w"]) -> UInt8[np.ndarray, "m h w c"]:
    """Images in [0, 1] as pictures of whole numbers from 0 to 255."""
    return (images.clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)


def stretched(maps: Planes) -> Planes:
    """Each map stretched so that it reaches from 0 to 1; a flat map becomes 0."""
    low = maps.min(axis=(1, 2), keepdims=True)
    span = maps.max(axis=(1, 2), keepdims=True) - low
    stretched: Planes = (maps - low) / np.where(span > 0, span, 1)
    return stretched


def coloured(values: Float[np.ndarray, "*planes"]) -> UInt8[np.ndarray, "*planes 3"]:
    """Values in [0, 1] in the colours of cividis, which reads the same to colour-blind eyes and in grey."""
    from matplotlib import colormaps

    return np.asarray(colormaps["cividis"](values, bytes=True))[..., :3]


def _png(picture: UInt8[np.ndarray, "h w c"]) -> str:
    """A picture as the data URI of a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(file, "PNG", optimize=True)
    return png_uri(file.getvalue())


def png_uri(content: bytes) -> str:
    """The data URI of a PNG file."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
