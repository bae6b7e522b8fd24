"""The encoder of a part model, or of its baseline, from weights on the disk: whose names they have, and what fits."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from posixpath import commonpath

import timm
import torch
from torch import Tensor

from ..errors import UserError
from .hub import differing_shapes, head_names, optional
from .lookalikes import say_what_it_looks_like
from .normalize import ImageClassifier
from .part_model import classifier_name

# The modules in which classifiers of torchvision and of segmentation-models-pytorch keep their final layers.
HEADS = frozenset({"fc", "classifier", "head", "heads", "last_linear", "_fc", "_conv_head", "_bn1"})


@dataclass(frozen=True)
class Fit:
    """Which tensors of a file belong to an encoder.

    Attributes:
        tensors: those that found their place, by their name in the model.
        others: the names of those that did not.
        prefix: what the file writes before the encoder's own names, such as ``module.``.
    """

    tensors: dict[str, Tensor]
    others: list[str]
    prefix: str


def start_encoder_from(
    model: ImageClassifier, weights: Mapping[str, Tensor], source: str, encoder: str
) -> str:
    """Start an encoder from these weights, and leave everything else of the model as it is.

    The weights may be a classifier of timm or torchvision, a bare encoder, or a run of this project, under whatever
    prefix. A classifier's head is left out. Every other tensor must find its place, and every place its tensor. Mean
    and standard deviation by which images are normalised come along where the file has them.

    Args:
        model: a part model, or the classifier of the same encoder.
        weights: by name.
        source: names the weights in errors.
        encoder: the encoder's name in the settings.

    Returns:
        A sentence that counts what fitted and names what was left out.

    Raises:
        UserError: a tensor has no place, a place has no tensor, or a number is not finite. Nothing was loaded.
    """
    expected = model.encoder_tensors()
    fit = _fit(expected, weights)
    final_layer = {_flat(name.removeprefix("backbone.")) for name in head_names(model)}
    if problem := _first_misfit(expected, fit, encoder, final_layer):
        fitted, needed = _count_fitting(expected, fit)
        looks = say_what_it_looks_like(weights, encoder)
        raise UserError(
            f"{source} does not fit the encoder {encoder}: {fitted} of {needed} tensors fitted; {problem}.{looks}"
        )
    broken = [name for name, tensor in fit.tensors.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise UserError(f"{source} is damaged: {broken[0]} holds numbers that are not finite.")
    normalisation = _normalisation(model, weights)
    model.load_state_dict({**model.state_dict(), **fit.tensors, **normalisation})
    fitted, needed = _count_fitting(expected, fit)
    modules = sorted({_module(name, fit.prefix) for name in fit.others if name not in normalisation})
    dropped = f"; left out: {', '.join(modules)}" if modules else ""
    return f"the encoder {encoder} starts from {source}: {fitted} of {needed} tensors fitted{dropped}."


def _fit(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Fit:
    """Find the prefix under which most of a file's names are the encoder's, and pair them."""
    shared = _shared_prefix(expected)
    places = {_flat(name.removeprefix(shared)): name for name in expected}
    prefixes: Counter[str] = Counter()
    for name in weights:
        prefixes.update(name[:start] for start in _starts(name) if _flat(name[start:]) in places)
    prefix = min(prefixes, key=lambda text: (-prefixes[text], len(text)), default="")
    tensors, others = {}, []
    for name, tensor in weights.items():
        place = places.get(_flat(name.removeprefix(prefix))) if name.startswith(prefix) else None
        if place is None:
            others.append(name)
        else:
            tensors[place] = tensor
    return Fit(tensors, others, prefix)


def _count_fitting(expected: Mapping[str, Tensor], fit: Fit) -> tuple[int, int]:
    """How many tensors of an encoder a file has in the right shape, and how many there are."""
    needed = [name for name in expected if not optional(name)]
    wrong = set(differing_shapes(expected, fit.tensors))
    return sum(name in fit.tensors and name not in wrong for name in needed), len(needed)


def _first_misfit(
    expected: Mapping[str, Tensor], fit: Fit, encoder: str, final_layer: set[str]
) -> str | None:
    """Say which tensor is the first to have another shape, to be missing, or to be one too many.

    The final layer of a classifier is none too many, even if it lies in a module that the encoder has.
    """
    shared = _shared_prefix(expected)
    for name in differing_shapes(expected, fit.tensors):
        theirs, ours = tuple(fit.tensors[name].shape), tuple(expected[name].shape)
        said = f"{name.removeprefix(shared)} has shape {theirs} there and {ours} here"
        if len(theirs) == 4 and theirs[:1] + theirs[2:] == ours[:1] + ours[2:]:
            said += f", for images of {theirs[1]} channels instead of {ours[1]}"
        return said
    for name in expected:
        if name not in fit.tensors and not optional(name):
            return f"the file has no {name.removeprefix(shared)}"
    stages = tuple({_flat(name.removeprefix(shared).partition(".")[0]) + "_" for name in expected})
    allowed = _modules_of_classifier(encoder)
    for name in fit.others:
        rest = name.removeprefix(fit.prefix)
        if _flat(rest) in final_layer:
            continue
        beside = not name.startswith(fit.prefix) or rest.partition(".")[0] in allowed
        if _flat(rest).startswith(stages) or not beside:
            return f"the encoder has no {rest}"
    return None


def _modules_of_classifier(encoder: str) -> frozenset[str]:
    """The modules that a file may hold beside the encoder: those of the classifier that it belongs to."""
    if not timm.is_model(classifier_name(encoder)):
        return HEADS
    with torch.device("meta"):
        classifier = timm.create_model(classifier_name(encoder))
    return HEADS | {name.partition(".")[0] for name in classifier.state_dict()}


def _normalisation(model: ImageClassifier, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean and standard deviation that a run of this project was trained under."""
    same = {name: weights[name] for name in ("mean", "std") if name in weights}
    return {name: tensor for name, tensor in same.items() if tensor.shape == getattr(model, name).shape}


def _shared_prefix(names: Iterable[str]) -> str:
    """The modules that all names lie in."""
    shared = commonpath([name.replace(".", "/") for name in names])
    return f"{shared.replace('/', '.')}." if shared else ""


def _starts(name: str) -> list[int]:
    """Where the name of a tensor may begin behind a prefix."""
    return [0] + [place + 1 for place, letter in enumerate(name) if letter == "."]


def _flat(name: str) -> str:
    """A name without levels: an encoder of timm writes ``stages_0.blocks``, its classifier ``stages.0.blocks``."""
    return name.replace(".", "_")


def _module(name: str, prefix: str) -> str:
    """The module that a tensor lies in, behind the prefix."""
    return name.removeprefix(prefix).partition(".")[0]
