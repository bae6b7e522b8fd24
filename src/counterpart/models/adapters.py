"""Turns any model of images into a classifier: images in [0, 1] come in, logits (B, K) in float32 come out.

The model is judged as it is: nothing within it is changed. An adapter may stand before it, such as a
normalisation or a cast to another floating type. Another may stand behind it, to take the logits from a
larger output, or to make two classes of a single answer. Each adapter is named in a note to the user.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .modes import eval_mode
from .normalize import ImageClassifier

OutputPath = tuple[tuple[str, Any], ...]
"""The way from what a model returns to its logits, in steps ("attribute", name) or ("item", key)."""

SURE = 1e-6  # a probability counts as at least this, and at most 1 minus this, before its logit is taken
FAR = (1000.0, -1000.0)  # images are multiplied by these, so that no ordinary logit stays within [-1, 1]
REACHED = 0.99  # the share of its bound that a bounded output reaches on such images at the latest
ROUNDING = 1e-5  # how far rounding may carry an output beyond its bound


def as_classifier(
    model: nn.Module,
    images: Float[Tensor, "b c h w"],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> tuple[nn.Module, tuple[str, ...]]:
    """The model as a classifier of images in [0, 1], and a note for each adapter that this needs.

    - If ``mean`` or ``std`` is given, a normalisation stands before the model.
    - A model whose weights are float16, bfloat16 or float64 gets images of that type.
    - If the output is a tuple, a list, a dictionary or an object, its entry ``logits`` is taken, or else the
      first floating tensor of shape (B, K).
    - If there is one logit z for each image, (B, 1) or (B,), the logits of two classes are (0, z). Class 1 is
      then answered where z > 0.
    - If there is one probability p for each image, the second logit is the logit of p. A probability is
      recognised by never leaving [0, 1], whatever the images. It is held between ``SURE`` and 1 - ``SURE``
      first. This undoes the sigmoid, except where that was rounded to 0 or 1.

    Args:
        model: any network. It answers for ``images`` in eval mode, and its modes are put back.
        images: a few real images (B, C, H, W) in [0, 1], on the model's device.
        mean: one value for each channel that is subtracted from the images; 0 if only ``std`` is given.
        std: one value for each channel by which the images are divided then; 1 if only ``mean`` is given.

    Returns:
        The model itself if it needs no adapter, or else a module around it; and a note for each adapter.

    Raises:
        ValueError: the model is no module, its output holds no logits (B, K), or the normalisation does not
            fit the images.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"a model is a torch.nn.Module, got {type(model).__name__}: put it into the forward of a module."
        )
    if isinstance(model, ImageClassifier) and mean is None and std is None:
        return model, ()
    notes: list[str] = []
    normalise = None if mean is None and std is None else Normalise(images.shape[1], mean, std)
    if normalise is not None:
        normalise.to(images.device)
        notes.append(
            f"images are normalised with mean {_listed(normalise.mean)} and std {_listed(normalise.std)}."
        )
    kind = type_of(model)
    kind = None if kind == torch.float32 else kind
    if kind is not None:
        notes.append(
            f"the model computes in {_name(kind)}: images are cast to it, and its answers to float32."
        )

    adapted = Adapted(model, normalise, kind, (), "logits")
    output = _ask(adapted.output, model, images)
    path = find_logits(output, len(images))
    if path:
        notes.append(f"the model returns {_described(output)}: {_spelt(path)} is taken as its logits.")
    reading, logits = "logits", follow(output, path)
    if logits.ndim == 1 or logits.shape[1] == 1:
        adapted = Adapted(model, normalise, kind, path, "logits")
        limits = bounds(lambda x: _ask(adapted.logits, model, x), images)
        reading = "one probability" if limits == "[0, 1]" else "one logit"
        notes.append(ONE_ANSWER[reading])
    if normalise is None and kind is None and not path and reading == "logits":
        return model, ()
    classifier = Adapted(model, normalise, kind, path, reading)
    classifier.training = model.training
    return classifier, tuple(notes)


