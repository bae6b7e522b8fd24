"""Where-profiles on the page and as files: the curves of accuracy against the share that may move, and pictures."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, UInt8

from ..records import Record
from ..statistics import wilson
from .drawing import STYLE, Plot, draw_chance, mark, plot
from .panel import as_bytes
from .runs import WHERE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PREFIX, AREA = WHERE, f"{WHERE}area "
# kind and control -> the words of a curve and the line that it is drawn with
CURVES: Mapping[tuple[str, str], tuple[str, str]] = {
    ("top", ""): ("top of the map", "-"),
    ("bottom", ""): ("bottom of the map", "-"),
    ("top", "other"): ("another image's top", "--"),
    ("top", "shifted"): ("another image's top, shifted", ":"),
    ("bottom", "other"): ("another image's bottom", "--"),
}


@dataclass(frozen=True)
class WhereImage:
    """An image with its regions.

    Attributes:
        name: the name of its class.
        pixels: (C, H, W) in [0, 1].
        regions: the name of each region -> which pixels may move.
    """

    name: str
    pixels: Float[np.ndarray, "c h w"]
    regions: Mapping[str, Bool[np.ndarray, "h w"]]


@dataclass(frozen=True)
class WhereSection:
    """The where-profile of a run as the page shows it.

    Attributes:
        title: what was judged.
        lines: of each region: its name, the share of pixels, the number of images, and the records of the region, of
            another image's and of that shifted.
        areas: the areas between curves.
        plot: the curves; None where no map was judged.
    """

    title: str
    lines: Sequence[tuple[str, float, int, Mapping[str, Record]]]
    areas: Sequence[Record]
    plot: Plot | None


def where_section(latest: Sequence[Record]) -> WhereSection | None:
    """The section of a run's latest profile, from its records; None where there are none."""
    if not latest:
        return None
    lines: dict[str, dict[str, Record]] = {}
    for record in latest:
        if not record.name.startswith(AREA):
            lines.setdefault(record.details["region"], {})[record.details.get("control", "")] = record
    lines_of_table = [
        (name, float(of[""].details["pixels"]), of[""].n or 0, of) for name, of in lines.items() if "" in of
    ]
    areas = [record for record in latest if record.name.startswith(AREA)]
    curves = curves_of(latest)
    drawn = None
    if curves:
        words = [f"{name}: {_in_words(points)}" for name, points in curves.items()]
        caption = (
            "Accuracy if the attacker may move this share of the pixels alone: none is clean accuracy, all the plain "
            "attack. Bands are 95 % intervals over images, and of random regions over draws too."
        )
        drawn = plot(
            "where-profile",
            lambda figure: _draw(figure, curves, _chance(latest)),
            caption,
            f"Where-profile. {'; '.join(words)}.",
        )
    return WhereSection(str(latest[0].details["title"]), lines_of_table, areas, drawn)


Curve = Sequence[tuple[float, float, float, float]]
"""Points of share, accuracy and the ends of its interval, with rising share."""


def curves_of(records: Sequence[Record]) -> dict[str, Curve]:
    """The words of each curve -> its points, from the clean accuracy at 0 to the plain attack at 1."""
    plain = next((r for r in records if r.name == f"{PREFIX}everything"), None)
    if plain is None or plain.value is None:
        return {}
    curves: dict[str, Curve] = {}
    for (kind, control), (words, _) in CURVES.items():
        points = [
            (float(r.details["share"]), *_ends(r))
            for r in records
            if r.details.get("kind") == kind and r.details.get("control", "") == control
        ]
        if points:
            clean = float(plain.details["clean"])
            unmoved = wilson(round(clean * (plain.n or 1)), plain.n or 1)
            curves[words] = [(0.0, clean, *unmoved), *sorted(points), (1.0, *_ends(plain))]
    return curves


def _ends(record: Record) -> tuple[float, float, float]:
    value = float(record.value or 0.0)
    return value, *(record.interval or (value, value))


def _in_words(points: Curve) -> str:
    return ", ".join(f"{value:.1%} at {share:.0%}" for share, value, _, _ in points)


def write_curves(records: Sequence[Record], path: Path, title: str = "") -> None:
    """Draw the curves of a profile into a PNG file.

    Raises:
        ValueError: the profile has no region of a map.
    """
    curves = curves_of(records)
    if not curves:
        raise ValueError("this where-profile has no regions of a map, and so no curves to plot.")
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(5.2, 4.6), layout="constrained")
        FigureCanvasAgg(figure)
        _draw(figure, curves, _chance(records))
        figure.axes[0].set_title(title, fontsize=9)
        written = io.BytesIO()
        figure.savefig(written, format="png", dpi=150, metadata={"Software": None})
    path.write_bytes(written.getvalue())


def _chance(records: Sequence[Record]) -> float | None:
    """What always answering the most frequent class reaches, in [0, 1]; None where classes are not known."""
    plain = next((r for r in records if r.name == f"{PREFIX}everything"), None)
    counts = [n for _, n in (plain.details.get("per_class") or {}).values()] if plain else []
    if len(counts) < 2 or not sum(counts):
        return None
    return float(max(counts) / sum(counts))


def _draw(figure: "Figure", curves: Mapping[str, Curve], chance: float | None) -> None:
    axes = figure.subplots()
    colours = {"top": 1, "bottom": 0, "other": 2, "shifted": 3}
    for (kind, control), (words, line) in CURVES.items():
        if words not in curves:
            continue
        shares, values, lows, highs = (
            [100 * number for number in column] for column in zip(*curves[words], strict=True)
        )
        style = mark(colours["bottom" if kind == "bottom" else control or kind])
        axes.plot(
            shares, values, label=words, linestyle=line, linewidth=1.6, markersize=5, clip_on=False, **style
        )
        axes.fill_between(shares, lows, highs, color=style["color"], alpha=0.13, linewidth=0)
    axes.set_xlim(0, 100)
    draw_chance(axes, [chance])
    axes.set_ylim(0, 100)
    axes.set_xlabel("pixels that the attacker may move, %")
    axes.set_ylabel("accuracy, %")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=1 if len(labels) < 3 else 2, fontsize=9)


def write_images(images: Sequence[WhereImage], path: Path) -> None:
    """Draw a grid of images into a PNG file: a line for each region, whose pixels are bright and others dark."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for image in images for name in image.regions))[:12]
    figure = Figure(figsize=(1.9 + 0.95 * len(images), 0.4 + 0.95 * (1 + len(names))), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1 + len(names), len(images), squeeze=False)
    for column, image in enumerate(images):
        axes[0][column].set_title(image.name, fontsize=8)
        for row, name in enumerate(["image", *names]):
            axis = axes[row][column]
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if column == 0:
                axis.set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
            if name == "image" or name in image.regions:
                axis.imshow(_shaded(image, image.regions.get(name)))
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=120, metadata={"Software": None})
    path.write_bytes(written.getvalue())


def _shaded(image: WhereImage, region: Bool[np.ndarray, "h w"] | None) -> UInt8[np.ndarray, "h w c"]:
    """The image in colours, tinted where a region is and dark elsewhere."""
    pixels = np.broadcast_to(
        image.pixels[:3] if len(image.pixels) >= 3 else image.pixels[:1], (3, *image.pixels.shape[1:])
    )
    if region is not None:
        tint = np.array([1.0, 0.65, 0.1], dtype=pixels.dtype)[:, None, None]
        pixels = np.where(region, 0.65 * pixels + 0.35 * tint, 0.35 * pixels)
    picture: UInt8[np.ndarray, "h w c"] = as_bytes(pixels[None].astype(np.float32))[0]
    return picture
