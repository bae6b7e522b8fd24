"""A network from a user's own code: ``module:function`` or ``module:Class``."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..catalogue import KINDS, Entry, load_users_object, refuse_signature
from ..catalogue.user_code import reason
from ..errors import UserError, nearest

NEW_NETWORK = ("num_classes", "in_channels", "image_size")


def load_user(target: str) -> nn.Module:
    """Call a function of the user's own and return its model. This runs the module's code, then the function's.

    Args:
        target: ``module:function``, such as ``my_models:robust`` or ``package.nets:load``. The function takes no
            arguments and returns a classifier of images in [0, 1], normalisation inside, logits out.

    Returns:
        The module in eval mode.

    Raises:
        UserError: for whatever goes wrong in it, in one line; the cause is attached.
    """
    function = load_users_object(target)
    if not callable(function):
        raise UserError(f"{target} is {type(function).__name__}: expected a function that returns a model.")
    return _call(target, function, {}, "It is called without arguments and returns a model.").eval()


def create_users_model(
    entry: Entry[Any], num_classes: int, in_channels: int, image_size: int, options: Mapping[str, Any]
) -> nn.Module:
    """Make a new network of the user's own, for training. This runs the user's code.

    The function or class is called with those of ``num_classes``, ``in_channels`` and ``image_size`` that it takes, and
    with the options.

    Raises:
        UserError: for whatever goes wrong in it, in one line; the cause is attached.
    """
    constructor, expected = load_users_object(entry.code), f"a network {KINDS['models'].expects}"
    if not callable(constructor):
        raise UserError(f"{entry.code} is {type(constructor).__name__}: expected {expected}.")
    sizes = dict(zip(NEW_NETWORK, (num_classes, in_channels, image_size), strict=True))
    parameters = inspect.signature(constructor).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in options:
        if name not in parameters and not takes_all:
            raise UserError(f"{entry.code} takes no option {name!r}. {nearest(name, parameters)}")
    fitting = {name: value for name, value in sizes.items() if name in parameters or takes_all}
    refuse_signature(entry.code, constructor, expected, **fitting, **options)
    return _call(entry.code, constructor, {**fitting, **options}, f"Expected {expected}.")


def _call(
    target: str, function: Callable[..., Any], arguments: Mapping[str, Any], expected: str
) -> nn.Module:
    try:
        model = function(**arguments)
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        raise UserError(f"{target} failed: {reason(error)}. {expected}") from error
    if not isinstance(model, nn.Module):
        raise UserError(
            f"{target} returned {type(model).__name__}: expected a torch.nn.Module that maps images in [0, 1] to "
            "logits."
        )
    return model
