"""A user's own code, named as ``module:function``: how it is found, loaded, and checked for its signature."""

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import UserError, nearest


def load_users_object(target: str) -> Any:
    """The object that ``module:function`` names. Loading it runs the module's code.

    The module is found as ``python -m`` finds one: in the current folder first, then on Python's path.

    Args:
        target: the name of a function, a class or a list, such as ``my_models:robust`` or
            ``package.nets:load``.

    Raises:
        UserError: the name is none, or the user's code fails. The message is one line, and the cause is
            attached.
    """
    name, _, attribute = target.partition(":")
    if not all(part.isidentifier() for part in [*name.split("."), attribute]):
        raise UserError(
            f"{target!r} names no function: expected module:function, such as my_models:load, without .py."
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a script's top level may raise anything, or parse arguments
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise UserError(
                f"no module {name!r} in {here} or on Python's path. {_files_here(name)}"
            ) from error
        raise UserError(f"importing {name} failed: {reason(error)}") from error
    if not hasattr(module, attribute):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        hint = nearest(attribute, known) if known else "It defines none."
        raise UserError(f"{name} has no function {attribute!r}. {hint}")
    return getattr(module, attribute)


def refuse_signature(
    target: str, function: Callable[..., Any], expected: str, *arguments: Any, **named: Any
) -> None:
    """Refuse a function that cannot be called with these arguments.

    Raises:
        UserError: it cannot be called so. The message shows the signature that is expected, and the one that
            it has.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions of extension modules have no signature to look at
        return
    try:
        signature.bind(*arguments, **named)
    except TypeError as error:
        raise UserError(
            f"{target} cannot be called as it would be: {error}. Expected {expected}; it has {signature}."
        ) from None


def source_hash(thing: Any) -> str:
    """Twelve hex digits of the file that a function or class of the user's own was written in."""
    written = thing if inspect.isclass(thing) or inspect.isfunction(thing) else type(thing)
    try:
        file = Path(inspect.getsourcefile(written) or "")
    except TypeError:  # built in: it has no file
        file = Path()
    source = file.read_bytes() if file.is_file() else repr(thing).encode()
    return hashlib.sha256(source).hexdigest()[:12]


def describe_source(name: str, code: str) -> str:
    """A sentence that tells whoever reads the output whose code is run."""
    whose = "your own code" if name == code else "the code of another package"
    return f"{name} runs {whose}: the module {code.partition(':')[0]}."


def reason(error: BaseException) -> str:
    """The type and the first line of an error of somebody else's code."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}".rstrip(": .")


def _files_here(name: str) -> str:
    files = [path.stem for path in Path.cwd().glob("*.py") if path.stem.isidentifier()]
    return nearest(name, files) if files else "The current folder has no .py files."
