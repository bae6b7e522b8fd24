"""Figures that are a grid of small pictures, with a column for each image and a line for each thing shown of it."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..data.image_sets import ImageSet, balanced_subset
from ..data.transforms import as_floats
from ..rundir import write_atomically

IMAGES = 10
RIGHT, WRONG = "#009E73", "#D55E00"  # Okabe and Ito 2008: told apart by colour-blind readers


@dataclass(frozen=True)
class Line:
    """A line of pictures.

    Attributes:
        name: the words beside it.
        pictures: (M, H, W, C), of one channel or three.
        right: whether the answer to each image is right, which a frame shows.
        below: the words under each picture.
    """

    name: str
    pictures: UInt8[np.ndarray, "m h w c"]
    right: Sequence[bool] | None = None
    below: Sequence[str] | None = None


def some_images(
    images: ImageSet, device: torch.device, seed: int
) -> tuple[ImageSet, Float[Tensor, "m c h w"]]:
    """Ten images and their pixels. The classes take turns, and the images are drawn by the seed and not by eye."""
    chosen = balanced_subset(images, min(IMAGES, len(images)), seed=seed)
    return chosen, as_floats(chosen.read(torch.arange(len(chosen))).to(device))


def write_grid(
    file: Path, titles: Sequence[str], lines: Sequence[Line], legend: Mapping[str, str] | None = None
) -> None:
    """Write a PNG.

    Args:
        file: the PNG.
        titles: the words above each column.
        lines: the lines from top to bottom.
        legend: {name: colour}, which is shown below.
    """
    write_atomically(file, lambda path: path.write_bytes(_render(titles, lines, legend or {})))


def _render(titles: Sequence[str], lines: Sequence[Line], legend: Mapping[str, str]) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    across, depth = 7, -(-len(legend) // 7)
    height = 0.4 + 0.95 * len(lines) + 0.18 * depth + 0.15 * sum(line.below is not None for line in lines)
    figure = Figure(figsize=(1 + 0.9 * len(titles), height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(lines), len(titles), squeeze=False)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=8)
    for row, line in zip(axes, lines, strict=True):
        row[0].set_ylabel(line.name, fontsize=8, rotation=0, ha="right", va="center")
        grey = line.pictures.shape[-1] == 1
        for i, (axis, picture) in enumerate(zip(row, line.pictures, strict=True)):
            axis.imshow(picture[..., 0] if grey else picture, cmap="gray" if grey else None, vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(line.right is not None)
            if line.right is not None:
                good = line.right[i]
                colour, style, sign = (RIGHT, "solid", "\u2713") if good else (WRONG, (0, (2, 1.5)), "\u00d7")
                axis.spines[:].set(color=colour, linewidth=2.5, linestyle=style, capstyle="butt")
                box = {"facecolor": colour, "edgecolor": "none", "boxstyle": "square,pad=0.15"}
                place = {"transform": axis.transAxes, "ha": "right", "va": "top", "fontsize": 7}
                axis.text(1, 1, sign, color="white", bbox=box, **place)
            if line.below is not None:
                axis.set_xlabel(line.below[i], fontsize=6, labelpad=2)
    if legend:
        handles = [Patch(facecolor=colour, label=name) for name, colour in legend.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=across, fontsize=7, frameon=False)
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=120, metadata={"Software": None})
    return written.getvalue()
