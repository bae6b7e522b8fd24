"""The lock of what an evaluation writes: nobody else adds to a ledger, an audit, a profile or counts meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import hosts
from .target import Target
from .targets import claim

LOCK = ".ledger.lock"


@contextmanager
def hold_results(target: Target, folder: Path) -> Iterator[None]:
    """Make the target's run folder, and hold a folder in it while the body runs. Without a folder nothing is held.

    Args:
        target: the model, the images and the run folder.
        folder: the folder of the evaluation, audit, profile or counts, which need not exist yet.

    Raises:
        UserError: another process writes there, the run folder belongs to another model, or a link leads out of it.
    """
    if not target.has_folder:
        yield
        return
    claim(target)
    target.run.refuse_links_out(folder)
    with hosts.hold(folder / LOCK, str(folder), target.config.wait):
        yield
