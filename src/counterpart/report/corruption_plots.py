"""Accuracy under common corruptions as plots: over severities, and for each corruption."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ..records import CLEAN, Record
from .drawing import Plot, draw_chance, mark, name_lines, name_points, plot, short
from .runs import Corrupted, Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

JudgedRuns = Sequence[tuple[Run, Corrupted]]
MEAN = "mean of"
MOST_CORRUPTIONS = 40  # more of them, which somebody else may have recorded, have the table alone


def corruption_plots(judged: JudgedRuns, chances: Sequence[float | None]) -> list[Plot]:
    """The plots of runs that were judged in one setting.

    Args:
        judged: each run with what it reaches.
        chances: what chance reaches, as far as it is known.
    """
    lines_of = {run.name: evaluated.lines for run, evaluated in judged}
    severities = judged[0][1].severities
    plots = [_by_severity(lines_of, severities, chances), _by_corruption(lines_of, severities, chances)]
    return [drawn for drawn in plots if drawn is not None]


def _by_severity(
    lines_of: Mapping[str, Mapping[str, Sequence[Record | None]]],
    severities: Sequence[int],
    chances: Sequence[float | None],
) -> Plot | None:
    """Accuracy over severities, the mean over corruptions, from the clean one at 0. None for a single severity."""
    if len(severities) < 2:
        return None
    curves: dict[str, list[tuple[int, float]]] = {}
    for name, lines in lines_of.items():
        points = [(0, value) for value in _values(lines.get(CLEAN, ())[:1])]
        for place, severity in enumerate(severities):
            here = _values([records[place] for records in _corruptions(lines).values()])
            points += [(severity, fmean(here))] if here else []
        curves[name] = points
    if any(len(points) < 2 for points in curves.values()):
        return None

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        for i, (name, points) in enumerate(curves.items()):
            levels, values = zip(*points, strict=True)
            axes.plot(levels, [100 * value for value in values], label=short(name), linewidth=1.6, **mark(i))
        axes.set_xticks([0, *severities], ["clean", *map(str, severities)])
        draw_chance(axes, chances)
        axes.set_xlabel("severity")
        axes.set_ylabel("accuracy, %")
        name_lines(figure, axes)

    words = [f"{name}: {', '.join(f'{value:.1%}' for _, value in points)}" for name, points in curves.items()]
    caption = "Accuracy over severities: the mean over the corruptions that were measured."
    return plot(
        "accuracy-over-severities",
        draw,
        caption,
        f"Clean accuracy, then over severities. {'; '.join(words)}.",
    )


def _by_corruption(
    lines_of: Mapping[str, Mapping[str, Sequence[Record | None]]],
    severities: Sequence[int],
    chances: Sequence[float | None],
) -> Plot | None:
    """Accuracy under each corruption: of one run a point for each severity, of several runs a point for each run."""
    names = list(dict.fromkeys(name for lines in lines_of.values() for name in _corruptions(lines)))
    if not 2 <= len(names) <= MOST_CORRUPTIONS:
        return None
    series = _series(lines_of, severities, names)

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        for points, look in series.values():
            heights = [names.index(name) for name in points]
            axes.plot(
                [100 * value for value in points.values()], heights, linestyle="none", markersize=6, **look
            )
        axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
        axes.invert_yaxis()
        for chance in set(chances) - {None}:
            axes.axvline(
                100 * float(chance or 0), color="#a8320a", linestyle=(0, (2, 2)), linewidth=1.2, zorder=1
            )
        axes.set_xlim(0, 100)
        axes.set_xlabel("accuracy, % (dashed: chance)" if set(chances) - {None} else "accuracy, %")
        name_points(figure, axes, 1.3 + 0.24 * len(names))

    what = "a point for each run, the mean over severities"
    if len(lines_of) == 1:
        what = (
            "a point for each severity, the mildest the palest" if len(severities) > 1 else "a point for each"
        )
    said = []
    for name, (points, _) in series.items():
        said.append(f"{name}: {', '.join(f'{line} {value:.1%}' for line, value in points.items())}")
    return plot(
        "accuracy-by-corruption",
        draw,
        f"Accuracy under each corruption: {what}.",
        f"Accuracy by corruption. {'; '.join(said)}.",
    )


Points = Mapping[str, float]


def _series(
    lines_of: Mapping[str, Mapping[str, Sequence[Record | None]]],
    severities: Sequence[int],
    names: Sequence[str],
) -> dict[str, tuple[Points, dict[str, Any]]]:
    """The points of each series, under its name, by corruption, and how they look."""
    series: dict[str, tuple[Points, dict[str, Any]]] = {}
    if len(lines_of) > 1 or len(severities) == 1:
        for i, (run, lines) in enumerate(lines_of.items()):
            last = {name: records[-1] for name, records in _corruptions(lines).items() if records}
            series[run] = _known(last), {"label": short(run), **mark(i)}
        return series
    (lines,) = lines_of.values()
    for place, severity in enumerate(severities):
        here = {name: lines[name][place] for name in names}
        shade = 0.3 + 0.7 * place / (len(severities) - 1)
        words = f"severity {severity}"
        series[words] = _known(here), {**mark(0), "label": words, "alpha": shade}
    return series


def _corruptions(lines: Mapping[str, Sequence[Record | None]]) -> dict[str, Sequence[Record | None]]:
    """The lines of single corruptions that were measured, without the clean one and the means."""
    return {
        name: records
        for name, records in lines.items()
        if records and name != CLEAN and not name.startswith(MEAN)
    }


def _known(records: Mapping[str, Record | None]) -> dict[str, float]:
    """The values of those records that are there."""
    return {
        name: record.value
        for name, record in records.items()
        if record is not None and record.value is not None
    }


def _values(records: Sequence[Record | None]) -> list[float]:
    """The values of those records that are there."""
    return list(_known({str(i): record for i, record in enumerate(records)}).values())
