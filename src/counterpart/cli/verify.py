"""Check every claim of a run's evaluations again, from its saved images, its weights and the data.

Before that, every file of the run is held against its checksum, in a run without evaluations as well.
"""

import argparse
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..terminal import show

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
    parser.add_argument(
        "--published",
        metavar="FILE",
        type=Path,
        help="Then say how the numbers lie to a published result: a JSON file in RobustBench's form, as its model_info "
        "has them.",
    )
    parser.add_argument(
        "--bundle",
        metavar="DIR",
        help="Then write the run as a folder that verifies alone, elsewhere: weights, images, ledgers, a model card, "
        "and the outside code of a network of your own.",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="Run the code of a network that such a folder holds, or a TorchScript program that was judged.",
    )


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Verify."""
    from ..jobs import bundle_run, check_run, compare_with_published

    path = arguments.target.expanduser()
    checked = check_run(path, settings, eight_bits=arguments.eight_bits, trust=arguments.trust)
    evaluations = [evaluation for evaluation, _ in checked]
    if arguments.published is not None:
        compare_with_published(evaluations, arguments.published.expanduser(), path)
    if arguments.bundle is not None:
        bundle = bundle_run(path, evaluations, settings, arguments.bundle)
        show(f"{bundle.place}: it verifies alone. Its card is README.md.")
    return 0