ONE_ANSWER = {
    "one logit": "the model answers with one logit z an image: it is judged as two classes of logits (0, z), where "
    "class 1 is z > 0.",
    "one probability": "the model answers with one probability an image: its logit makes two classes, where class 1 "
    "is a probability above 1/2. Where the sigmoid is rounded to 0 or 1 gradients vanish, and attacks that climb them "
    "find less: return what enters the sigmoid.",
}


class Normalise(nn.Module):
    """A layer that returns ``(images - mean) / std``, with one mean and one std for each channel.

    Args:
        channels: the number C of channels.
        mean: one value for each channel; None stands for 0.
        std: one value above 0 for each channel; None stands for 1.

    Raises:
        ValueError: there is not one number for each channel, or a ``std`` is not above 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        super().__init__()
        for name, values, default in (("mean", mean, 0.0), ("std", std, 1.0)):
            if isinstance(values, int | float):
                raise ValueError(f"{name} needs a list with one number for each channel, such as [{values}].")
            numbers = [default] * channels if values is None else [float(value) for value in values]
            if len(numbers) != channels or (name == "std" and min(numbers) <= 0):
                raise ValueError(
                    f"{name} needs a number for each of {channels} channels (std above 0), got {numbers}."
                )
            self.register_buffer(name, torch.tensor(numbers).view(-1, 1, 1))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The normalised images."""
        return (images - self.mean) / self.std


class Adapted(nn.Module):
    """A model with the adapters before and behind it, as ``as_classifier`` makes it.

    Args:
        model: the model of the user.
        normalise: the normalisation that comes first, or None for none.
        kind: the floating type of the images that the model takes; None leaves the images as they are.
        path: the way to the answers in the output of the model.
        reading: what the answers are: "logits", "one logit" or "one probability".
    """

    kind: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        normalise: nn.Module | None,
        kind: torch.dtype | None,
        path: OutputPath,
        reading: str,
    ) -> None:
        super().__init__()
        self.normalise, self.model = normalise, model
        self.path, self.reading = path, reading
        # The type is kept as a tensor, so that a cast of the whole module changes it as well.
        sample = None if kind is None else torch.zeros((), dtype=kind, device=next(_tensors(model)).device)
        self.register_buffer("kind", sample, persistent=False)

    def output(self, images: Float[Tensor, "b c h w"]) -> Any:
        """Everything that the model returns for images in [0, 1]."""
        normalised = images if self.normalise is None else self.normalise(images)
        return self.model(normalised if self.kind is None else normalised.type_as(self.kind))

    def logits(self, images: Float[Tensor, "b c h w"]) -> Tensor:
        """The part of the output that holds the answers, as the model gives them."""
        answers: Tensor = follow(self.output(images), self.path)
        return answers

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """The logits (B, K) in float32."""
        answers = self.logits(images).float()
        if self.reading == "logits":
            return answers
        z = answers.flatten()
        if self.reading == "one probability":
            z = torch.special.logit(z, eps=SURE)
        return torch.stack([torch.zeros_like(z), z], dim=1)


def type_of(model: Any) -> torch.dtype | None:
    """The type of a module's first floating parameter or buffer; None if it has none."""
    if isinstance(model, Adapted):
        return torch.float32  # it casts images for the model within
    return next((tensor.dtype for tensor in _tensors(model) if tensor.is_floating_point()), None)


def find_logits(output: Any, count: int) -> OutputPath:
    """The way to the logits of ``count`` images in an output.

    An entry ``logits`` comes first, then the first floating tensor (B, K) with K above 1. If there is
    neither, a tensor with one answer for each image, (B, 1) or (B,), is taken.

    Raises:
        ValueError: the output holds none of these.
    """
    if isinstance(output, Tensor) and _fits(output, count):
        return ()
    inside = [(path, tensor) for path, tensor in _tensors_in(output) if _fits(tensor, count)]
    named = [path for path, _ in inside if path[-1:] and path[-1][1] == "logits"]
    wide = [path for path, tensor in inside if tensor.ndim == 2 and tensor.shape[1] > 1]
    chosen = [*named, *wide, *(path for path, _ in inside)]
    if not chosen:
        raise ValueError(
            f"the model returns {_described(output)}; expected logits ({count}, K), K classes for each of {count} "
            "images."
        )
    return chosen[0]


