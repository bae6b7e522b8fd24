"""A contact sheet of images with part masks: a row for each class, so that a person sees whether masks sit right."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer
from PIL import Image, ImageDraw, ImageFont

from ..errors import UserError
from ..part_colours import BACKGROUND, part_colour
from .decoding import in_channels
from .opening import open_image
from .parts import PartNames, mask_ids

MOST_CLASSES = 24  # rows of a sheet
EXAMPLES = 3  # of a class
CELL = 184  # pixels, as wide and as high as an image may be
GAP, MARGIN, LINE, SWATCH = 6, 16, 19, 12
LEGEND, COLUMN = 390, 10  # pixels, the width of a row's legend; the parts in one of its columns
OPAQUE = 0.7  # of the colours over the grey image
INK, PALE, PAPER = "#1a1a1a", "#6a6a6a", "#ffffff"


class Example(NamedTuple):
    """An image, its mask, and what is said below it."""

    image: Path
    mask: Path
    text: str


def draw_sheet(
    examples: Mapping[str, Sequence[Example]],
    names: PartNames,
    counts: Mapping[tuple[str, str], int],
    title: str,
    file: Path,
) -> None:
    """Draw images beside themselves with their parts in colour, a row for each class, with the names of its parts.

    Args:
        examples: some images of each class, with their masks.
        names: classes and parts.
        counts: how many images of a class show a part.
        title: what is written above.
        file: the PNG, which is written over.

    Raises:
        UserError: the file cannot be written, or an image cannot be read any more.
    """
    rows = [_row(label, of_class, names, counts) for label, of_class in list(examples.items())[:MOST_CLASSES]]
    rows = [_heading(title, len(examples)), *rows]
    sheet = Image.new("RGB", (rows[-1].width, sum(row.height for row in rows) + MARGIN), PAPER)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    try:
        sheet.save(file, "PNG")
    except OSError as error:
        raise UserError(
            f"Could not write the contact sheet {file}: {error.strerror or error}. Name another file by --sheet."
        ) from None


def choose(
    visible_parts: Sequence[frozenset[int]], covered: Sequence[float], count: int = EXAMPLES
) -> list[int]:
    """Choose masks, by position: each shows most of the parts that those before it do not show.

    Args:
        visible_parts: the parts that each mask shows.
        covered: the share of each mask that is parts: of masks that show as many, the one with the most.
        count: how many to choose.
    """
    chosen: list[int] = []
    missing = frozenset[int]().union(*visible_parts)
    while len(chosen) < min(count, len(visible_parts)):
        remaining = [k for k in range(len(visible_parts)) if k not in chosen]
        best = max(remaining, key=lambda k: (len(visible_parts[k] & missing), covered[k], -k))
        chosen.append(best)
        missing -= visible_parts[best]
    return chosen


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _heading(title: str, classes: int) -> Image.Image:
    row = Image.new("RGB", (1, 3 * LINE + MARGIN), PAPER)
    row = row.resize((_width(), row.height))
    draw = ImageDraw.Draw(row)
    draw.text((MARGIN, MARGIN - 2), title, INK, _font(18))
    text = "Each image as it is, and in grey with its parts. Behind a part: how many images of the class show it."
    if classes > MOST_CLASSES:
        text += f" The first {MOST_CLASSES} of {classes:,} classes."
    draw.text((MARGIN, MARGIN + LINE + 4), text, PALE, _font(13))
    return row


def _width() -> int:
    return 2 * MARGIN + EXAMPLES * (2 * CELL + 2 + 2 * GAP) + LEGEND


def _row(
    label: str, examples: Sequence[Example], names: PartNames, counts: Mapping[tuple[str, str], int]
) -> Image.Image:
    parts = names.get(label, {})
    columns = min(3, -(-len(parts) // COLUMN) or 1)
    in_column = -(-len(parts) // columns)
    row = Image.new("RGB", (_width(), 2 * LINE + max(CELL + LINE, LINE * in_column) + GAP), PAPER)
    draw = ImageDraw.Draw(row)
    draw.line((MARGIN, GAP, _width() - MARGIN, GAP), BACKGROUND)
    draw.text((MARGIN, GAP + 6), label, INK, _font(16))
    top = 2 * LINE
    for k, example in enumerate(examples):
        start = MARGIN + k * (2 * CELL + 2 + 2 * GAP)
        image, coloured = _pair(example)
        for place, picture in ((start, image), (start + image.width + 2, coloured)):
            row.paste(picture, (place, top))
        text = _shortened(draw, example.text, 2 * CELL)
        draw.text((start, top + image.height + 3), text, PALE, _font(12))
    for k, (part, number) in enumerate(parts.items()):
        width = LEGEND // columns
        start = MARGIN + EXAMPLES * (2 * CELL + 2 + 2 * GAP) + GAP + k // in_column * width
        y = top + k % in_column * LINE
        draw.rectangle((start, y + 2, start + SWATCH, y + 2 + SWATCH), part_colour(number), PALE)
        text = f"{part}  {counts.get((label, part), 0):,}"
        draw.text((start + SWATCH + 8, y), _shortened(draw, text, width - SWATCH - 8 - GAP), INK, _font(13))
    return row


def _pair(example: Example) -> tuple[Image.Image, Image.Image]:
    """An image, and the same in grey with its parts in colour and a dark line around each; both fit a cell."""
    try:
        with open_image(example.image) as opened:
            image = in_channels(opened, 3)
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read the image {example.image}: {error}. Replace or remove it.") from None
    scale = CELL / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    ids = Image.fromarray(mask_ids(example.mask).astype(np.int32)).resize(size, Image.Resampling.NEAREST)
    image = image.resize(size, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS)
    return image, _overlaid(image, np.asarray(ids))


def _overlaid(image: Image.Image, ids: Integer[np.ndarray, "h w"]) -> Image.Image:
    """An image in grey with parts in colour."""
    grey = np.asarray(image.convert("L").convert("RGB"), dtype=np.float64)
    colours = np.zeros((int(ids.max(initial=0)) + 1, 3))
    for number in np.unique(ids).tolist():
        colours[number] = [*bytes.fromhex(part_colour(number)[1:])]
    mixed = np.where(
        (ids > 0)[..., None], OPAQUE * colours[ids] + (1 - OPAQUE) * grey, 0.75 * grey + 0.25 * 255
    )
    border = np.zeros(ids.shape, dtype=np.bool_)
    border[1:] |= ids[1:] != ids[:-1]
    border[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    mixed[border] *= 0.35
    return Image.fromarray(mixed.round().astype(np.uint8))


def _shortened(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    """The text, without its middle if it is too wide."""
    font = _font(13)
    if draw.textlength(text, font) <= width:
        return text
    for length in range(len(text) - 1, 2, -1):
        half = length // 2
        shorter = f"{text[:half]}...{text[-half:]}"
        if draw.textlength(shorter, font) <= width:
            return shorter
    return text[:3]
