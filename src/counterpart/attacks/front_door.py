"""The door through which the attacks that ``counterpart`` exports are called from a loop of one's own.

It sees to what a caller may have left undone, and refuses in one sentence what cannot be meant. Attacks that call each
other, training and evaluation call the functions behind it.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from ..checks import check_labels, class_indices
from ..contracts import Attacked, Probe
from ..errors import NotFinite, nearest
from ..losses.classification import LOSSES, kl_divergence
from ..models.adapters import find_logits, follow, type_of
from ..models.modes import eval_mode
from ..seeding import Keys

COUNTS = ("steps", "restarts", "queries", "draws", "eot", "targets")  # options that must be at least 1


def front_door(attack: Callable[..., Attacked]) -> Callable[..., Attacked]:
    """Wrap an attack as it is exported, with these differences from the function behind it.

    - ``keys`` may lie on any device, and may be left out: then each image draws from its position in the batch and
      from ``seed`` (0). Give another seed at each step of a training, or all steps draw alike.
    - A model in training mode is attacked in eval mode, and has its modes back afterwards; gradient flags stay.
    - Labels may have any integer type; images may be float16 or bfloat16, and are computed, and returned, in float32.
    - Outputs that hold logits, such as tuples and dictionaries, are understood; a model in another floating type gets
      its images in that type.
    - ``torch.no_grad()`` and ``torch.inference_mode()`` around the call do not matter.
    - ``loss`` may be a name of ``losses.classification.LOSSES``.

    Raises:
        ValueError: labels, targets, keys, start or budget that do not fit the images, a target that is the label,
            a count below 1, or a model without logits or, for an attack that needs them, gradients.
        NotFinite: logits that are NaN or infinite.
    """

    @wraps(attack)
    def enter(
        model: Any,
        images: Tensor,
        labels: Any,
        *,
        budget: Any,  # a Budget: what else is given is refused in a sentence
        keys: Keys | None = None,
        seed: int = 0,
        **options: Any,
    ) -> Attacked:
        drawn = _keys(attack, keys, seed, images)
        if torch.compiler.is_compiling():
            return attack(model, images, labels, budget=budget, keys=drawn, **options)
        surrogate = options.get("surrogate")
        with torch.inference_mode(False), torch.enable_grad(), eval_mode(model, surrogate):
            clean = _images(images)
            true = _own(class_indices(labels, len(clean)).to(clean.device))
            if len(clean) == 0:
                return Attacked(clean, torch.zeros_like(true), torch.zeros_like(true))
            options = _options(options, clean, true)
            asked = _Asked(model, clean.dtype, options.get("target"))
            if surrogate is not None:
                options["surrogate"] = _Asked(surrogate, clean.dtype)
            # An attack on parts asks its model for more than logits.
            attacked_model = model if "parts" in inspect.signature(attack).parameters else asked
            attacked = attack(
                attacked_model, clean, true, budget=_budget(budget, clean), keys=drawn, **options
            )
            asked.check_finite()
            return attacked

    enter.__signature__ = _signature(attack)  # type: ignore[attr-defined]
    return enter


class _Asked:
    """A model as an attack asks it. Its answers are checked, and are logits (B, K) of the images' type."""

    def __init__(self, model: Callable[[Tensor], Any], dtype: torch.dtype, target: Any = None) -> None:
        self._model, self._dtype, self._type = model, dtype, type_of(model)
        self._target = target
        self._finite: Tensor | None = None

    def __call__(self, images: Tensor) -> Tensor:
        output = self._model(images if self._type is None else images.to(self._type))
        logits: Tensor = follow(output, find_logits(output, len(images))).to(self._dtype)
        if logits.ndim == 1 or logits.shape[1] == 1:
            raise ValueError(
                f"the model answers with one number an image, shape {tuple(logits.shape)}: "
                "counterpart.as_classifier(model, images) makes two classes of it."
            )
        if images.requires_grad and torch.is_grad_enabled() and not logits.requires_grad:
            raise ValueError(
                "the model's answers have no gradient (no_grad, detach or integers in its forward?): wrap that part "
                "in counterpart.straight_through, or take an attack without gradients, such as square."
            )
        finite = logits.detach().isfinite().all()
        if self._finite is None:  # not at every pass, because it waits for the device
            self._finite = finite
            self.check_finite()
            if isinstance(self._target, Tensor) and self._target.ndim == 1:
                check_labels(self._target, logits.shape[1], name="target")
        self._finite = self._finite & finite
        return logits

    def check_finite(self) -> None:
        """Refuse the answers so far if any of them is NaN or infinite."""
        if self._finite is not None and not bool(self._finite):
            raise NotFinite(
                "the model returns logits that are not finite (NaN or infinite): it cannot be attacked."
            )


