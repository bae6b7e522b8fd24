"""The function ``where``, and its result: where a model is robust."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import merge
from ..dotted_names import nest
from ..errors import UserError
from ..evaluation.where_profile import AreaBetween, WhereRow
from ..jobs.profile_records import COLUMNS, area_text, cells_of
from ..jobs.profiling import DRAWS, SHARES, Profiled, WhereOptions, profile
from ..jobs.tracking import tracked
from ..records import Listener, Record
from ..report.where import write_curves
from .evaluation import Model, target_of
from .state import left_as_found


class WhereProfile:
    """The result of ``counterpart.where``. Printed, and in a notebook, it is a table.

    Attributes:
        rows: a line for each region: the accuracy if the attacker may move it alone, that of random regions of the
            same area, their difference image by image, and the counts of each class.
        areas: the name of each area between curves, such as "bottom - top" -> the area.
    """

    def __init__(self, profiled: Profiled) -> None:
        self._profiled = profiled
        self.rows: Sequence[WhereRow] = profiled.rows
        self.areas: Mapping[str, AreaBetween] = {area.name: area for area in profiled.areas}

    @property
    def records(self) -> Sequence[Record]:
        """The numbers as records, which reports are made of."""
        return self._profiled.records

    @property
    def folder(self) -> Path | None:
        """The folder that keeps the profile; None where nothing was written."""
        target = self._profiled.case.target
        return target.run.path if target.has_folder else None

    def __getitem__(self, region: str) -> WhereRow:
        for row in self.rows:
            if row.region == region:
                return row
        raise KeyError(f"{region!r} was not measured. Known: {', '.join(row.region for row in self.rows)}.")

    def stands(self, region: str) -> list[bool]:
        """Whether each image that has a region stands if the attacker may move this region alone."""
        for outcome in self._profiled.outcomes:
            if outcome.name == region and not outcome.control:
                return list(outcome.stands)
        raise KeyError(f"{region!r} was not measured. Known: {', '.join(row.region for row in self.rows)}.")

    def plot(self, path: str | Path) -> Path:
        """Draw accuracy against the share of the pixels that may move, into a PNG file.

        Raises:
            UserError: no region of a map was judged.
        """
        file = Path(path).expanduser()
        try:
            write_curves(self.records, file, self.title)
        except ValueError as error:
            raise UserError(str(error)) from error
        return file

    @property
    def title(self) -> str:
        """What was judged, under which attacks and budget."""
        return str(self.records[0].details["title"])

    def to_markdown(self) -> str:
        """The table in Markdown, and below it the areas between curves."""
        lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
        lines += [f"| {' | '.join(cells)} |" for cells in self._cells()]
        areas = [area_text(area) for area in self.areas.values()]
        return "\n".join([*lines, *([""] if areas else []), *areas])

    def _cells(self) -> list[list[str]]:
        return [cells_of(row) for row in self.rows]

    def __repr__(self) -> str:
        cells = [list(COLUMNS), *self._cells()]
        widths = [max(len(row[column]) for row in cells) for column in range(len(COLUMNS))]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in cells
        ]
        return "\n".join(
            [self.title, *(line.rstrip() for line in lines), *map(area_text, self.areas.values())]
        )


def where(
    model: Model,
    data: Any = None,
    *,
    attacks: str | Sequence[str | Mapping[str, Any]] = "pgd",
    eps: float | str | None = None,
    norm: str | None = None,
    n: int | None = None,
    regions: Sequence[str] | str | None = None,
    shares: Sequence[float] = SHARES,
    draws: int = DRAWS,
    map: str | None = None,
    layer: str | None = None,
    map_class: str | None = None,
    masks: Any = None,
    folder: str | Path | None = None,
    root: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    changes: Mapping[str, Any] | None = None,
    on_record: Listener | None = None,
) -> WhereProfile:
    """Where a model is robust: its accuracy if the attacker may move one region of each image alone.

    Each region stands beside random regions of exactly the same area: another image's, and that shifted.

    Args:
        model: any ``torch.nn.Module`` from images in [0, 1] to logits, or a name that ``evaluate`` understands.
        data: the images and labels, in any form that ``evaluate`` takes.
        attacks: the names of the attacks with commas between them, or a list with options.
        eps: the one radius inside a region, such as "8/255"; outside it is 0.
        norm: the norm that the radius is measured in: "linf", "l2" or "l1".
        n: the number of images, the same share of each class. The default is all images.
        regions: some of "top", "bottom", "object", "background", "parts" and "window". The default is top and bottom,
            and where the data have part masks object, background and parts.
        shares: the shares of the pixels of top, bottom and window, above 0 and up to 1.
        draws: the number of random regions of either kind for each region; 0 for none.
        map: the map of the model that top and bottom are of, such as "grad-cam" or "attention-rollout".
        layer: the module at whose output a class activation map is drawn.
        map_class: what the map explains: "true", "predicted" or "margin".
        masks: maps of your own in place of the model's: an array (N, H, W), one for each image, or a folder of grey PNG
            files.
        folder: the folder that keeps everything, so that a profile that was stopped goes on.
        root: the folder that holds the data set, where ``data`` is a name.
        mean: the value of each channel to subtract from the images, for a model that wants normalised ones.
        std: the value of each channel to divide by after that, for a model that wants normalised images.
        changes: other settings by their dotted names, such as {"evaluate.batch_size": 64}.
        on_record: a function that is given every record as it is written, and the folder of its run (None where nothing
            is written). What it raises is said once, and ends nothing.

    Returns:
        A line for each region, the areas between the curves, and the plot of them.

    Raises:
        UserError: an argument is not understood; the message is one line and says what was expected.
    """
    asked = {"evaluate.attacks": attacks, "evaluate.eps": eps, "evaluate.norm": norm, "evaluate.n": n}
    settings = merge(nest({key: value for key, value in asked.items() if value is not None}), nest(changes))
    kinds = regions.split(",") if isinstance(regions, str) else regions
    options = WhereOptions(kinds, shares, draws, map, layer, map_class, _masks(masks))
    with left_as_found(model), tracked(on_record):
        of_objects = {"folder": folder, "mean": mean, "std": std}
        return WhereProfile(profile(target_of(model, data, settings, root, of_objects), options))


def _masks(masks: Any) -> Path | Tensor | None:
    """A folder, or maps as a tensor."""
    if masks is None or isinstance(masks, Tensor):
        return masks
    if isinstance(masks, str | Path):
        return Path(masks)
    try:
        return torch.as_tensor(masks)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"masks are an array (N, H, W) or a folder; got {type(masks).__name__}.") from error
