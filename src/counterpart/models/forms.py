"""Chooses the form of a view, which is the copy of a model that attacks search on.

The fastest form is taken whose logits and gradients are those of the model itself, but for rounding.
"""

from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .. import devices
from ..seeding import derive
from .borrowed import borrowed
from .normalize import ImageClassifier
from .random_passes import seeded_passes

Form = Literal["fast", "contiguous", "unfolded", "original"]
"""The forms that a view may take, the fastest first.

- ``fast`` is a copy with tensors in channels-last layout, whose batch norms are folded into the layers before
  them.
- ``contiguous`` is the same in torch's plain layout.
- ``unfolded`` is a copy in the plain layout that computes layer by layer as the model does.
- ``original`` is no copy: it is the model itself, with its hooks.
"""

FORMS: tuple[Form, ...] = get_args(Form)

SAME_LOGITS = 1e-4  # share of the logits' range; the order of additions changes a few millionths of it
SAME_GRADIENTS = 0.01  # share of a gradient's norm that a view may differ by
SOME = 4  # the number of images on which a view is compared with its model
POINTS = 2  # the number of noisy images beside each image at which gradients are compared
NOISE = 0.05  # the share of noise in each of these
SEEDS = 8  # the number of seeds under which a model that draws at random is compared with its view
MOVE = 1e-6  # how far pixels in [0, 1] are moved: about what rounding does to a layer's input
OURS = f"{__package__.partition('.')[0]}."
SEARCHED_ON = {
    "fast": "a fast copy of the model",
    "contiguous": "a copy of the model in torch's plain memory layout",
    "unfolded": "a copy of the model that is not folded",
    "original": "the model itself, which is slower than a copy",
}


@dataclass(frozen=True)
class ViewDifference:
    """How far the answers of a view are from those of its model, on a few images.

    Attributes:
        logits: the largest difference of a logit, as a share of the range of the model's logits.
        gradients: the largest difference over the images of the gradients with respect to them, in norm, as a
            share of the model's gradient.
        kinks: the same difference between the model and itself when that image is moved by a millionth. No
            view can be expected to come closer than that.
    """

    logits: float
    gradients: float
    kinks: float = 0.0

    @property
    def reason(self) -> str | None:
        """The fault of the view, as a part of a sentence; None if it has none."""
        if not self.logits <= SAME_LOGITS:  # also where it is not a number
            return f"answers otherwise (logits differ by {self.logits:.2%} of their range)"
        if not self.gradients <= max(SAME_GRADIENTS, self.kinks):
            return f"has other gradients (they differ by {self.gradients:.2%})"
        return None


def faithful_form(
    model: nn.Module,
    images: Float[Tensor, "b c h w"],
    build: Callable[[Form], Callable[[Tensor], Tensor]],
) -> tuple[Form, str | None]:
    """The fastest form that is faithful to a model in float32, and the reason if it is not ``fast``.

    The project's own networks are always ``fast`` and are not compared here, since tests compare their views.

    Args:
        model: a module that maps images in [0, 1] to logits (B, K). Its modes, gradients and hooks are left
            alone, but its hooks see the passes that are made here.
        images: some images (B, C, H, W) of the kind that the model is for, on its device. The first ``SOME``
            are used.
        build: a function that makes the view of the model in a form.

    Returns:
        The form, and the reason as a sentence, which is None if the form is ``fast``.
    """
    if is_own(model):
        return "fast", None
    reasons: list[str] = []
    for form in FORMS[:-1]:
        try:
            # torch.fx prints the generated code that an error came from, which nobody needs to see here.
            # A trace may draw random numbers, and must not use up those of a pass.
            with redirect_stderr(StringIO()), seeded_passes(model, derive(0, "view trace"), images.device):
                view = build(form)
                reason = difference(model, view, images[:SOME]).reason or frozen(model, view, images[:SOME])
        except (
            Exception
        ) as error:  # copies of the model's own code meet tensors of another kind: anything may happen
            if devices.is_out_of_memory(error):
                raise
            reason = f"fails: {first_line(error)}"
        if reason is None:
            return form, None if form == "fast" else sentence(form, reasons)
        reasons.append(reason)
    return "original", sentence("original", reasons)


def first_line(error: Exception) -> str:
    """The first line of an error's message, as a part of a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def is_own(model: nn.Module) -> bool:
    """Whether a model consists of the project's classes and torch's layers alone, and is unchanged."""
    known = (OURS, "torch.nn.modules.")
    return isinstance(model, ImageClassifier) and all(
        type(module).__module__.startswith(known) and not has_hooks(module) and "forward" not in vars(module)
        for module in model.modules()
    )


def has_hooks(module: nn.Module) -> bool:
    """Whether a hook watches or changes the inputs, the outputs or the gradients of a module."""
    return any(value for name, value in vars(module).items() if holds_hooks(name, value))


def holds_hooks(name: str, value: object) -> bool:
    """Whether an attribute of a module is one of torch's dictionaries of hooks."""
    return name.startswith(("_forward", "_backward")) and isinstance(value, dict)


