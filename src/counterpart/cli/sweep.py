"""Train a recipe many times under settings that vary, and show which of them trade natural for robust accuracy best.

Several workers may share a sweep: the same command, on this machine or, with a database, on many. The same command
continues a sweep that was stopped.
"""

import argparse
from collections.abc import Collection, Mapping
from typing import Any

from ..config import resolve
from ..recipes import load
from ..terminal import open_console, show
from . import train
from .settings import count

SETTINGS: Collection[str] = train.SETTINGS


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "recipe", metavar="RECIPE", help="A built-in recipe such as digits/part, or a .yaml file."
    )
    parser.add_argument(
        "--space",
        metavar="SPACE",
        required=True,
        help="The settings that vary: a .yaml file with lines such as 'train.beta: [1, 3, 6]' or 'optimizer.lr: {low: "
        "0.01, high: 0.3, log: true}', or one that comes with the package: part-eps-low, part-eps-low-12, "
        "part-models-beta, part-models-c-seg, part-models-pool, part-models-rate, part-quadrant, part-refresh, "
        "rate-and-decay, trades-beta.",
    )
    parser.add_argument(
        "--trials",
        metavar="N",
        type=count,
        help="The number of trials of all workers together. The default is every point of a space of lists.",
    )
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="A database that many machines share, such as postgresql://user@host/name or sqlite:///study.db. The "
        "default is a journal in the folder of the sweep, for one machine.",
    )
    parser.add_argument(
        "--no-pruning",
        action="store_true",
        help="Train every trial to its last epoch, also those below the median in both accuracies.",
    )


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Sweep."""

    from .. import sweeps

    recipe = load(arguments.recipe)
    named = {**recipe, "name": f"{recipe['name']}-{sweeps.name_of(arguments.space)}"}
    config = resolve(named, settings, source=arguments.recipe)
    space = sweeps.read_space(arguments.space, config)
    sweeps.refuse_given(space, settings)
    swept = sweeps.sweep(
        config, space, arguments.trials, storage=arguments.storage, prune=not arguments.no_pruning
    )
    console = open_console()
    if console.is_terminal:
        console.print(swept.table())
    else:
        show(*str(swept).splitlines())
    show(*_ending(swept))
    return 0


def _ending(swept: Any) -> list[str]:
    """What was written, what is missing, and what comes next."""
    lines = []
    unfinished = [trial for trial in swept.trials if trial.state in ("running", "waiting")]
    if unfinished:
        lines.append(
            f"Not over: {', '.join(trial.name for trial in unfinished)}. The same command goes on with what waits."
        )
    if swept.best is None:
        return [*lines, "No trial has been trained to its end yet."]
    ours = swept.best.path.exists()  # else another machine trained it, which shares no folder with this one
    command = f"evaluate {swept.best.path}" if ours else f"train {swept.recipes[0]}"
    return [
        *lines,
        f"Trade-off: {swept.plot}",
        f"Recipes of the front: {swept.recipes[0].parent}",
        "The best of many is partly luck on these images. Judge it once on the test images:",
        f"Next: counterpart {command}",
    ]
