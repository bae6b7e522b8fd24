"""Run tables and figures of the papers, and show published and measured numbers side by side.

counterpart papers list; counterpart papers run pixel/table-1 --rows AT,TRADES --scale small; counterpart papers show
pixel/table-1. Rows that are finished are not run again.
"""

import argparse
import csv
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..config import settings
from ..errors import UserError
from ..terminal import open_console

SETTINGS: Collection[str] = tuple(
    key
    for key, _ in settings()
    if key.startswith(("data.", "train.", "model."))
    or key in ("wait", "device", "threads", "evaluate.n", "runs", "corruptions.frost", "corruptions.source")
)

FROST = (
    "Frost needs its textures (--corruptions.frost DIR) or the official files (--corruptions.source DIR): without them "
    "it is missing here, and so is a mean of corruptions."
)
MANY = 8  # columns; where there are more, the table is turned
IMAGE_BY_IMAGE = (
    "Differences in points, image by image: would other images tell these models apart? 95 % intervals"
)
SEED_BY_SEED = (
    "Differences in points, Welch's test: would other trainings tell the rows apart? 95 % intervals"
)
# Characters a line in a file or a pipe, where rich would take 80 and break words.
WIDE = 200


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("action", choices=("list", "run", "show"), help="What to do.")
    parser.add_argument("experiment", nargs="?", help="The table or figure, such as pixel/table-1.")
    parser.add_argument(
        "--dataset", help="The data set, a folder of recipes (default: the first that the paper shows)."
    )
    parser.add_argument(
        "--rows",
        default="",
        help="For run: the rows to train and evaluate, with commas between them; a name that holds a comma is quoted "
        "(default: all).",
    )
    parser.add_argument(
        "--columns", default="", help="For run: the columns to measure now, written likewise (default: all)."
    )
    parser.add_argument(
        "--scale",
        default="small",
        choices=("full", "full-ours", "small", "smoke"),
        help="The size of the experiment: full, with all that the paper does; full-ours, with our choice of the epoch "
        "and our arithmetic, as which earlier records of full are read; small, for one machine; or smoke, for a quick "
        "test (default: small).",
    )
    parser.add_argument("--seeds", default="", help="For run: the seeds, such as 0,1,2 (default: 0).")
    parser.add_argument(
        "--best-by",
        metavar="COLUMN",
        help="For show: of the rows of each recipe, show only the one with the highest measured accuracy in this "
        "column.",
    )


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """List, run or show."""

    from .. import papers

    console = open_console(soft_wrap=True)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDE
    if arguments.best_by is not None and arguments.action != "show":
        raise UserError(
            "--best-by chooses among measured rows: counterpart papers show EXPERIMENT --best-by COLUMN."
        )
    for option in ("rows", "columns", "seeds"):
        if getattr(arguments, option) and arguments.action != "run":
            raise UserError(f"--{option} says what to run: counterpart papers run EXPERIMENT --{option} ...")
    if arguments.action == "list":
        for known in papers.EXPERIMENTS.values():
            datasets = ", ".join(known.datasets)
            console.print(f"{known.name:<20} {known.title} ({datasets})", highlight=False)
        return 0
    if arguments.experiment is None:
        raise UserError(f"counterpart papers {arguments.action} needs an experiment, such as pixel/table-1.")
    experiment = papers.find(arguments.experiment)
    dataset = arguments.dataset or experiment.datasets[0]
    home = Path(settings.get("runs", "runs")).expanduser() / "papers"
    if arguments.action == "run":
        changes = {k: v for k, v in settings.items() if k != "runs"}
        try:
            seeds = [int(seed) for seed in (arguments.seeds or "0").split(",")]
        except ValueError:
            raise UserError(f"--seeds {arguments.seeds}: expected numbers such as 0,1,2.") from None
        rows, only = _names(arguments.rows), _names(arguments.columns)
        papers.run(
            experiment, dataset, arguments.scale, home, rows=rows, only=only, seeds=seeds, changes=changes
        )
    if arguments.best_by is not None:
        measured = papers.measured(experiment, dataset, arguments.scale, home)
        experiment = papers.best_rows(experiment, measured, arguments.best_by)
    _print(experiment, dataset, arguments.scale, home, console)
    return 0


def _names(text: str) -> list[str]:
    """Split names with commas between them: AT,PART; or "peak memory, MB",natural."""
    names = next(csv.reader([text], skipinitialspace=True), [])
    return [name.strip() for name in names if name.strip()]


