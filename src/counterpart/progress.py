"""A progress bar with rate and remaining time for every long stage, and lines that scroll above it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from . import distributed
from .errors import UserError
from .terminal import open_console


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("-- images/s" if speed is None else f"{speed:,.1f} images/s", style="progress.data.speed")


@dataclass(frozen=True)
class Bar:
    """A running stage: ``advance`` it, ``describe`` it, ``say`` a line above it (and into its log file)."""

    progress: Progress
    task: TaskID
    log: Path | None

    def advance(self, images: int) -> None:
        """So many images are done."""
        self.progress.advance(self.task, images)

    def describe(self, text: str) -> None:
        """Change the words before the bar."""
        self.progress.update(self.task, description=text)

    def say(self, line: str) -> None:
        """A line for the reader, kept in the log file."""
        if not distributed.is_main():
            return
        self.progress.console.print(line, highlight=False, soft_wrap=True)
        if self.log is not None:
            try:
                with self.log.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
            except OSError as error:
                raise UserError(
                    f"Could not write {self.log}: {error.strerror or error}. Run the same command again."
                ) from error


@contextmanager
def track(description: str, total: int, done: int = 0, log: Path | None = None) -> Iterator[Bar]:
    """Show a bar over ``total`` images, ``done`` of them before this start.

    Only the main process shows it. Where the output is no terminal there is no bar, only the lines.
    """
    console = open_console()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
    )
    hidden = not distributed.is_main() or not console.is_terminal
    with Progress(*columns, console=console, disable=hidden, refresh_per_second=4) as progress:
        yield Bar(progress, progress.add_task(description, total=total, completed=done), log)
