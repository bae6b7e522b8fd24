"""List run folders: how far each came, accuracies, size and age; or clean them up, which says first what would go.

counterpart runs; counterpart runs clean; counterpart runs clean --delete. Accuracies are clean / robust in per cent:
of the validation images after the last epoch, and of the latest evaluation.
"""

import argparse
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..config.values import in_seconds
from ..errors import UserError
from ..terminal import show

if TYPE_CHECKING:
    from ..jobs.cleaning import Removable

SETTINGS: Collection[str] = ("runs",)
CLEANING = """\
clean names what nobody needs any more, and removes it with --delete:
  - runs that stopped before their last epoch, to which nothing was written for --older-than, and
    that hold no judgements;
  - evaluations without a result, to which nothing was written for --older-than;
  - files that killed processes left half-written, and their locks;
  - of finished runs, the state of the optimiser in checkpoints/last.safetensors. The weights stay,
    so that evaluate, papers and sweep find what they look for.
Nothing goes of a run that is in use, damaged or shared, of a stopped trial of a sweep, or of a folder
that holds links or files which Counterpart did not write."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = "\n\n".join([CLEANING, parser.epilog or ""]).strip()
    parser.add_argument(
        "action",
        metavar="list|clean",
        nargs="?",
        choices=("list", "clean"),
        default="list",
        help="List the runs (default), or say what nobody needs any more.",
    )
    parser.add_argument(
        "--older-than",
        metavar="TIME",
        default="30d",
        help="For clean: unfinished counts as given up after this time without a write, such as 12h (default: 30d).",
    )
    parser.add_argument(
        "--delete", action="store_true", help="For clean: remove what is listed without this."
    )


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """List or clean."""
    from ..api.runs import runs

    listed = runs(settings.get("runs", "runs"))
    if arguments.action == "list":
        show(*str(listed).splitlines() if listed else [f"No run is below {listed.folder}."])
        return 0
    older_than = in_seconds(arguments.older_than)
    if not isinstance(older_than, float):
        raise UserError(f"--older-than {arguments.older_than!r} must be a time, such as 12h or 30d.")
    if arguments.delete:
        show(*_lines(listed.clean(older_than), ("Removed", "Made smaller:")))
    else:
        items = listed.removable(older_than)
        show(*_lines(items, ("Would remove", "Would make smaller:")))
        show(*["Nothing was removed: the same command with --delete does it."] if items else [])
    return 0


def _lines(items: Sequence["Removable"], verbs: tuple[str, str]) -> list[str]:
    """A line for each thing, with the verb of what goes or of what becomes smaller, and the sum."""
    from ..api.runs import size_in_words

    if not items:
        return ["There is nothing to remove."]
    lines = []
    for item in items:
        text = f"{verbs[item.shrinks]} {item.path} ({size_in_words(item.size)}): {item.why}"
        lines += textwrap.wrap(
            text, 110, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )
    return [*lines, f"{len(items)} in all, {size_in_words(sum(item.size for item in items))}."]