def _signature(attack: Callable[..., Attacked]) -> inspect.Signature:
    """The signature of the attack, in which ``keys`` may be left out, and with a seed."""
    parameters = dict(inspect.signature(attack).parameters)
    keys = parameters["keys"]
    parameters["keys"] = keys.replace(default=None, annotation=Keys | None)
    parameters["seed"] = keys.replace(name="seed", default=0, annotation=int)
    order = sorted(parameters.values(), key=lambda parameter: parameter.kind)
    return inspect.Signature(order, return_annotation=Attacked)


def _keys(attack: Callable[..., Attacked], keys: Keys | None, seed: int, images: Tensor) -> Keys:
    if keys is None:
        return Keys(seed, attack.__name__, torch.arange(len(images), device=images.device))
    if seed != 0:
        raise ValueError("give keys, which hold a seed, or seed, not both.")
    if len(keys) != len(images):
        raise ValueError(
            f"keys are of {len(keys)} images, got {len(images)} images: take keys[rows] of some of them."
        )
    return keys.to(images.device)


def _own(tensor: Tensor) -> Tensor:
    """The tensor without a graph; a copy of it if it was made in inference mode, where autograd could not use it."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def _images(images: Tensor) -> Tensor:
    if not images.is_floating_point():
        raise ValueError(f"images must be floats in [0, 1], got {images.dtype}: divide 8-bit images by 255.")
    if images.ndim != 4:
        raise ValueError(
            f"images have shape {tuple(images.shape)}, expected (B, C, H, W): a single image is images[None]."
        )
    return _own(images.float() if images.dtype in (torch.float16, torch.bfloat16) else images)


def _budget(budget: Any, images: Tensor) -> Any:
    """The budget, on the device of the images."""
    if not hasattr(budget, "project"):
        raise ValueError(f"budget must be a budget such as Linf(8/255), got {type(budget).__name__}.")
    values = {field.name: getattr(budget, field.name) for field in fields(budget)}
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    elsewhere = {
        name: _own(value.to(images.device))
        for name, value in tensors.items()
        if value.device != images.device or value.is_inference()
    }
    budget = replace(budget, **elsewhere) if elsewhere else budget
    try:
        budget.radius(images).expand_as(images)
    except RuntimeError:
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in tensors.items())
        raise ValueError(
            f"the budget ({shapes}) does not fit images of shape {tuple(images.shape)}."
        ) from None
    return budget


def _options(options: Mapping[str, Any], images: Tensor, labels: Tensor) -> dict[str, Any]:
    """Check the attack's own options as far as is possible without the model."""
    checked_options = dict(options)
    for name in COUNTS:
        if isinstance(checked_options.get(name), int) and checked_options[name] < 1:
            raise ValueError(f"{name}={checked_options[name]}: an attack needs at least 1.")
    if isinstance(checked_options.get("loss"), str):
        if checked_options["loss"] not in LOSSES:
            raise ValueError(
                f"no loss is called {checked_options['loss']!r}. {nearest(checked_options['loss'], LOSSES)}"
            )
        checked_options["loss"] = LOSSES[checked_options["loss"]]
    start, target = checked_options.get("start"), checked_options.get("target")
    if isinstance(start, Tensor):
        if start.shape != images.shape:
            raise ValueError(f"start has shape {tuple(start.shape)}, the images have {tuple(images.shape)}.")
        checked_options["start"] = _own(start.to(images))
    elif start is not None and not isinstance(start, Probe):
        raise ValueError(f"start must be images or a Probe of them, got {type(start).__name__}.")
    if isinstance(target, Tensor):
        probabilities = checked_options.get("loss") is kl_divergence
        checked_options["target"] = (
            _own(target.to(images)) if probabilities else _classes_to_reach(target, images, labels)
        )
    return checked_options


def _classes_to_reach(target: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    classes = _own(class_indices(target, len(images), name="target").to(images.device))
    same = int((classes == labels).sum())
    if same:
        raise ValueError(
            f"target is the label of {same} of {len(labels)} images, which an attack cannot move them towards: give "
            "these another class or leave them out. A rank, such as target=1, is never the label."
        )
    return classes
