"""The accuracies of an evaluation as a table in the terminal, with a column for each radius."""

from collections.abc import Sequence

from rich.table import Table

from ..claims import PREFIX as CLAIM
from ..claims import claim_in_words
from ..config import readable
from ..evaluation.ledger import CLEAN
from ..evaluation.summaries import UNION
from ..records import Record
from ..report.runs import without_untried
from ..report.setting import OF_THESE_IMAGES, interval_title, random_in_words, sample_in_words
from ..rundir import RunDir
from ..terminal import open_console
from .claims import claims_of

DISTANCE = "median distance/"  # the names of the records of distances begin with this


def shares_of(records: Sequence[Record]) -> list[Record]:
    """Those records that are shares of images, and no distances or claims."""
    return [record for record in records if not record.name.startswith((DISTANCE, CLAIM))]


def accuracy_by_radius(radii: Sequence[float], records: Sequence[Record]) -> dict[float, dict[str, Record]]:
    """The records of accuracies, by radius and then by the line of the table."""
    curve: dict[float, dict[str, Record]] = {radius: {} for radius in radii}
    for record in records:
        of, _, name = record.name.partition("/")
        if of == "accuracy" and name != CLEAN:
            radius = record.details["eps"]
            curve[radius][name.removesuffix(f" at {readable(radius)}")] = record
    return curve


def print_accuracies(run: RunDir, records: Sequence[Record]) -> None:
    """Print the accuracies with their intervals, then the median distances that attacks measured, then a claim."""
    claims = claims_of(records)
    records = without_untried([record for record in records if record not in claims])
    d, n = records[0].details, records[0].n
    masked = f" and {d['eps_low']:.4g} by its mask" if "eps_low" in d else ""
    radii = d["eps"] if isinstance(d["eps"], list) else [d["eps"]]
    budgets = zip(d["norm"].split(","), radii, strict=True)
    budget = d["norm"] if "radii" in d else " or ".join(f"{norm} {eps:.4g}" for norm, eps in budgets) + masked
    what = (
        f"{d['method']}, {d['data']} {d['split']}, {budget}{random_in_words(d)}{sample_in_words(d)}, n = {n}"
    )
    what += f", protocol {d['protocol']}" if "protocol" in d else ""
    title = f"{run.name}: {what}"
    table = _table_of_radii(title, d["radii"], records) if "radii" in d else _table_of_lines(title, records)
    open_console().print(table)
    for record in records:
        if record.name.startswith(DISTANCE):
            open_console().print(_distance_in_words(record), highlight=False, soft_wrap=True)
    for claim in claims:
        open_console().print(claim_in_words(claim), highlight=False, soft_wrap=True)


def _table_of_lines(title: str, records: Sequence[Record]) -> Table:
    """A table with a row for each line of attacks; those on a sample are called estimates, and have two intervals."""
    estimated = any("estimate" in record.details for record in records)
    table = Table(title=title, title_justify="left")
    intervals = [interval_title(records[0].details), *([OF_THESE_IMAGES] if estimated else ())]
    table.add_column(
        "", min_width=len("worst case (estimate)")
    )  # a narrow terminal breaks longer names, no number
    table.add_column("accuracy", no_wrap=True)
    for title_of_interval in intervals:
        table.add_column(title_of_interval, min_width=len("100.00% to 100.00%"))
    for record in records:
        if record.interval is None:
            continue
        name = record.name.removeprefix("accuracy/").removeprefix(UNION)
        cells = [name, f"{record.value:.2%}", _ends(record.interval)]
        if "estimate" in record.details:
            cells[0] = f"{name} (estimate)"
            cells.append(_ends(record.details["estimate"]["of_these_images"]))
        table.add_row(*cells)
    return table


def _ends(interval: Sequence[float]) -> str:
    low, high = interval
    return f"{low:.2%} to {high:.2%}"


def _table_of_radii(title: str, radii: Sequence[float], records: Sequence[Record]) -> Table:
    """A table with a row for each attack and a column for each radius."""
    table, curve = Table(title=title, title_justify="left"), accuracy_by_radius(radii, records)
    for column in ("", *(f"at {readable(radius)}" for radius in radii)):
        table.add_column(column)
    cells = {CLEAN: [records[0]] * len(radii)}
    for line in curve[radii[-1]]:
        cells[line] = [curve[radius][line] for radius in radii]
    for line, records_of_line in cells.items():
        table.add_row(line, *(_in_words(record) for record in records_of_line))
    for record in records:  # the metrics of parts, which were measured at the largest radius
        if record.interval is not None and not record.name.startswith("accuracy/"):
            table.add_row(record.name, *[""] * (len(radii) - 1), _in_words(record))
    return table


def _in_words(record: Record) -> str:
    return f"{record.value:.2%}\n{_ends(record.interval or (0.0, 1.0))}"


def _distance_in_words(record: Record) -> str:
    """A sentence such as "DeepFool-50: median distance 0.0123 (3.14/255) of the 950 images that it met"."""
    name, of = record.name.removeprefix(DISTANCE), f"the {record.n:,} images that it met"
    if record.value is None:
        return f"{name}: no median distance, it found none for half of {of}."
    levels = f" ({255 * record.value:.3g}/255)" if record.details["norm"] == "linf" else ""
    return f"{name}: median distance {record.value:.4g}{levels} of {of}."
