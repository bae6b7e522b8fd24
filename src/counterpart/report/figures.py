"""The plots of trade-off, radii and training."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ..records import CLEAN, WORST, Record
from .drawing import (
    Plot,
    bars,
    begin_at_zero,
    draw_chance,
    draw_point,
    mark,
    name_lines,
    name_points,
    plot,
    short,
)
from .setting import NORMS, radius_text
from .tables import TableRow, listed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MANY_NAMES = 4


def tradeoff(rows: Sequence[TableRow]) -> Plot | None:
    """Plot clean against worst-case accuracy, a point with its interval for each row. None for less than two points."""
    points = [(i, row, row.accuracy(CLEAN), row.accuracy(WORST)) for i, row in enumerate(rows) if row.shown]
    both = [(i, row, clean, worst) for i, row, clean, worst in points if clean and worst]
    if len(both) < 2:
        return None

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        for i, row, clean, worst in both:
            width, height = bars(clean.value, clean.low, clean.high), bars(worst.value, worst.low, worst.high)
            draw_point(axes, i, row.label, 100 * clean.value, 100 * worst.value, xerr=width, yerr=height)
        axes.margins(0.12)
        begin_at_zero(axes)
        draw_chance(axes, [row.chance for _, row, _, _ in both], "left")
        axes.set_xlabel("clean accuracy, %")
        axes.set_ylabel("worst-case accuracy, %")
        name_points(figure, axes)

    words = [f"{row.label}: clean {c.value:.1%}, worst case {w.value:.1%}" for _, row, c, w in both]
    caption = (
        "Clean against worst-case robust accuracy. Up and to the right is better; bars are 95 % intervals, "
        "over images, and from three seeds on over trainings too."
    )
    estimated = [f"“{row.label}”" for _, row, _, worst in both if worst.estimated]
    if estimated:
        caption += f" Estimates of the worst case: {', '.join(estimated)}."
    return plot("trade-off", draw, caption, f"Trade-off plot. {'; '.join(words)}.")


def radius_curves(rows: Sequence[TableRow]) -> list[tuple[list[TableRow], Plot]]:
    """TableAccuracy against radius with its interval as a band: the rows that were judged in a norm, and their plot.

    Of a single row every line; of several, the worst case of each.
    """
    norms: dict[str | None, list[TableRow]] = {}
    for row in rows:
        if row.of_radii:
            norms.setdefault(row.setting_of_radii.norm, []).append(row)
    return [(judged, _radius_curve(norm, judged)) for norm, judged in norms.items()]


def _radius_curve(norm: str | None, rows: Sequence[TableRow]) -> Plot:
    if len(rows) == 1:
        curves = {line: rows[0].curve(line) for line in rows[0].lines_of_radii}
    else:
        curves = {row.label: row.curve(WORST) for row in rows}
    unit, scale = (", levels of 255", 255) if norm == "linf" else ("", 1)

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        for i, (name, curve) in enumerate(curves.items()):
            radii = [scale * radius for radius in curve]
            values = [100 * point.value for point in curve.values()]
            style = mark(i)
            axes.plot(radii, values, label=short(name), linewidth=1.6, markersize=6, clip_on=False, **style)
            known = [
                (x, p.low, p.high) for x, p in zip(radii, curve.values(), strict=True) if p.low is not None
            ]
            if known:
                xs, lows, highs = zip(*known, strict=True)
                low, high = ([100 * (end or 0) for end in ends] for ends in (lows, highs))
                axes.fill_between(xs, low, high, color=style["color"], alpha=0.15, linewidth=0)
        axes.set_xlim(left=0)
        draw_chance(axes, [row.chance for row in rows])
        axes.set_xlabel(f"radius ({NORMS.get(str(norm), norm)}{unit})")
        axes.set_ylabel("accuracy, %")
        name_lines(figure, axes)

    what = "Accuracy" if len(rows) == 1 else "Worst-case accuracy"
    caption = (
        f"{what} against the radius of the budget, clean accuracy at 0; bands are 95 % intervals, over "
        "images, and from three seeds on over trainings too."
    )
    words = [
        f"{name}: {listed([f'{p.value:.1%} at {radius_text(r, norm)}' for r, p in curve.items()])}"
        for name, curve in curves.items()
    ]
    return plot("accuracy-against-radius", draw, caption, f"{what} against radius. {'; '.join(words)}.")


def losses(rows: Sequence[TableRow]) -> Plot | None:
    """Plot the training loss over epochs, a line for each run. None if nothing was logged."""
    caption = (
        "Training loss of each run, on what it trained on: values of different methods are not comparable."
    )
    return _curves(rows, {"loss": "-"}, "training loss", 1, caption)


def validation(rows: Sequence[TableRow]) -> Plot | None:
    """Plot the validation accuracy over epochs, robust as solid lines and clean as dashed ones."""
    caption = "Validation accuracy: robust (solid) and clean (dashed)."
    styles = {"validation_robust": "-", "validation_clean": "--"}
    return _curves(rows, styles, "validation accuracy, %", 100, caption)


def burn_in(row: TableRow) -> int:
    """The number of epochs in which the row's runs had the full budget, before masks began."""
    return max((sum(e.details.get("phase") == "burn-in" for e in run.epochs) for run in row.runs), default=0)


