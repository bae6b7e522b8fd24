"""How far a long stage is, at what rate, and how long it will take: in a terminal, in a notebook, and in files.

A terminal shows a bar, and lines that scroll above it. A notebook shows one output that changes. Where the output goes
into a file there are plain lines, and one more after each half minute of silence.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .. import distributed, silence
from ..errors import UserError
from ..terminal import open_console
from .pace import Pace
from .surfaces import Surface, draw


@dataclass(eq=False)
class Bar:
    """A running stage: ``advance`` it, ``describe`` it, ``say`` a line above it (and into its log file)."""

    description: str
    pace: Pace
    surface: Surface
    log: Path | None = None

    def advance(self, count: int) -> None:
        """So many are done."""
        self.pace.advance(count)
        self.surface.update(self.description, self.pace)

    def skip(self, count: int) -> None:
        """So many need not be done, and say nothing of the rate."""
        self.pace.skip(count)
        self.surface.update(self.description, self.pace)

    def describe(self, text: str) -> None:
        """Change the words before the bar."""
        self.description = text
        self.surface.update(self.description, self.pace)

    def enter(self, text: str) -> None:
        """Change the words before the bar, for something whose pieces take another time than those before."""
        self.pace.measure_anew()
        self.describe(text)

    def say(self, line: str) -> None:
        """A line for the reader, kept in the log file."""
        if not distributed.is_main():
            return
        self.surface.say(line)
        silence.hear()
        if self.log is not None:
            try:
                with self.log.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
            except OSError as error:
                raise UserError(
                    f"Could not write {self.log}: {error.strerror or error}. Run the same command again."
                ) from error

    def speak(self) -> None:
        """Show that it goes on, after half a minute in which nothing was said."""
        self.surface.speak(self.description, self.pace)


_running: list[Bar] = []  # the stages of this process, the innermost last


@contextmanager
def track(
    description: str, total: int | None, done: int = 0, log: Path | None = None, unit: str = "images"
) -> Iterator[Bar]:
    """Show how far a stage is. Only the main process shows it.

    Args:
        description: what is done; ``Bar.describe`` changes it.
        total: how many there are to do; None where nobody knows.
        done: how many of them were done before this start.
        log: the file that keeps the lines which are said.
        unit: what is counted.
    """
    pace = Pace(total, unit, done)
    if not distributed.is_main():
        yield Bar(description, pace, Surface(), log)
        return
    outer = _running[-1].surface if _running else None
    with draw(open_console(), description, pace, outer) as surface:
        bar = Bar(description, pace, surface, log)
        _running.append(bar)
        try:
            with silence.broken_by(bar.speak):
                yield bar
        finally:
            _running.remove(bar)


@contextmanager
def stage(description: str) -> Iterator[None]:
    """Show that something goes on of which nobody knows how long it will take. Nothing of it stays in a terminal."""
    with track(description, None):
        yield
