"""Measure the clean and robust accuracy of a run, a group of seeds, or timm/NAME.

Settings differ from the run's own only where they are given here. An evaluation that was stopped continues.
"""

import argparse
from collections.abc import Collection, Mapping
from typing import Any

from ..config import settings
from ..errors import UserError

_DATA = ("data.name", "data.root", "data.download", "data.size", "data.class_map")
_OF_TIMM = ("runs", "model.init")
SETTINGS: Collection[str] = tuple(
    key
    for key, _ in settings()
    if key.startswith("evaluate.") or key in ("seed", "device", "threads", *_DATA, *_OF_TIMM)
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="a run folder, a folder of seed-* runs, or timm/NAME with an image folder",
    )


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Evaluate."""
    if not arguments.target.startswith("timm/"):
        for key in _OF_TIMM:
            if key.split(".")[0] in settings:
                raise UserError(
                    f"--{key} has no effect on a run folder: only on timm/NAME, which has no run yet."
                )
    from .. import distributed, jobs

    runs = jobs.evaluate(arguments.target, settings)
    if distributed.is_main():
        print(f"Next: counterpart report {' '.join(str(run.path) for run in runs)}")
    distributed.stop()
    return 0
