"""Notes to whoever runs a job, on the error stream so that results can be piped."""

from collections.abc import Iterable

from rich.console import Console

from .. import distributed


def say(sentences: Iterable[str]) -> None:
    """Print each sentence as a note, once for all processes."""
    if not distributed.is_main():
        return
    for sentence in sentences:
        Console(stderr=True).print(f"Note: {sentence}", highlight=False, markup=False, soft_wrap=True)
