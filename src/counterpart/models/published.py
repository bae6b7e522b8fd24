"""Networks that others trained: a state dict, loaded strictly after a written list of differences.

The list was written from the published code of TRADES, MART, PART, RobustBench, DeepMind's networks in
PyTorch, fast adversarial training, and MadryLab's robustness library. What is not on it is an error.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..catalogue import PublishedModel, rows_named
from ..catalogue.models import NAMES
from ..errors import UserError
from ..seeding import seeded
from . import builder, create
from .hub import load_weights, read_file, unwrap
from .normalisations import check_name, set_normalisation
from .normalize import ImageClassifier
from .recognition import Shape, recognise

# What ``create`` takes for every network. Whatever else a file says of its network are options of this network alone.
SIZES = ("width", "in_channels", "image_size")

# Prefixes that are removed, repeatedly, where all names have them. They come from DataParallel, torch.compile, a
# wrapper's attribute, and nn.Sequential(network) or nn.Sequential(normalisation, network).
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.", "0.", "1.")

# Tensors that hold the normalisation, outermost first.
NORMALISERS = (
    ("mu", "sigma"),
    ("mean", "std"),
    ("0.mean", "0.std"),
    ("normalize.mean", "normalize.std"),
    ("normalizer.new_mean", "normalizer.new_std"),
)

# Beginnings of names that no forward pass uses. They are dropped if another name begins with the second word.
UNUSED = {
    "sub_block1.": "block1.",  # TRADES' wide network makes it and never calls it
    "attacker.": "model.",  # robustness keeps the network a second time within its attack
    "n_averaged": "module.",  # the counter of torch's averaged models
}


def load_published(
    architecture: str,
    file: Path,
    *,
    num_classes: int | None = None,
    normalisation: str | None = None,
    row: PublishedModel | None = None,
) -> tuple[ImageClassifier, list[str]]:
    """Load a classifier of images in [0, 1] in eval mode; and say in sentences what was decided on the way.

    Number of classes, width and channels are read from the file.

    Args:
        architecture: a name that ``models.create`` knows.
        file: a state dict, see ``hub.read_weights``.
        num_classes: classes of the data, if known; another number in the file is refused.
        normalisation: one of ``normalisations.NORMALISATIONS``, for files that do not say how they were trained.
        row: the published model that the file holds. By default the one that is called as the file is, if there is one
            with as many classes.

    Raises:
        UserError: the file is unreadable, fits another architecture, or has tensors too many or too few.
    """
    if not architecture.startswith("timm/"):
        builder(architecture)  # a wrong name is refused before a large file is read
    check_name(normalisation)
    if row is None and all(other.missing for other in rows_named(file.stem)):
        refuse_missing(rows_named(file.stem))
    content, _ = read_file(file)
    weights, notes = unwrap(content, file)
    weights, in_file, fronted, changes = _bare(weights, file)
    notes += changes
    _refuse_odd_values(weights, file)

    weights, renamed = _in_todays_names(weights, architecture)
    notes += renamed
    recognised = recognise(weights)
    if architecture.startswith("timm/") and (
        recognised is None or recognised.architectures[0].startswith("timm/")
    ):
        shape = _timm_shape(architecture, weights, file)
    else:
        shape = _checked(recognised, architecture, weights, file)
    row = row or _row_of(file, shape.num_classes)
    _refuse_another_form(row, architecture, file)
    if num_classes not in (None, shape.num_classes):
        raise UserError(
            f"{file} has {shape.num_classes} classes, the data has {num_classes}: they do not belong together."
        )
    if architecture.startswith("preact-resnet18") and row is None:
        notes.append(
            "no tensor says where shortcuts start: preact-resnet18 takes them after batch norm and ReLU (Rice et "
            "al.), preact-resnet18-fast before (Wong et al.)."
        )
    model = _build(architecture, shape)
    notes.append(set_normalisation(model, architecture, file, in_file, fronted, normalisation, row))
    counters = [name for name in model.backbone.state_dict() if name.endswith("num_batches_tracked")]  # type: ignore[attr-defined]
    missing = len([name for name in counters if name not in weights])
    if missing:
        notes.append(
            f"{missing} batch counters are missing and start at 0; nothing reads them in evaluation."
        )
    load_weights(model.backbone, weights, f"{file}, as {architecture},")  # type: ignore[arg-type]
    return model.eval(), notes


def _bare(
    weights: dict[str, Tensor], file: Path
) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor] | None, bool, list[str]]:
    """Strip a file's tensors down to those of the network.

    Returns:
        The tensors; mean and standard deviation of the normalisation, if the file holds one; True if every name began
        with ``1.``, which means that the normalisation was layer 0 of a Sequential and that the file lacks its numbers;
        and what was changed, in sentences.
    """
    in_file: tuple[Tensor, Tensor] | None = None
    fronted, changed, notes = False, True, []
    while changed:
        changed = False
        for pair in NORMALISERS:
            if pair[0] in weights and pair[1] in weights:
                if in_file is not None:
                    raise UserError(
                        f"{file} holds two normalisations, the second as {pair[0]} and {pair[1]}: expected one. "
                        "Use module:function."
                    )
                in_file = weights[pair[0]], weights[pair[1]]
                weights = {name: tensor for name, tensor in weights.items() if name not in pair}
                changed = True
        for unused, beside in UNUSED.items():
            dropped = [name for name in weights if name.startswith(unused)]
            if dropped and any(name.startswith(beside) for name in weights):
                weights = {name: tensor for name, tensor in weights.items() if name not in dropped}
                notes.append(f"{len(dropped)} tensors {unused}* are dropped: no forward pass uses them.")
                changed = True
        prefix = next((p for p in PREFIXES if weights and all(name.startswith(p) for name in weights)), None)
        if prefix:
            weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
            notes.append(f"the prefix {prefix} is removed.")
            fronted = fronted or prefix == "1."
            changed = True
    return weights, in_file, fronted and in_file is None, notes


def _refuse_odd_values(weights: Mapping[str, Tensor], file: Path) -> None:
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise UserError(f"{file} holds numbers that are not finite, in {name}: its training diverged.")


def _checked(recognised: Shape | None, architecture: str, weights: Mapping[str, Tensor], file: Path) -> Shape:
    """Return what was recognised, and refuse it if it is not what was asked for."""
    if recognised is None:
        first = ", ".join(list(weights)[:3])
        raise UserError(
            f"{file} fits no architecture that is known here: its names start with {first}. Known: "
            f"{', '.join(name for name in NAMES if not name.startswith('parts/'))}; for any other use module:function."
        )
    if architecture not in recognised.architectures:
        nearby = " or ".join(recognised.architectures)
        raise UserError(
            f"{file} holds {nearby}, by its names and shapes, not {architecture}. Did you mean "
            f"{recognised.architectures[0]}@{file}?"
        )
    return recognised


def _row_of(file: Path, classes: int) -> PublishedModel | None:
    """The published model that is called as a file is, with as many classes; None where there is none."""
    rows = [row for row in rows_named(file.stem) if row.classes == classes]
    if rows and all(row.missing for row in rows):
        refuse_missing(rows)
    return next((row for row in rows if row.network), None)


def refuse_missing(rows: Sequence[PublishedModel]) -> None:
    """Refuse a published model whose network is not here. Without rows nothing is refused.

    Raises:
        UserError: it names the network, and says what to do.
    """
    if rows:
        raise UserError(
            f"{rows[0].name} is {rows[0].missing}, which no network here is. Write a function that returns it and use "
            "module:function."
        )


def _refuse_another_form(row: PublishedModel | None, architecture: str, file: Path) -> None:
    """Refuse the one pair of networks that no tensor tells apart, where the model is known to be the other."""
    pair = {"preact-resnet18", "preact-resnet18-fast"}
    if row is not None and {row.network, architecture} == pair:
        where = "before" if row.network == "preact-resnet18-fast" else "after"
        raise UserError(f"{row.name} starts its shortcuts {where} batch norm: use {row.network}@{file}.")


def _in_todays_names(weights: dict[str, Tensor], architecture: str) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a Swin transformer under today's names of timm, if they have those from before its version 0.9.

    There a stage ended with what now begins the next one, the final layer was called ``head``, and two buffers that
    follow from the size of the windows were stored.
    """
    if not architecture.startswith("timm/swin_") or "layers.0.downsample.reduction.weight" not in weights:
        return weights, []
    renamed = {}
    for name, tensor in weights.items():
        if name.endswith(("attn_mask", "relative_position_index")):
            continue
        stage = re.match(r"layers\.(\d+)\.downsample\.", name)
        if stage:
            name = f"layers.{int(stage[1]) + 1}.downsample.{name[stage.end() :]}"
        renamed[name.replace("head.", "head.fc.", 1) if name.startswith("head.") else name] = tensor
    return renamed, ["tensors have the names of timm before 0.9, and get those of today."]


