"""A network from a user's own code: ``module:function``."""

import importlib
import sys
from pathlib import Path

from torch import nn

from ..errors import UserError, nearest


def load_user(target: str) -> nn.Module:
    """What ``function()`` of ``module`` returns. This runs the user's code: the module's, then the function's.

    The module is found as ``python -m`` finds one: in the current folder first, then on Python's path.

    Args:
        target: ``module:function``, such as ``my_models:robust`` or ``package.nets:load``. The function takes no
            arguments and returns a classifier of images in [0, 1], normalisation inside, logits out.

    Returns:
        The module in eval mode.

    Raises:
        UserError: for whatever goes wrong in it, in one line; the cause is attached.
    """
    name, _, function = target.partition(":")
    if not all(part.isidentifier() for part in [*name.split("."), function]):
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
        raise UserError(f"importing {name} failed: {_reason(error)}") from error
    made = getattr(module, function, None)
    if not callable(made):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        hint = nearest(function, known) if known else "It defines none."
        raise UserError(f"{name} has no function {function!r}. {hint}")
    try:
        model = made()
    except (Exception, SystemExit) as error:  # so may the function
        raise UserError(
            f"{target} failed: {_reason(error)}. It is called without arguments and returns a model."
        ) from error
    if not isinstance(model, nn.Module):
        raise UserError(
            f"{target} returned {type(model).__name__}: expected a torch.nn.Module that maps images in [0, 1] to "
            "logits."
        )
    return model.eval()


def _files_here(name: str) -> str:
    files = [path.stem for path in Path.cwd().glob("*.py") if path.stem.isidentifier()]
    return nearest(name, files) if files else "The current folder has no .py files."


def _reason(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}".rstrip(": .")