def _print(experiment: Any, dataset: str, scale: str, home: Path, console: Any) -> None:
    """A table of what was published and measured, and below it what is to be said of it."""
    from .. import papers

    def say(text: str) -> None:
        console.print(f"- {text}", highlight=False)

    measured = papers.measured(experiment, dataset, scale, home)
    stated_on = papers.stated_on(experiment, dataset)
    where = f"{experiment.name}, {dataset}, scale {scale}"
    absent = papers.absent(experiment, dataset, scale, home)
    console.print(_table(experiment, measured, absent, dataset, stated_on, where))
    if stated_on not in (None, dataset):
        say(f"Paper: on {stated_on}, which says little of {dataset}.")
    for line in (*_over_what(measured), *_of_weights(experiment)):
        say(line)
    of_images = {key: (d, f"n = {n}, {_counted(seeds)}") for key, (d, seeds, n)
                 in papers.differences(experiment, measured).items()}  # fmt: skip
    of_seeds = {key: (d, f"{first} and {second} seeds") for key, (d, first, second)
                in papers.seed_differences(experiment, measured).items()}  # fmt: skip
    _print_tests(IMAGE_BY_IMAGE, experiment, stated_on, of_images, console)
    _print_tests(SEED_BY_SEED, experiment, stated_on, of_seeds, console)
    for (row, other, column), (published, extra) in papers.overheads(experiment, dataset, measured).items():
        paper = "not in the paper" if published is None else f"paper {published:+.1%}"
        say(f"{row} over {other}, {column}: {extra:+.1%} ({paper})")
    for note in (*experiment.notes, *([FROST] if experiment.corruptions else [])):
        say(note)
    drawn = papers.figure(experiment, dataset, scale, home)
    if drawn is not None:
        say(f"Picture: {drawn[0]}\n  {drawn[1]}")
    if measured:
        model = next(iter(measured.values()))[0].details["model"]
        counts = _counts(measured, papers.columns(experiment))
        say(f"Measured: {model}, {counts}, scale {scale}: {papers.differs(experiment, scale)}.")


def _table(
    experiment: Any,
    measured: Mapping[Any, Any],
    absent: Mapping[Any, str],
    dataset: str,
    stated_on: str | None,
    where: str,
) -> Any:
    """Published, where there is something, beside measured, in per cent or the column's unit; a dash: not run.

    What other weights of the same trainings reach stands below in the same cell, once it is measured.
    """
    from rich.table import Table

    from .. import papers

    known = list(papers.columns(experiment, dataset))
    across = [column for column in known if column == papers.plain(column)]
    down = [row.name for row in experiment.rows]
    cells = {}
    for row in experiment.rows:
        for column in across:
            published = [_published(row, stated_on, column)] if stated_on else []
            cells[row.name, column] = "\n".join([*published, _cell(measured.get((row.name, column)))])
        for column in known:
            key, main = (row.name, column), (row.name, papers.plain(column))
            if column not in across and (key in measured or key in absent):
                name = column.removeprefix(f"{main[1]} ")
                cells[main] += f"\n{absent[key] if key in absent else f'{name} {_cell(measured[key])}'}"
    if len(across) > max(MANY, len(down)):  # a corruption a line, as the paper has it
        across, down = down, across
        cells = {(column, row): text for (row, column), text in cells.items()}
    table = Table(title=f"{where}: {experiment.title}", title_justify="left")
    table.add_column("", overflow="fold")  # narrow terminals break words and lose nothing
    for column in across:
        table.add_column(_titled(column, stated_on), justify="right", overflow="fold")
    for name in down:
        table.add_row(papers.shown_name(name), *(cells[name, column] for column in across))
    return table


def _titled(column: str, stated_on: str | None) -> str:
    """The title of a column: the paper's name beside its numbers, and ours beside ours."""
    from .. import papers

    ours = papers.shown_name(column)
    if stated_on is None:
        return ours
    return f"{column}\npaper\nhere" if ours == column else f"{column}\npaper\n{ours}\nhere"


def _published(row: Any, dataset: str, column: str) -> str:
    """What the paper prints for a cell, with its +- where there is one; a dash: nothing."""
    value = row.published.get(dataset, {}).get(column)
    spread = row.plus_minus.get(dataset, {}).get(column)
    mean = "—" if value is None else f"{value:.2f}"
    return mean if spread is None else f"{mean} ± {spread:.2f}"


def _counts(measured: Mapping[Any, Any], columns: Collection[str]) -> str:
    """How many images stand behind the columns: "n = 500"; by column where that differs."""
    from .. import papers

    counts: dict[int, list[str]] = {}
    for column in columns:
        records = [record for (_, name), of_cell in measured.items() if name == column for record in of_cell]
        for n in {record.n for record in records}:
            counts.setdefault(n or 0, []).append(papers.shown_name(column))
    if len(counts) == 1:
        return f"n = {next(iter(counts))}"
    return "; ".join(f"n = {n} ({', '.join(names)})" for n, names in counts.items())


def _over_what(measured: Mapping[Any, Any]) -> list[str]:
    """What the intervals of a table are over, as its cells have one training, two, or more."""
    from ..statistics import BOTH, FEWEST_TRAININGS, IMAGES

    counts = {len(records) for records in measured.values() if any(r.interval for r in records)}
    lines = []
    if counts & set(range(1, FEWEST_TRAININGS)):
        two = "; of two trainings both values are shown" if 2 in counts else ""
        lines.append(f"Intervals of one or two trainings are over {IMAGES}{two}.")
    if any(count >= FEWEST_TRAININGS for count in counts):
        lines.append(f"Intervals of {FEWEST_TRAININGS} trainings or more are over {BOTH}.")
    return lines