def difference(
    model: nn.Module, view: Callable[[Tensor], Tensor], images: Float[Tensor, "b c h w"]
) -> ViewDifference:
    """How far the answers of a float32 view are from those of its model.

    The gradients are those of a random sum of the logits. They are compared not at an image but at several
    points beside it, with a little noise. Flat areas of real images are full of ties between pixels, and
    every memory layout breaks ties in its own way.

    For each image the point with the smallest difference counts. At one of the points a kink of the network
    may lie between the model and its view, but hardly at all of them.

    Deep networks without training have kinks everywhere. So it is also measured how much the model's own
    gradient changes when the image is moved by a millionth.

    Args:
        model: the original model, whose own forward pass is made in eval mode.
        view: the view that is compared with it.
        images: the images (B, C, H, W) in [0, 1].
    """
    apart, turned, moved = [], [], []
    for point in range(POINTS):
        generator = torch.Generator().manual_seed(derive(0, "view", point))
        noise, move = (torch.rand(images.shape, generator=generator).to(images.device) for _ in range(2))
        nudged = (1 - NOISE) * images.detach().float() + NOISE * noise
        with (
            torch.autocast(images.device.type, enabled=False),
            devices.exact_float32(),
        ):
            with borrowed(model):
                logits, gradient = _answer(model, nudged)
                beside = _answer(model, nudged + MOVE * (2 * move - 1))[1]
            copied, other = _answer(view, nudged)
        if copied.shape != logits.shape:
            return ViewDifference(float("inf"), float("inf"))
        spread = (logits.max() - logits.min()).clamp_min(0.01 * logits.abs().max()).clamp_min(1e-12)
        apart.append((copied - logits).abs().max() / spread)
        turned.append(_turned(gradient, other))
        moved.append(_turned(gradient, beside))
    nearest, kinks = torch.stack(turned).amin(dim=0), torch.stack(moved).mean(dim=0)
    worst = (nearest / kinks.clamp_min(SAME_GRADIENTS)).argmax()
    return ViewDifference(float(torch.stack(apart).max()), float(nearest[worst]), float(kinks[worst]))


def frozen(
    model: nn.Module, view: Callable[[Tensor], Tensor], images: Float[Tensor, "b c h w"]
) -> str | None:
    """The fault of a view that does not draw at random what its model draws, as a part of a sentence.

    A copy may have frozen the noise, or the choice between networks, of the pass that it was traced in. It is None for
    a view without this fault, and for models that do not draw.
    """

    def answers(ask: Callable[[Tensor], Tensor], seed: int) -> Tensor:
        leaf = (
            images.float().clone().requires_grad_()
        )  # compiled models know passes with gradients from before
        with seeded_passes(model, derive(0, "view draws", seed), images.device), torch.enable_grad():
            return ask(leaf).detach()

    with torch.autocast(images.device.type, enabled=False), devices.exact_float32(), borrowed(model):
        drawn = [answers(model, seed) for seed in range(SEEDS)]
        spread = SAME_LOGITS * (drawn[0].max() - drawn[0].min()).clamp_min(1e-12)
        if all(bool(((logits - drawn[0]).abs() <= spread).all()) for logits in drawn):
            return None
        for seed, logits in enumerate(drawn):
            if not bool(((answers(view, seed) - logits).abs() <= spread).all()):
                return "does not draw at random what the model draws"
    return None


def _answer(ask: Callable[[Tensor], Any], images: Tensor) -> tuple[Tensor, Tensor | None]:
    """The logits, and the gradient of a random sum of them, or None if they have no gradient.

    Random layers draw the same numbers in every call.
    """
    leaf = images.clone().requires_grad_()
    with torch.enable_grad(), seeded_passes(ask, derive(0, "view"), images.device):
        logits = ask(leaf)
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"the model returns {shape}; expected ({len(images)}, K) logits.")
        if not logits.requires_grad:
            return logits.detach().float(), None
        generator = torch.Generator().manual_seed(derive(0, "view logits"))
        weights = torch.randn(logits.shape, generator=generator).to(logits.device)
        (gradient,) = torch.autograd.grad((weights * logits).sum(), leaf, allow_unused=True)
    return logits.detach().float(), gradient


def _turned(gradient: Tensor | None, other: Tensor | None) -> Tensor:
    """The difference of two gradients (B,), in norm, as a share of the norm of the first.

    Where one of them is missing, the result has a single entry, which is infinite; 0 where both are missing.
    """
    if gradient is None or other is None:
        return torch.tensor([0.0 if gradient is other else float("inf")])
    norms = gradient.flatten(1).norm(dim=1)
    apart: Tensor = (other - gradient).flatten(1).norm(dim=1) / norms.clamp_min(1e-12)
    return apart


def sentence(form: Form, reasons: list[str]) -> str:
    """The sentence that says what attacks search on and why.

    Each kind of reason stands once, that of the fast copy first.
    """
    kinds = {reason.partition(" (")[0]: reason for reason in reversed(reasons)}
    return (
        f"Attacks search on {SEARCHED_ON[form]}: the fast copy {'; another '.join(reversed(kinds.values()))}."
    )
