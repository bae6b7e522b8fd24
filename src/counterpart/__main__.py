"""``counterpart`` and ``python -m counterpart``: the door, which answers Ctrl-C before it imports what takes long.

``torchrun --nproc-per-node 2 -m counterpart train ...`` comes in here as well.
"""

import sys
from pathlib import Path

from . import interrupts


def main() -> int:
    """Run the command line of this process, and return its exit code."""
    interrupts.listen()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # a locale without some letters is no reason to fail
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        Path.cwd()
    except FileNotFoundError:  # which ends the process within torch, where it looks for its libraries
        sys.stderr.write(
            "counterpart: error: the current folder no longer exists: change into another one.\n"
        )
        return 2
    try:
        from .cli import main as run
    except BaseException:
        if interrupts.were_heard():
            interrupts.end_now()
        raise
    code = run()
    interrupts.end_silently()
    return code


if __name__ == "__main__":
    sys.exit(main())
