"""Measure where a model is robust: accuracy if the attacker may move one region alone, beside random regions like it.

Regions are the top and the bottom of a map of the model, parts of the object, or a window. Settings are those of
``counterpart evaluate``. The same command continues a profile that was stopped.
"""

import argparse
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..terminal import show
from . import evaluate
from .settings import count

SETTINGS: Collection[str] = evaluate.settings_without(
    "mask.files", "evaluate.eps_low", "evaluate.individual", "evaluate.engine", "evaluate.save_images",
    "evaluate.parts", "evaluate.claim", *evaluate.RANDOM_ANSWERS, *evaluate.SAMPLE,
)  # fmt: skip
SECTIONS = ("evaluate",)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("target", metavar="TARGET", help="A model, as counterpart evaluate takes it.")
    parser.add_argument(
        "--regions",
        metavar="NAMES",
        help="Some of top, bottom, object, background, parts and window, with commas between them. The default is top "
        "and bottom, and where the data have part masks object, background and parts.",
    )
    parser.add_argument(
        "--shares",
        metavar="SHARES",
        default="5%,10%,25%,50%",
        help="The shares of the pixels of top, bottom and window, with commas between them (default: "
        "5%%,10%%,25%%,50%%).",
    )
    parser.add_argument(
        "--draws",
        type=count,
        default=3,
        help="How many random regions of either kind each region is compared with (default: 3).",
    )
    parser.add_argument(
        "--map",
        metavar="NAME",
        help="The map of the attacked model that top and bottom are of, as counterpart list maps names them. The "
        "default is that of the run's settings, which is grad-cam unless they say otherwise.",
    )
    parser.add_argument(
        "--layer",
        metavar="NAME",
        help="The module at whose output a class activation map is drawn, such as layer3.",
    )
    parser.add_argument(
        "--map-class",
        metavar="CLASS",
        help="What the map explains: the true class, the predicted one, or the margin between the true class and the "
        "likeliest other. The default is that of the run's settings, which is true unless they say otherwise.",
    )
    parser.add_argument(
        "--masks",
        metavar="DIR",
        type=Path,
        help="A folder of masks of your own in place of a map: a grey PNG for each image, named as for mask.files.",
    )


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Measure the profile."""
    evaluate.refuse_outside_settings(arguments.target, settings)
    shares = read_shares(arguments.shares)
    from .. import distributed, jobs

    regions = None
    if arguments.regions is not None:
        regions = [name.strip() for name in arguments.regions.split(",")]
    options = jobs.WhereOptions(
        regions,
        shares,
        arguments.draws,
        arguments.map,
        arguments.layer,
        arguments.map_class,
        arguments.masks,
    )
    profiles = jobs.profile_named(arguments.target, settings, options)
    if distributed.is_main():
        folders = " ".join(str(profiled.case.target.run.path) for profiled in profiles)
        show(f"Next: counterpart report {folders}")
    distributed.stop()
    return 0


def read_shares(text: str) -> list[float]:
    """Read shares such as 5%,0.25, with commas between them.

    Raises:
        UserError: a share is no number.
    """
    shares = []
    for word in text.split(","):
        number = word.strip().removesuffix("%")
        try:
            share = float(number)
        except ValueError:
            raise UserError(f"--shares: {word.strip()!r} is no share; expected such as 5% or 0.05.") from None
        shares.append(share / 100 if word.strip().endswith("%") else share)
    return shares