def _timm_shape(architecture: str, weights: Mapping[str, Tensor], file: Path) -> Shape:
    """The number of classes and of channels, read off the network's first and final layer."""
    from . import backbones

    size = backbones.preprocessing(architecture).crop
    with torch.device("meta"):
        plan = backbones.create(architecture, backbones.outputs(architecture), 3, size, pretrained=False)
    last = next(iter(plan.get_classifier().parameters()))
    names = {name: parameter for name, parameter in plan.backbone.named_parameters()}  # type: ignore[attr-defined]
    head = next(name for name, parameter in names.items() if parameter is last)
    stem = next((name for name, parameter in names.items() if parameter.ndim == 4), None)
    if head not in weights:
        raise UserError(
            f"{file} does not fit {architecture}: missing {head}; its names start with "
            f"{', '.join(list(weights)[:3])}."
        )
    channels = weights[stem].shape[1] if stem and stem in weights and weights[stem].ndim == 4 else 3
    return Shape((architecture,), weights[head].shape[0], {"in_channels": channels, "image_size": size})


def _build(architecture: str, shape: Shape) -> ImageClassifier:
    about: dict[str, Any] = {"name": architecture, "num_classes": shape.num_classes}
    more: dict[str, Any] = {}
    for name, value in shape.options.items():
        (about if name in SIZES else more)[name] = value
    if more:
        about["options"] = more
    with seeded(0):  # every weight is replaced; torch's generator stays as it was
        model = create(**about)
    assert isinstance(model, ImageClassifier)
    return model
