"""What robustness cost: the worst case against the seconds of training."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..records import WORST
from .drawing import Plot, bars, begin_at_zero, draw_chance, draw_point, name_points, plot
from .tables import TableRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FAR_APART = 20  # costs that differ by so many times need a logarithmic axis


def training_cost(rows: Sequence[TableRow]) -> Plot | None:
    """Plot worst-case accuracy against seconds of training, a point for each row. None for less than two points."""
    points = []
    for i, row in enumerate(rows):
        worst = row.accuracy(WORST) if row.shown else None
        if worst is not None and row.training_seconds:
            points.append((i, row, row.training_seconds, worst))
    if len(points) < 2:
        return None
    costs = [seconds for _, _, seconds, _ in points]

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        for i, row, seconds, worst in points:
            height = bars(worst.value, worst.low, worst.high)
            draw_point(axes, i, row.label, seconds, 100 * worst.value, yerr=height)
        axes.margins(0.12)
        if max(costs) > FAR_APART * min(costs):
            axes.set_xscale("log")
        else:
            begin_at_zero(axes)
        draw_chance(axes, [row.chance for _, row, _, _ in points])
        axes.set_xlabel("training, seconds")
        axes.set_ylabel("worst-case accuracy, %")
        name_points(figure, axes)

    words = [f"{row.label}: {seconds:,.0f} s, {worst.value:.1%}" for _, row, seconds, worst in points]
    caption = (
        "Worst-case accuracy against the seconds of work that training took, the mean over seeds. Up and to the left "
        "is better. Seconds compare on the same hardware alone (see Provenance)."
    )
    return plot("cost", draw, caption, f"Cost of training. {'; '.join(words)}.")
