"""Where progress is shown: a bar in a terminal, one output that changes in a notebook, or lines in a file."""

import importlib
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.text import Text

from ..terminal import visible
from .pace import Pace

LINES = 10  # the last lines that a notebook shows above its bar
PAUSE = 0.5  # seconds between two changes of a notebook's output
CELLS = 24  # characters of a bar


class Surface:
    """What shows the progress of a stage. This one shows nothing: it belongs to a process that is not the main one."""

    def update(self, description: str, pace: Pace) -> None:
        """Show how far it is; this is called often."""

    def say(self, line: str) -> None:
        """Show a line that stays."""

    def speak(self, description: str, pace: Pace) -> None:
        """Nothing was said for half a minute: show that it goes on."""


class Lines(Surface):
    """Plain lines, for a file, which shall not grow with every step."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, line: str) -> None:
        """Print a line."""
        self.console.print(line, highlight=False, soft_wrap=True)

    def speak(self, description: str, pace: Pace) -> None:
        """Print a line with the pace."""
        self.say(f"{description}: {pace}")


class Terminal(Lines):
    """A bar below the lines, which rich draws."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        super().__init__(progress.console)
        self.progress, self.task = progress, task

    def update(self, description: str, pace: Pace) -> None:
        """Move the bar."""
        self.progress.update(self.task, description=description, completed=pace.completed)

    def speak(self, description: str, pace: Pace) -> None:
        """Show nothing: the clock of the bar runs."""


class Notebook(Surface):
    """One output of a cell, which changes: the last lines, and the bar below them."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=LINES)
        self.said = 0
        self.bar = ""
        self.shown = time.monotonic()  # so that what takes no time shows nothing
        self.output: Any = None

    def update(self, description: str, pace: Pace) -> None:
        """Move the bar, twice a second at most."""
        self.bar = _bar_of(description, pace)
        if time.monotonic() - self.shown >= PAUSE:
            self.show()

    def say(self, line: str) -> None:
        """Add a line, in place of the oldest."""
        self.lines.extend(line.splitlines())
        self.said += len(line.splitlines())
        self.show()

    def speak(self, description: str, pace: Pace) -> None:
        """Move the bar's clock."""
        self.bar = _bar_of(description, pace)
        self.show()

    def show(self) -> None:
        """Write the output anew."""
        self.shown = time.monotonic()
        hidden = self.said - len(self.lines)
        above = [f"... {hidden} lines above"] if hidden else []
        text = "\n".join(visible(line) for line in [*above, *self.lines, self.bar] if line)
        content = {"text/plain": text}
        if self.output is None:
            display = importlib.import_module("IPython.display").display  # there, since this is its kernel
            self.output = display(content, raw=True, display_id=True)
        else:
            self.output.update(content, raw=True)

    def end(self, keep: bool) -> None:
        """Show the end; a stage without a number leaves nothing."""
        if self.output is None and not self.lines:
            return
        if not keep:
            self.bar = ""
        self.show()


class _Pace(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(str(task.fields["pace"]), style="progress.data.speed")


@contextmanager
def draw(console: Console, description: str, pace: Pace, outer: object) -> Iterator[Surface]:
    """A block with the surface of a console: its bar is added to that of ``outer`` where this is a terminal's."""
    if console.is_jupyter:
        notebook = Notebook()
        try:
            yield notebook
        finally:
            notebook.end(keep=pace.total is not None)
    elif not console.is_terminal:
        yield Lines(console)
    elif isinstance(outer, Terminal):
        task = outer.progress.add_task(description, total=pace.total, completed=pace.completed, pace=pace)
        try:
            yield Terminal(outer.progress, task)
        finally:
            outer.progress.remove_task(task)
    else:
        columns = (TextColumn("{task.description}", markup=False), _bar_column(pace), _Pace())
        drawn = Progress(*columns, console=console, refresh_per_second=4, transient=pace.total is None)
        with drawn as progress:
            task = progress.add_task(description, total=pace.total, completed=pace.completed, pace=pace)
            yield Terminal(progress, task)


def _bar_column(pace: Pace) -> ProgressColumn:
    return SpinnerColumn() if pace.total is None else BarColumn(bar_width=CELLS)


def _bar_of(description: str, pace: Pace) -> str:
    """A bar in characters, with words."""
    if pace.total is None:
        return f"{description}: {pace}"
    filled = CELLS * min(pace.completed, pace.total) // max(1, pace.total)
    return f"{description}  [{'#' * filled}{'.' * (CELLS - filled)}]  {pace}"
