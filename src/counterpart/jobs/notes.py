"""Notes to whoever runs a job, on the error stream so that results can be piped."""

from collections.abc import Iterable

from .. import distributed
from ..terminal import open_console


def say(sentences: Iterable[str]) -> None:
    """Print each sentence as a note, once for all processes."""
    if not distributed.is_main():
        return
    for sentence in sentences:
        open_console(error=True).print(f"Note: {sentence}", highlight=False, soft_wrap=True)