def _of_weights(experiment: Any) -> list[str]:
    """Which weights of its trainings an experiment judges, where it judges several."""
    from .. import papers

    if not experiment.weights:
        return []
    first = experiment.weights[0]
    meanings = "; ".join(f"{name}: {papers.WEIGHTS[name]}" for name in experiment.weights)
    return [f"Weights, all of the same trainings; what has no word is of the {first} ones. {meanings}."]


def _print_tests(
    title: str,
    experiment: Any,
    stated_on: str | None,
    differences: Mapping[tuple[str, str, str], tuple[Any, str]],
    console: Any,
) -> None:
    """Print one row minus another, each with its verdict, and below them the family of tests."""
    from .. import papers

    judged = papers.judge(
        experiment, stated_on, {key: difference for key, (difference, _) in differences.items()}
    )
    cells = {
        key: f"{_points(difference, judged[key])}\n{count}"
        for key, (difference, count) in differences.items()
    }
    _print_pairs(title, cells, console)
    family = sum(not verdict.alone for verdict in judged.values())
    lines = []
    if family:
        others = " but the primary one" * (family < len(judged))
        lines.append(
            f"p by Holm over the {family} differences of this table{others}: * survives it. Then two one-sided tests "
            "of no difference at 5 %: within half of the paper's gain, where it has one, p by Holm as well; and the "
            "smallest margin within which they find none, by itself."
        )
    if family < len(judged):
        primary = experiment.primary
        lines.append(
            f"Primary, declared before the runs and tested alone: {primary.first} minus {primary.second}, "
            f"{primary.column}, margin {100 * primary.margin:g} points."
        )
    over = sorted({difference.over for difference, _ in differences.values()})
    if over:
        lines.append(f"Intervals of the differences are over {' or '.join(over)}.")
    for line in lines:
        console.print(f"- {line}", highlight=False)


def _counted(seeds: int) -> str:
    """A number of seeds in words."""
    return f"{seeds} seed{'s' * (seeds > 1)}"


def _points(difference: Any, judged: Any) -> str:
    """A difference in points with its interval, its p-value, and how near to none it is shown to be."""
    low, high = (100 * end for end in difference.interval)
    name = "primary, p" if judged.alone else "p"
    lines = [
        f"{100 * difference.mean:+.2f}{'*' * judged.differs}",
        *([" and ".join(f"{100 * point:+.2f}" for point in difference.points)] if difference.points else []),
        f"({low:+.2f} to {high:+.2f})",
        f"{name} = {judged.p:.2g}",
    ]
    if judged.margin is not None:
        lines.append(f"±{100 * judged.margin:.2g}: {_beside_margin(difference, judged)}")
    return "\n".join([*lines, f"±{100 * difference.decided_margin:.2f} by itself"])


def _beside_margin(difference: Any, judged: Any) -> str:
    """What is shown of a difference beside its margin. That it is larger is said of the primary contrast alone.

    The intervals of the others are not corrected for how many there are.
    """
    low, high = difference.interval
    if judged.alone and (low > judged.margin or high < -judged.margin):
        return "larger"
    verdict = "same" if judged.equivalent else "not decided"
    return f"{verdict} (p = {judged.p_equivalent:.2g})"


def _print_pairs(title: str, cells: Mapping[tuple[str, str, str], str], console: Any) -> None:
    """Print a line for each pair of rows, or for each of many columns; nothing where there are no pairs."""
    from rich.table import Table

    from .. import papers

    if not cells:
        return
    placed = {
        (f"{first}\nminus {second}", papers.shown_name(column)): text
        for (first, second, column), text in cells.items()
    }
    pairs, columns = ({key[i] for key in placed} for i in (0, 1))
    if len(columns) > max(MANY, len(pairs)):
        placed = {(column, pair): text for (pair, column), text in placed.items()}
    down, across = (list(dict.fromkeys(key[i] for key in placed)) for i in (0, 1))
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in across:
        table.add_column(name, justify="right")
    for line in down:
        table.add_row(line, *(placed.get((line, name), "—") for name in across))
    console.print(table)


def _cell(records: Any) -> str:
    """The value, below it its 95 % interval, and the number of seeds if there are several. A dash: not measured.

    Of trainings too few for an interval over them, each value.
    """
    if not records:
        return "—"
    from ..statistics import FEWEST_TRAININGS, over_seeds

    values = [record.value for record in records]
    if "unit" in records[0].details:
        return f"{sum(values) / len(values):.2f}"
    signed = records[0].details.get("signed", False)
    centre, _, interval, _ = over_seeds(values, [r.interval for r in records if r.interval], signed)
    interval = records[0].interval if len(records) == 1 else interval
    points = ""
    if 1 < len(values) < FEWEST_TRAININGS:
        points = f"\n{' and '.join(f'{100 * value:.2f}' for value in values)}"
    ends = "" if interval is None else f"\n({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
    seeds = "" if len(records) == 1 else f", {len(records)} seeds"
    return f"{100 * centre:.2f}{points}{ends}{seeds}"