def _curves(
    rows: Sequence[TableRow], styles: dict[str, str], label: str, scale: float, caption: str
) -> Plot | None:
    logged = [
        (i, row)
        for i, row in enumerate(rows)
        if any(len(_series(r.epochs, k)[0]) > 1 for r in row.runs for k in styles)
    ]
    if not logged:
        return None
    burnt = {row.label: length for _, row in logged if (length := burn_in(row))}

    def draw(figure: "Figure") -> None:
        from matplotlib.ticker import MaxNLocator

        axes = figure.subplots()
        for i, row in logged:
            for k, run in enumerate(row.runs):
                for name, style in styles.items():
                    epochs, values = _series(run.epochs, name)
                    first = k == 0 and name == next(iter(styles))
                    axes.plot(
                        epochs,
                        [scale * value for value in values],
                        linestyle=style,
                        linewidth=1.6,
                        markersize=5,
                        markevery=max(1, len(epochs) // 8),
                        label=short(row.label) if first else None,
                        **mark(i),
                    )
        for length in sorted(set(burnt.values())):
            axes.axvspan(0.5, length + 0.5, color="#8c959f", alpha=0.13, linewidth=0, zorder=0)
            axes.axvline(length + 0.5, color="#57606a", linestyle=":", linewidth=1.2)
        if burnt:
            axes.annotate(
                "burn-in",
                (0.6, 1),
                xycoords=("data", "axes fraction"),
                va="bottom",
                fontsize=9,
                color="#424a53",
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(left=0.5)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        if scale == 100:
            draw_chance(axes, [row.chance for _, row in logged])
        name_lines(figure, axes)

    if burnt:
        caption += f" Shaded: burn-in ({'; '.join(_lengths(burnt))})."
    ends = [f"{row.label}: {listed(_ends(row, styles))}" for _, row in logged]
    return plot(
        label.partition(",")[0].replace(" ", "-"),
        draw,
        caption,
        f"{label} over epochs. Last epoch of {'; of '.join(ends)}.",
    )


def _series(epochs: Sequence[Record], name: str) -> tuple[list[int], list[float]]:
    known = [
        (int(e.details["epoch"]) + 1, e.details[name]) for e in epochs if e.details.get(name) is not None
    ]
    return [epoch for epoch, _ in known], [value for _, value in known]


def _lengths(burnt: Mapping[str, int]) -> list[str]:
    who = {
        length: [f"“{name}”" for name in burnt if burnt[name] == length]
        for length in sorted(set(burnt.values()))
    }
    if len(who) == 1 and len(burnt) > MANY_NAMES:
        who = {length: [f"{len(names)} rows"] for length, names in who.items()}
    return [f"{length} epoch{'s' if length > 1 else ''} of {listed(names)}" for length, names in who.items()]


def _ends(row: TableRow, names: Iterable[str]) -> list[str]:
    series = {name: _series(row.runs[0].epochs, name)[1] for name in names}
    return [f"{name.replace('_', ' ')} {values[-1]:.3g}" for name, values in series.items() if values]
