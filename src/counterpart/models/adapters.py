"""Whatever classifies images, as a classifier: images in [0, 1] in, logits (B, K) in float32 out.

Judged is the model as it is. An adapter stands before it (normalisation, another floating type) or behind it (which
part of its output holds the logits, two classes of a single one), never within it, and each is named in a note.
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
"""How to get from what a model returns to its logits: steps of ("attribute", name) or ("item", key)."""

SURE = 1e-6  # a probability counts as at least this, and at most 1 minus this, before its logit is taken
FAR = (1000.0, -1000.0)  # images times these, where no honest logit stays within 1
REACHED = 0.99  # share of a bound that a bounded output comes to, on such images at the latest
ROUNDING = 1e-5


def as_classifier(
    model: nn.Module,
    images: Float[Tensor, "b c h w"],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> tuple[nn.Module, tuple[str, ...]]:
    """The model as a classifier of images in [0, 1], and what was made of it, in sentences.

    - ``mean`` and ``std`` put a normalisation before it.
    - A model whose weights are float16, bfloat16 or float64 gets images of that type.
    - Of an output that is a tuple, a list, a dictionary or an object, ``logits`` are taken, or else the first floating
      tensor (B, K).
    - One logit z for each image, (B, 1) or (B,), becomes the logits (0, z) of two classes: class 1 is z > 0. One
      probability p, which is recognised by never leaving [0, 1] whatever the images, becomes the logit of p, held
      between ``SURE`` and 1 - ``SURE``: that undoes the sigmoid, except where it was rounded to 0 or 1.

    Args:
        model: any network; it is asked about ``images`` in eval mode, and its modes are put back.
        images: a few real ones in [0, 1], on the model's device.
        mean: one value for each channel, subtracted from the images; with ``std`` alone: 0.
        std: one value for each channel, by which they are divided then; with ``mean`` alone: 1.

    Returns:
        The model itself where nothing stands before or behind it, else a module around it; and a note for each thing
        that does.

    Raises:
        ValueError: no module, no logits (B, K) in what it returns, or a normalisation that does not fit the images.
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
    made = Adapted(model, normalise, kind, path, reading)
    made.training = model.training
    return made, tuple(notes)


ONE_ANSWER = {
    "one logit": "the model answers with one logit z an image: it is judged as two classes of logits (0, z), where "
    "class 1 is z > 0.",
    "one probability": "the model answers with one probability an image: its logit makes two classes, where class 1 "
    "is a probability above 1/2. Where the sigmoid is rounded to 0 or 1 gradients vanish, and attacks that climb them "
    "find less: return what enters the sigmoid.",
}


class Normalise(nn.Module):
    """``(images - mean) / std``, each (C, 1, 1).

    Args:
        channels: C.
        mean: one value for each channel. None: 0.
        std: one value for each channel. None: 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        super().__init__()
        for name, values, default in (("mean", mean, 0.0), ("std", std, 1.0)):
            if isinstance(values, int | float):
                raise ValueError(f"{name} needs a list of a number for each channel, such as [{values}].")
            numbers = [default] * channels if values is None else [float(value) for value in values]
            if len(numbers) != channels or (name == "std" and min(numbers) <= 0):
                raise ValueError(
                    f"{name} needs a number for each of {channels} channels (std above 0), got {numbers}."
                )
            self.register_buffer(name, torch.tensor(numbers).view(-1, 1, 1))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalised images."""
        return (images - self.mean) / self.std


class Adapted(nn.Module):
    """A model and what stands before and behind it; made by ``as_classifier``.

    Args:
        model: the user's.
        normalise: what comes first.
        kind: the floating type that the model wants. None: that of the images.
        path: where its output holds the answers.
        reading: what they are: "logits", "one logit" or "one probability".
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
        # A tensor, so that whoever makes the same network of another type takes the images along.
        sample = None if kind is None else torch.zeros((), dtype=kind, device=next(_tensors(model)).device)
        self.register_buffer("kind", sample, persistent=False)

    def output(self, images: Float[Tensor, "b c h w"]) -> Any:
        """Whatever the model returns."""
        normalised = images if self.normalise is None else self.normalise(images)
        return self.model(normalised if self.kind is None else normalised.type_as(self.kind))

    def logits(self, images: Float[Tensor, "b c h w"]) -> Tensor:
        """What its output holds in the place of logits."""
        answers: Tensor = follow(self.output(images), self.path)
        return answers

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Logits in float32."""
        answers = self.logits(images).float()
        if self.reading == "logits":
            return answers
        z = answers.flatten()
        if self.reading == "one probability":
            z = torch.special.logit(z, eps=SURE)
        return torch.stack([torch.zeros_like(z), z], dim=1)


def type_of(model: Any) -> torch.dtype | None:
    """The floating type of a module's first parameter or buffer, which images meet first; None if it has none."""
    if isinstance(model, Adapted):
        return torch.float32  # it sees to what is within
    return next((tensor.dtype for tensor in _tensors(model) if tensor.is_floating_point()), None)


def find_logits(output: Any, count: int) -> OutputPath:
    """Where an output holds logits of ``count`` images: ``.logits``, else its first floating tensor (B, K).

    Where there is none of these, one answer for each image, (B, 1) or (B,), will do.

    Raises:
        ValueError: there is neither.
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
    """What lies at a path of ``find_logits``."""
    for kind, key in path:
        output = getattr(output, key) if kind == "attribute" else output[key]
    return output


@torch.no_grad()
def bounds(ask: Callable[[Tensor], Tensor], images: Float[Tensor, "b c h w"]) -> str | None:
    """ "[0, 1]" or "[-1, 1]" where answers reach that far and never leave it, whatever the images; else None.

    Args:
        ask: images -> answers of any shape.
        images: real ones; multiples of them, far outside of [0, 1], are asked about as well.
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
    with torch.no_grad(), eval_mode(model):
        return forward(images)


def _tensors(model: Any) -> Iterator[Tensor]:
    """Parameters and buffers, module by module in the order of their registration."""
    for module in model.modules() if isinstance(model, nn.Module) else ():
        yield from chain(module.parameters(recurse=False), module.buffers(recurse=False))


def _tensors_in(output: Any) -> Iterator[tuple[OutputPath, Tensor]]:
    """Every tensor of a nested output, with the way there."""
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
    return (
        tensor.is_floating_point() and tensor.ndim in (1, 2) and len(tensor) == count and tensor.numel() > 0
    )


def _described(output: Any) -> str:
    """An output's type and the shapes in it."""
    shapes = ", ".join(str(tuple(tensor.shape)) for _, tensor in _tensors_in(output))
    if isinstance(output, Tensor):
        return f"a tensor {_name(output.dtype)} of shape {shapes}"
    return f"{type(output).__name__} of {shapes or 'no tensors'}"


def _spelt(path: OutputPath) -> str:
    return "output" + "".join(f".{key}" if kind == "attribute" else f"[{key!r}]" for kind, key in path)


def _listed(values: Tensor) -> str:
    return ", ".join(f"{value:.4g}" for value in values.flatten().tolist())


def _name(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")
