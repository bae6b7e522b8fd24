"""Check every claim of a run's evaluations again, from its saved images, its weights and the data.

Before that, every file of the run is held against its checksum, in a run without evaluations as well.
"""

import argparse
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

SETTINGS: Collection[str] = ("data.root", "device")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("target", metavar="RUN", type=Path, help="A run folder, or a folder of seed-* runs.")
    parser.add_argument(
        "--eight-bits",
        action="store_true",
        help="Count as well how many images still fool the model when they are rounded to 8 bits, towards the clean "
        "image.",
    )


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Verify."""
    from ..jobs import verify_run

    verify_run(arguments.target.expanduser(), settings, eight_bits=arguments.eight_bits)
    return 0
