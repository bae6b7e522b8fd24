"""Colours of parts, in maps and in legends, for the page and for matplotlib: {name: "#rrggbb"} is what both take."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer, UInt8

BACKGROUND = "#e1e1e1"
# Each is the colour that is farthest in CIELAB from the background, white, black and all colours before it, for the
# eyes that see it worst: usual ones, ones without long cones, ones without medium cones (Machado et al. 2009).
# Lightness is 30 to 92. So a few parts differ most; and among many, neighbouring ids do, which are parts of one object.
COLOURS = (
    "#0078b4", "#ffe100", "#0000ff", "#875a0f", "#3c7869", "#ffd287", "#3c69f0", "#b4c3ff", "#c3960f", "#b49669",
    "#2d4b69", "#871e2d", "#87a5b4", "#2d3ca5", "#7896ff", "#e1e1b4", "#2d2dd2", "#ffd25a", "#b4a596", "#5a7896",
    "#b4873c", "#004b87", "#87693c", "#c3e1ff", "#ff1ed2", "#1ea5e1", "#0f5a5a", "#e1b400", "#d2b45a", "#0f5a3c",
    "#f0b487", "#d200ff", "#788769", "#c3c3d2", "#961ec3", "#693c0f", "#a57800", "#e1c3b4", "#a57887", "#870f87",
    "#4b87b4", "#9600ff", "#b43c87", "#f000b4", "#96c3e1", "#d2f0d2", "#0f6978", "#ffe1a5", "#78694b", "#0087d2",
    "#c3b4b4", "#a5874b", "#d2b496", "#3ce13c", "#b4a55a", "#ffe178", "#3c5ad2", "#e178a5", "#d2963c", "#a5a5ff",
)  # fmt: skip


def part_colour(part: int) -> str:
    """The colour of a part id, the same in every picture; 0 is the background. From 61 on they repeat."""
    return COLOURS[(part - 1) % len(COLOURS)] if part else BACKGROUND


def coloured_parts(maps: Integer[np.ndarray, "*maps"]) -> UInt8[np.ndarray, "*maps 3"]:
    """Colour maps of part ids as pictures."""
    colours = [[*bytes.fromhex(part_colour(part)[1:])] for part in range(int(maps.max(initial=0)) + 1)]
    pictures: UInt8[np.ndarray, "*maps 3"] = np.array(colours, dtype=np.uint8)[maps]
    return pictures


def part_legend(maps: Integer[np.ndarray, "*maps"], names: Sequence[str]) -> dict[str, str]:
    """{name: colour} of the parts that occur, background included, in the order of their ids.

    For matplotlib: ``figure.legend(handles=[Patch(color=c, label=n) for n, c in part_legend(maps, names).items()])``.

    Args:
        maps: part ids.
        names: the name of each id, from 0 on.
    """
    return {names[part]: part_colour(part) for part in np.unique(maps).tolist()}
