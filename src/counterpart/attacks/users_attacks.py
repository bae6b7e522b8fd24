"""Attacks of the user's own: ``module:function``, or what an installed package adds."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..budget import Budget
from ..catalogue import KINDS, Entry, load_users_object, refuse_signature
from ..contracts import Attacked, Classifier, Probe
from ..errors import UserError
from ..seeding import Keys, derive, seeded_everywhere


def call_users_attack(entry: Entry[Any], options: Mapping[str, Any]) -> Callable[..., Attacked]:
    """An attack of the user's own with its options bound, called and answered like ours.

    A class is made with the options, and its instances are called. The global generators of torch and numpy are seeded
    from the keys before each call and put back after it, so that code which draws from them gives the same every time.

    Raises:
        UserError: it cannot be called as an attack is.
    """
    code: Any = load_users_object(entry.code)
    expected = f"an attack {KINDS['attacks'].expects}"
    if not callable(code):
        raise UserError(f"{entry.code} is {type(code).__name__}: expected {expected}, or a list of attacks.")
    attack: Any
    if inspect.isclass(code):
        refuse_signature(entry.code, code, "a class that takes the options given", **options)
        attack, options = code(**options), {}
    else:
        attack = code
    named_arguments = dict.fromkeys(("budget", "keys"))
    refuse_signature(entry.code, attack, expected, None, None, None, **named_arguments, **options)
    return partial(_attack, entry.key, attack, dict(options))


def _attack(
    name: str,
    attack: Callable[..., Any],
    options: Mapping[str, Any],
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    budget: Budget,
    keys: Keys,
    start: Tensor | Probe | None = None,
) -> Attacked:
    first = int(keys.index[0]) if len(keys) else 0
    begin = {} if start is None else {"start": start}
    with seeded_everywhere(derive(keys.seed, keys.attack, first), images.device), torch.enable_grad():
        answer = attack(model, images, labels, budget=budget, keys=keys, **begin, **options)
    if isinstance(answer, Attacked):
        return answer
    if not isinstance(answer, Tensor) or answer.shape != images.shape:
        shape = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise UserError(
            f"attack {name} returned {shape}: expected the perturbed images, of shape {tuple(images.shape)}, "
            "or Attacked."
        )
    unknown = torch.zeros_like(labels)  # its passes are not counted
    return Attacked(answer.detach().to(images.dtype), unknown, unknown.clone())
