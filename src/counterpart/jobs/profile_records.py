"""What a where-profile leaves: records, a plot, pictures of some images with their regions, and a table."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from rich.table import Table

from .. import distributed
from ..config import readable
from ..data.image_sets import balanced_subset
from ..evaluation.batches import read_batch
from ..evaluation.regions import EVERYTHING, RegionSource, draw_regions
from ..evaluation.where_profile import AreaBetween, RandomRegions, WhereRow
from ..records import Record, fingerprint, hand_over
from ..report.where import AREA, PREFIX, WhereImage, write_curves, write_images
from ..rundir import write_atomically
from ..terminal import open_console
from .case import Case, details_of

SHOWN = 6  # images in the picture of regions
SHOWN_SHARE = 0.25  # the share whose regions are shown, or the nearest that was measured


def keep_profile(
    case: Case,
    key: str,
    rows: Sequence[WhereRow],
    areas: Sequence[AreaBetween],
    seconds: float,
    source: RegionSource,
    shares: Sequence[float],
) -> list[Record]:
    """The records of a profile, which are written with its pictures where the target has a folder."""
    records = _records(case, key, rows, areas, seconds)
    run = case.target.run
    if not distributed.is_main():
        return records
    if not case.target.has_folder:
        hand_over(records, None)
        return records
    folder = run.path / "where" / case.key
    whole_stamp = fingerprint([key, [[record.name, record.value] for record in records]])
    stamp = whole_stamp[:6]  # pictures of other options have other names
    curves, images = folder / f"curves-{stamp}.png", folder / f"regions-{stamp}.png"
    title = _title(case)
    artifacts = []
    if areas:
        write_atomically(curves, lambda path: write_curves(records, path, title))
        artifacts.append(
            run.artifact(curves, "where curves", f"Accuracy of {run.name} against the share that may move.")
        )
    kinds = list(dict.fromkeys(row.kind for row in rows if row.kind != EVERYTHING))
    images_with_regions = _images_with_regions(case, source, kinds, shares)
    write_atomically(images, lambda path: write_images(images_with_regions, path))
    artifacts.append(
        run.artifact(images, "where regions", f"Images of {run.name} and their regions, which are bright.")
    )
    artifacts = [replace(record, details={**record.details, "where": key}) for record in artifacts]
    run.add_once([*records, *artifacts])
    return records


def _title(case: Case) -> str:
    radius = readable(case.eps)
    attacks = ", ".join(dict.fromkeys(attack.line for attack in case.attacks))
    return f"{case.target.run.name}: {attacks}, {case.norm} {radius}, n = {len(case.images):,}"


def _records(
    case: Case, key: str, rows: Sequence[WhereRow], areas: Sequence[AreaBetween], seconds: float
) -> list[Record]:
    target = case.target
    common = {
        **details_of(case),
        "attacks": [attack.line for attack in case.attacks],
        "where": key,
        "title": _title(case),
        **{k: v for k, v in target.who.items() if k != "config"},
    }

    def record(
        name: str, value: float, n: int, interval: tuple[float, float], details: dict[str, Any]
    ) -> Record:
        return Record(
            "metric",
            name,
            value,
            n,
            interval,
            target.config.seed,
            target.who["config"],
            {**common, **details},
            seconds,
        )

    records = []
    for row in rows:
        region = {"region": row.region, "kind": row.kind, "share": row.share, "pixels": row.pixels}
        details = {
            **region,
            "clean": row.clean,
            "everything": row.everything,
            "per_class": dict(row.per_class),
        }
        records.append(record(f"{PREFIX}{row.region}", row.value, row.n, (row.low, row.high), details))
        for control, random in row.random.items():
            details = {**region, "control": control, "draws": random.draws, **_difference(random)}
            name = f"{PREFIX}{row.region} {control}"
            records.append(record(name, random.value, row.n, (random.low, random.high), details))
    for area in areas:
        of_area = {
            "area": area.name,
            "shares": list(area.shares),
            "per_class": dict(area.per_class),
            "signed": True,
        }
        records.append(
            record(f"{AREA}{area.name}", area.difference.mean, area.n, area.difference.interval, of_area)
        )
    return records


def _difference(random: RandomRegions) -> dict[str, Any]:
    return {"difference": random.difference.mean, "difference_interval": list(random.difference.interval)}


def _images_with_regions(
    case: Case, source: RegionSource, kinds: Sequence[str], shares: Sequence[float]
) -> list[WhereImage]:
    """A few images, each with its regions: of shares the one that is nearest to a quarter."""
    images = case.images
    few = balanced_subset(images, min(SHOWN, len(images)), seed=0)
    place = {index: position for position, index in enumerate(images.index.tolist())}
    positions = torch.tensor([place[index] for index in few.index.tolist()])
    pixels = read_batch(images, positions, torch.device("cpu")).images
    share = min(shares, key=lambda known: abs(known - SHOWN_SHARE), default=SHOWN_SHARE)
    masks: list[dict[str, np.ndarray]] = [{} for _ in positions]
    for region in draw_regions(source, kinds, [share], 1):
        if region.kind == EVERYTHING:
            continue
        row_of = {position: row for row, position in enumerate(region.positions.tolist())}
        name = f"{region.name} {region.control}".strip()
        for masks_of_image, position in zip(masks, positions.tolist(), strict=True):
            if position in row_of:
                masks_of_image[name] = region.mask[row_of[position], 0].numpy()
    classes = [images.classes[label] for label in few.labels.tolist()]
    return [
        WhereImage(name, pictured.numpy(), masks_of_image)
        for name, pictured, masks_of_image in zip(classes, pixels.cpu(), masks, strict=True)
    ]


COLUMNS = (
    "attacker moves", "of the image", "accuracy", "another image's", "that, shifted", "minus another's", "n",
)  # fmt: skip


def print_profile(records: Sequence[Record], rows: Sequence[WhereRow], areas: Sequence[AreaBetween]) -> None:
    """Print the table of regions, and below it the areas between curves."""
    table = Table(title=str(records[0].details["title"]), title_justify="left")
    for column in COLUMNS:
        table.add_column(column)
    for row in rows:
        # A value and below it its interval, so that the table fits into a terminal.
        table.add_row(*(cell.replace(" (", "\n(", 1) for cell in cells_of(row)))
    console = open_console()
    console.print(table)
    for area in areas:
        console.print(area_text(area), highlight=False, soft_wrap=True)


def cells_of(row: WhereRow) -> list[str]:
    """A line of the table, under ``COLUMNS``."""
    other, moved = row.random.get("other"), row.random.get("shifted")
    return [
        row.region,
        f"{row.pixels:.1%}",
        interval_text(row.value, row.low, row.high),
        "" if other is None else interval_text(other.value, other.low, other.high),
        "" if moved is None else interval_text(moved.value, moved.low, moved.high),
        "" if other is None else points_text(other.difference.mean, other.difference.interval),
        str(row.n),
    ]


def area_text(area: AreaBetween) -> str:
    """A sentence such as "Area between the curves, bottom - top: +12.3 (+10.1 to +14.5) in points, n = 300."."""
    points = points_text(area.difference.mean, area.difference.interval)
    return f"Area between the curves, {area.name}: {points} in points, n = {area.n:,}."


def interval_text(value: float, low: float, high: float) -> str:
    """Such as "81.0% (76.2% to 85.0%)"."""
    return f"{value:.1%} ({low:.1%} to {high:.1%})"


def points_text(value: float, interval: tuple[float, float]) -> str:
    """A difference in points with its interval, such as "+12.3 (+10.1 to +14.5)"."""
    low, high = interval
    return f"{100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
