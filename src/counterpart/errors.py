"""Errors that the user can mend, and the hints in them. Imports nothing heavy: every command starts here."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend. The command line prints its one line and exits with code 2."""


class Diverged(UserError):
    """A training whose loss, gradient or weights are not finite any more."""


class OutOfMemory(UserError):
    """A batch does not fit into memory: another batch size, or a smaller model, would."""


class NotFinite(ValueError):
    """A loss, gradient or logit is NaN or infinite: a model that diverged. Training turns it into a UserError."""


def unreadable(path: object, error: Exception) -> UserError:
    """The error of a file that cannot be read."""
    return UserError(f"Cannot read {path}: {getattr(error, 'strerror', None) or error}.")


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the closest known name, or all of them where none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(name[:100], known, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}."