def follow(output: Any, path: OutputPath) -> Any:
    """The part of an output that lies at a path of ``find_logits``."""
    for kind, key in path:
        output = getattr(output, key) if kind == "attribute" else output[key]
    return output


@torch.no_grad()
def bounds(ask: Callable[[Tensor], Tensor], images: Float[Tensor, "b c h w"]) -> str | None:
    """The interval that answers never leave, "[0, 1]" or "[-1, 1]"; None if there is no such bound.

    An interval counts as a bound only if answers also come close to one of its ends.

    Args:
        ask: a function from images to answers of any shape.
        images: some real images in [0, 1]. It is also called with multiples of them, far outside of [0, 1].
    """
    answers = [ask(images)]
    for factor in FAR:
        try:
            answers.append(ask(factor * images))
        except Exception:  # the model's own code may refuse such input in any way: then it is judged without
            continue
    everything = torch.cat([answer.float().flatten() for answer in answers])
    everything = everything[everything.isfinite()]
    if everything.numel() == 0:
        return None
    low, high = float(everything.min()), float(everything.max())
    if high > 1 + ROUNDING or low < -1 - ROUNDING or max(high, -low) < REACHED:
        return None
    return "[0, 1]" if low >= 0 else "[-1, 1]"


def _ask(forward: Callable[[Tensor], Any], model: nn.Module, images: Tensor) -> Any:
    """The result of a forward pass while the model is in eval mode, without gradients."""
    with torch.no_grad(), eval_mode(model):
        return forward(images)


def _tensors(model: Any) -> Iterator[Tensor]:
    """The parameters and buffers of a model, module by module in the order of their registration."""
    for module in model.modules() if isinstance(model, nn.Module) else ():
        yield from chain(module.parameters(recurse=False), module.buffers(recurse=False))


def _tensors_in(output: Any) -> Iterator[tuple[OutputPath, Tensor]]:
    """Every tensor of a nested output, with the path that leads to it."""
    if isinstance(output, Tensor):
        yield (), output
        return
    if isinstance(output, Mapping):
        steps: list[tuple[str, Any]] = [("item", key) for key in output]
    elif isinstance(output, Sequence) and not isinstance(output, str):
        steps = [("item", place) for place in range(len(output))]
    else:
        steps = [("attribute", name) for name in getattr(output, "__dict__", {})]
    for step in steps:
        for path, tensor in _tensors_in(follow(output, (step,))):
            yield (step, *path), tensor


def _fits(tensor: Tensor, count: int) -> bool:
    """Whether a tensor may be the answers for ``count`` images: floating, and (B,) or (B, K)."""
    return (
        tensor.is_floating_point() and tensor.ndim in (1, 2) and len(tensor) == count and tensor.numel() > 0
    )


def _described(output: Any) -> str:
    """The type of an output and the shapes of its tensors, in words."""
    shapes = ", ".join(str(tuple(tensor.shape)) for _, tensor in _tensors_in(output))
    if isinstance(output, Tensor):
        return f"a tensor {_name(output.dtype)} of shape {shapes}"
    return f"{type(output).__name__} of {shapes or 'no tensors'}"


def _spelt(path: OutputPath) -> str:
    """A path as Python code, such as "output.logits" or "output[0]"."""
    return "output" + "".join(f".{key}" if kind == "attribute" else f"[{key!r}]" for kind, key in path)


def _listed(values: Tensor) -> str:
    """Numbers in words, separated by commas."""
    return ", ".join(f"{value:.4g}" for value in values.flatten().tolist())


def _name(kind: torch.dtype) -> str:
    """The name of a type, such as "float16"."""
    return str(kind).removeprefix("torch.")
