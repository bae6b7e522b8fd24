"""The figure of how well parts are found after each epoch: the mean of each run, and each part of the last run."""

import io
from pathlib import Path
from statistics import fmean

from ..report.drawing import STYLE, mark
from ..rundir import write_atomically
from .experiments import Drawing


def draw_parts_over_training(drawing: Drawing, file: Path) -> str:
    """Plot the intersection over union on the validation images over the epochs.

    On the left the mean over the parts, with a line for each row; on the right each part of the last row, the best
    found first.

    Args:
        drawing: an experiment whose rows are part models that learn parts.
        file: the PNG.

    Returns:
        The caption.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    over_epochs = {
        name: [record.details["validation_parts"] for record in run.records() if record.kind == "epoch"]
        for name, run in drawing.runs.items()
    }
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 4.5), layout="constrained")
        FigureCanvasAgg(figure)
        means, parts = figure.subplots(1, 2, width_ratios=(1, 1.2))
        for number, (name, epochs) in enumerate(over_epochs.items()):
            shares = [100 * fmean(ious.values()) for ious in epochs]
            means.plot(range(1, len(epochs) + 1), shares, label=name, markersize=4, **mark(number))
        means.set(xlabel="epoch", ylabel="mIoU on validation images, %", ylim=(0, None))
        means.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3)
        last_row, epochs = list(over_epochs.items())[-1]
        names = sorted(epochs[-1], key=lambda part: -epochs[-1][part])
        grid = [[100 * ious.get(part, 0.0) for ious in epochs] for part in names]
        image = parts.imshow(
            grid, aspect="auto", cmap="viridis", vmin=0, extent=(0.5, len(epochs) + 0.5, len(names), 0)
        )
        parts.grid(False)
        parts.set_yticks([place + 0.5 for place in range(len(names))], names, fontsize=6)
        parts.set(xlabel="epoch", title=last_row)
        figure.colorbar(image, ax=parts, label="IoU, %")
        written = io.BytesIO()
        figure.savefig(written, format="png", dpi=150, metadata={"Software": None})
    write_atomically(file, lambda path: path.write_bytes(written.getvalue()))
    return (
        "Intersection over union on the validation images after each epoch: the mean over the parts that occur, and "
        f"each part of the row “{last_row}”."
    )
