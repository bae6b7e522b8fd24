"""The table that sums up the runs of several seeds."""

from collections.abc import Sequence

from rich.table import Table

from ..claims import claim_over_seeds
from ..records import Record
from ..rundir import RunDir
from ..statistics import BOTH, FEWEST_TRAININGS, IMAGES, over_seeds
from ..terminal import open_console


def aggregate(group: RunDir, tables: Sequence[Sequence[Record]], seeds: Sequence[int]) -> None:
    """Print each metric over the seeds, and keep it once as a record of the group.

    Args:
        group: the folder above the runs of the seeds.
        tables: the records of each seed.
        seeds: the seeds, in the same order.
    """
    several = len(seeds) >= FEWEST_TRAININGS
    over = BOTH if several else IMAGES
    title = f"{group.name}: {len(seeds)} seeds; intervals are over {over}"
    records, table = [], Table(title=title, title_justify="left")
    spread_title = "sd" if several else "seeds"  # a deviation of two is their distance in other words
    for column in ("", "mean", spread_title, "95 % interval"):
        table.add_column(column)
    by_name = [{record.name: record for record in metrics} for metrics in tables]
    for name in by_name[0]:
        same = [metrics[name] for metrics in by_name]
        values = [float(record.value or 0) for record in same]
        intervals = [record.interval for record in same if record.interval is not None]
        centre, spread, interval, _ = over_seeds(values, intervals)
        agreed = {k: v for k, v in same[0].details.items() if all(r.details.get(k) == v for r in same)}
        details = {**agreed, "seeds": list(seeds), "values": values, "sd": spread}
        records.append(
            Record("metric", f"mean over seeds/{name}", centre, len(values), interval, details=details)
        )
        interval_in_words = "" if interval is None else f"{interval[0]:.2%} to {interval[1]:.2%}"
        points = f"{spread:.2%}" if several else " and ".join(f"{value:.2%}" for value in values)
        called = f"{name} (estimate)" if any("estimate" in record.details for record in same) else name
        table.add_row(called, f"{centre:.2%}", points, interval_in_words)
    group.add_once(records)
    open_console().print(table)


def print_claim(claims: Sequence[Record]) -> None:
    """Print what several seeds say together of the claim that they were asked about; nothing where there is none."""
    if claims:
        open_console().print(claim_over_seeds(claims), highlight=False, soft_wrap=True)
