"""The image panel: each image clean, with its radius, attacked, the difference made visible, and its parts."""

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer, UInt8

from .part_colours import coloured_parts, part_legend
from .tables import radius_text

_LISTS = (
    "classes",
    "labels",
    "clean_predictions",
    "adversarial_predictions",
    "confidences_clean",
    "confidences_adversarial",
    "part_names",
    "annotated",
)
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
    """The smallest and largest radius over some panel files, so that all share one colour scale."""
    from safetensors import safe_open

    radii = []
    for file in files:
        with safe_open(file, framework="numpy") as opened:
            radii.append(opened.get_tensor("radius"))
    return min(float(radius.min()) for radius in radii), max(float(radius.max()) for radius in radii)


def read_panel(file: Path, norm: str | None, low: float, high: float) -> Panel:
    """Draw a panel file.

    Args:
        file: tensors clean and adversarial (m, C, H, W), radius (m, H, W), perhaps importance (m, h, w), and those of
            ``PART_MAPS`` (m, H, W).
        norm: the radius's norm, which decides how it is written.
        low, high: radius at the dark and at the bright end of the colours.
    """
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
        metadata = {name: json.loads(text) for name, text in opened.metadata().items() if name in _LISTS}
    clean, adversarial, radius = tensors["clean"], tensors["adversarial"], tensors["radius"]
    difference = adversarial - clean
    largest = float(np.abs(difference).max(initial=0))
    factor = 0.5 / largest if largest else 1.0
    importance = tensors.get("importance")
    columns = {
        "clean": as_bytes(clean),
        **({} if importance is None else {"map": coloured(stretched(importance))}),
        "radius": coloured((radius - low) / (high - low) if high > low else np.ones_like(radius)),
        "attacked": as_bytes(adversarial),
        "change": as_bytes(0.5 + factor * difference),
    }
    part_maps = {name: tensors[key] for name, key in PART_MAPS.items() if key in tensors}
    classes, labels = metadata["classes"], metadata["labels"]
    samples = []
    for i, label in enumerate(labels):
        name = str(classes[label])
        clean_verdict, attacked_verdict = (
            Verdict(str(classes[p]), p == label, float(metadata[f"confidences_{kind}"][i]))
            for kind in ("clean", "adversarial")
            for p in [metadata[f"{kind}_predictions"][i]]
        )
        tiles = [
            Tile(column, _png(pictures[i]), f"{name}: {_alt(column, radius[i], norm)}")
            for column, pictures in columns.items()
        ]
        correct = {"parts": clean_verdict.correct, "parts attacked": attacked_verdict.correct}
        parts = [
            Tile(column, _png(coloured_parts(maps[i])), f"{name}: {alt}", correct.get(column))
            for column, maps in part_maps.items()
            if column in correct or metadata["annotated"][i]
            for alt in [_parts_alt(column, maps[i], metadata["part_names"])]
        ]
        samples.append(PanelSample(name, clean_verdict, attacked_verdict, tiles, parts))
    shown = np.concatenate(list(part_maps.values())) if part_maps else None
    return Panel(samples, factor, {} if shown is None else part_legend(shown, metadata["part_names"]))


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
