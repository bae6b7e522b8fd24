"""Share a model as a folder, or on the Hugging Face Hub: weights, settings, ledgers, and a model card.

Every evaluation of the model is verified before it goes in, and counterpart verify checks all again from the folder.
"""

import argparse
from collections.abc import Collection, Mapping
from typing import Any

from ..terminal import show
from . import evaluate, export

SETTINGS: Collection[str] = export.SETTINGS


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("target", metavar="TARGET", help="A model, as counterpart evaluate takes it.")
    parser.add_argument(
        "--to",
        metavar="PLACE",
        required=True,
        help="A folder that does not exist yet, or hf://OWNER/NAME, which the hub's client sends it to. A repository "
        "that is new is private until you open it.",
    )
    parser.add_argument(
        "--licence", metavar="NAME", help="The licence of the weights, such as mit, for the model card."
    )


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Share."""
    evaluate.refuse_outside_settings(arguments.target, settings)
    from .. import jobs

    shared = jobs.share_named(arguments.target, settings, arguments.to, arguments.licence)
    count = len(shared.evaluations)
    show(
        f"{shared.place}: the model and {count} evaluation{'s' * (count != 1)}, verified. Its card is README.md."
    )
    if not arguments.to.startswith("hf://"):
        show(f"Next: counterpart verify {shared.place}")
    return 0
