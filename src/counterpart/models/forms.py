"""Which form a view of a model takes: the fastest one that is held to the model itself and does not differ."""

from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .. import devices
from ..seeding import derive, seeded
from .borrowed import borrowed
from .normalize import ImageClassifier

Form = Literal["fast", "contiguous", "unfolded", "original"]
"""What a view makes of a model, the fastest first: ``fast``, a copy whose tensors are channels-last and whose batch
norms are folded; ``contiguous``, the same in torch's plain layout; ``unfolded``, a copy in that layout that computes
as the model does; ``original``, no copy: the model itself, with its hooks.
"""

FORMS: tuple[Form, ...] = get_args(Form)

SAME_LOGITS = 1e-4  # of the logits' range: the order of additions changes a few millionths of it
SAME_GRADIENTS = 0.01  # of a gradient's norm
SOME = 4  # images that a view is held to its model on
POINTS = 2  # places beside each image at which gradients are compared
NOISE = 0.05  # share of it in each of them
MOVE = 1e-6  # of pixels in [0, 1]: about what rounding does to a layer's input
OURS = f"{__package__.partition('.')[0]}."
SEARCHED_ON = {
    "fast": "a fast copy of the model",
    "contiguous": "a copy of the model in torch's plain memory layout",
    "unfolded": "a copy of the model that is not folded",
    "original": "the model itself, which is slower than a copy",
}


@dataclass(frozen=True)
class ViewDifference:
    """How far a view is from its model, on a few images.

    Attributes:
        logits: largest difference, as a share of the range of the model's logits.
        gradients: largest difference over the images of the gradients with respect to them, as a share of the model's
            gradient, in norm.
        kinks: the same between the model and itself, where that image is moved by a millionth: no view is nearer.
    """

    logits: float
    gradients: float
    kinks: float = 0.0

    @property
    def reason(self) -> str | None:
        """What is wrong with the view, as a part of a sentence; None if nothing is."""
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
    """The fastest form that is faithful to a model, in float32, and a sentence that says why it is not ``fast``.

    The project's own networks are ``fast``, without a look: tests hold their views to them.

    Args:
        model: maps images in [0, 1] to logits (B, K). Its modes, gradients and hooks are left alone, but hooks see the
            passes that are made here.
        images: some of those that it is for, on its device; the first ``SOME`` are looked at.
        build: makes the model's view of a form.

    Returns:
        The form, and the sentence, None with ``fast``.
    """
    if is_own(model):
        return "fast", None
    reasons: list[str] = []
    for form in FORMS[:-1]:
        try:
            # torch.fx prints the generated code that an error came from. A trace may draw numbers, not those of a pass.
            with redirect_stderr(StringIO()), seeded(derive(0, "view trace"), images.device):
                view = build(form)
                reason = difference(model, view, images[:SOME]).reason
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
    """What an error says, as a part of a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def is_own(model: nn.Module) -> bool:
    """Whether a model is made of the project's classes and torch's layers alone, and nobody has changed it since."""
    known = (OURS, "torch.nn.modules.")
    return isinstance(model, ImageClassifier) and all(
        type(module).__module__.startswith(known) and not has_hooks(module) and "forward" not in vars(module)
        for module in model.modules()
    )


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody looks at, or changes, what goes into this module, comes out of it, or their gradients."""
    return any(value for name, value in vars(module).items() if holds_hooks(name, value))


def holds_hooks(name: str, value: object) -> bool:
    """Whether an attribute of a module is one of torch's dictionaries of hooks."""
    return name.startswith(("_forward", "_backward")) and isinstance(value, dict)


def difference(
    model: nn.Module, view: Callable[[Tensor], Tensor], images: Float[Tensor, "b c h w"]
) -> ViewDifference:
    """How far a float32 view is from its model.

    Gradients are those of a random sum of the logits. They are taken at several points beside each image, with a little
    noise: flat areas of real images are full of ties, which every layout breaks in its own way. The nearest of an
    image's points counts, since a kink of the network may lie between model and view at one of them, and hardly at all.
    Deep networks without training have kinks everywhere: what moving the image by a millionth does to the model's own
    gradient is measured as well.

    Args:
        model: the original, whose own forward pass is made, in eval mode.
        view: what is held to it.
        images: in [0, 1].
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


def _answer(ask: Callable[[Tensor], Any], images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits and the gradient of a random sum of them, if there is one; random layers draw the same in every call."""
    leaf = images.clone().requires_grad_()
    with torch.enable_grad(), seeded(derive(0, "view"), images.device):
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
    """(B,) difference of two gradients in norm, as a share of the first one's; (1,) where one of them is missing."""
    if gradient is None or other is None:
        return torch.tensor([0.0 if gradient is other else float("inf")])
    norms = gradient.flatten(1).norm(dim=1)
    apart: Tensor = (other - gradient).flatten(1).norm(dim=1) / norms.clamp_min(1e-12)
    return apart


def sentence(form: Form, reasons: list[str]) -> str:
    """What attacks search on and why: each kind of reason once, that of the fast copy first."""
    kinds = {reason.partition(" (")[0]: reason for reason in reversed(reasons)}
    return (
        f"Attacks search on {SEARCHED_ON[form]}: the fast copy {'; another '.join(reversed(kinds.values()))}."
    )
