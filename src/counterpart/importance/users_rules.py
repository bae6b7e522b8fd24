"""Mask rules of the user's own: ``module:function``, or what an installed package adds."""

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

from ..catalogue import KINDS, Entry, load_users_object, refuse_signature
from ..errors import UserError
from .rules import MaskRule

FACTS = ("needs_map", "middle")
"""What a rule of the user's own may say of itself, as attributes: ``MaskFacts`` has their meanings and defaults."""


def call_users_rule(entry: Entry[Any], options: Mapping[str, Any]) -> MaskRule:
    """Bind the options of a mask rule of the user's own. Of a class, an instance is made with them.

    Raises:
        UserError: it cannot be called as a mask rule is.
    """
    code, expected = load_users_object(entry.code), f"a mask rule {KINDS['masks'].expects}"
    if not callable(code):
        raise UserError(f"{entry.code} is {type(code).__name__}: expected {expected}.")
    if inspect.isclass(code):
        refuse_signature(entry.code, code, "a class that takes mask.options", **options)
        rule: Any = code(**options)
    else:
        rule = partial(code, **options)
        for fact in FACTS:
            if hasattr(code, fact):
                setattr(rule, fact, getattr(code, fact))
    refuse_signature(entry.code, rule, expected, None, None, None)
    return cast(MaskRule, rule)
