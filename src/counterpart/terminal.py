"""The one place that prints. Names come from data, and a name may hold what a terminal would obey.

Nothing else in the package prints (``tests/test_terminal.py`` looks for it). What is printed passes ``visible``:
control characters, among them the escape sequences that move a cursor, change colours or answer for the user, and marks
that turn the direction of writing around are shown as what they are, such as ``\\x1b``.
"""

import logging
import sys
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

# Categories of Unicode: controls, formats, halves of pairs, ends of lines and of paragraphs.
UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def visible(text: str, keep: str = "\n\t") -> str:
    """A text whose unseen characters are written out, but for those to ``keep``."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character in keep or unicodedata.category(character) not in UNSEEN
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


def show(*lines: object, error: bool = False) -> None:
    """Print lines, to the error stream if asked. What looks like an end of line within one is written out."""
    text = "".join(f"{visible(str(line), keep=chr(9))}\n" for line in lines)
    stream = sys.stderr if error else sys.stdout
    if stream is not None:  # None where the user closed it
        stream.write(text)


def open_console(*, error: bool = False, **options: Any) -> "Console":
    """A console for tables, notes and bars, of ``show``'s kind. It reads no markup, which names could hold as well.

    Args:
        error: whether it prints to the error stream.
        options: further options of ``rich.console.Console``.
    """
    from rich.console import Console, RenderableType
    from rich.segment import Segment

    class VisibleConsole(Console):
        def render_str(self, text: str, **named: Any) -> Any:  # so that columns are as wide as what they show
            return super().render_str(visible(text), **named)

        def render(self, renderable: RenderableType, *arguments: Any, **named: Any) -> Any:
            for segment in super().render(renderable, *arguments, **named):
                if segment.control:  # rich's own
                    yield segment
                else:
                    yield Segment(visible(segment.text), segment.style)

    return VisibleConsole(stderr=error, markup=False, emoji=False, **options)


class _VisibleLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def show_warnings() -> None:
    """Let warnings of this process, which hold names as well, pass ``visible`` where nobody set up the logging."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_VisibleLines())
