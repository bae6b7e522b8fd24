"""What commands judge: a model, the images that it is judged on, and where results go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import build
from ..catalogue.published import CLASSES
from ..config import Config
from ..data.class_map import restated
from ..data.image_sets import ImageSet, Splits
from ..errors import UserError
from ..evaluation.model_checks import Doubt, data_doubts
from ..progress import stage
from ..rundir import RunDir
from ..training import checkpoint


@dataclass(frozen=True)
class ClassMap:
    """How a model answers for data of other classes (``data.class_map``).

    Attributes:
        answers: the number of the answer of each class of the data; None where a class is left out.
        groups: the outputs that make up each answer; None where no outputs are merged.
        unmerged: the model whose outputs these are.
    """

    answers: Mapping[str, int | None]
    groups: Sequence[Sequence[int]] | None
    unmerged: nn.Module


@dataclass(frozen=True)
class Target:
    """A model, the images that it is to be judged on, and the folder that results go into.

    Attributes:
        text: the text by which the user named the target.
        run: the run folder.
        config: the configuration of the run, with the changes of the command line.
        model: the network, in eval mode, on its device.
        classes: the number of classes that the model answers with.
        images: the images of the whole split.
        device: the device that the model lies on.
        who: the facts that records give: the hash of the configuration, which weights, and the method's name.
        notes: sentences that everyone who reads the numbers should know.
        doubts: the doubts about the images.
        has_folder: whether results go into the run's folder; otherwise nothing is written.
        about: what identifies a model that is an object of a program, beside its weights.
        first_logits: (F, K) the logits of the first images, by which such a model is recognised.
        header: what the header of the model's checkpoint says of it; None where it comes from elsewhere.
        class_map: how it answers for data of other classes, where the settings say so.
    """

    text: str
    run: RunDir
    config: Config
    model: nn.Module
    classes: int
    images: ImageSet
    device: torch.device
    who: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    has_folder: bool = True
    about: Mapping[str, Any] | None = None
    first_logits: Tensor | None = None
    header: Mapping[str, Any] | None = None
    class_map: ClassMap | None = None

    @property
    def data(self) -> str:
        """The name that records give the images. Images in two folders are two data sets."""
        root, (name, *changes) = self.config.data.root, self.images.name.split(" ")
        return (
            self.images.name
            if root is None or name != "folder"
            else " ".join([name, root.resolve().name, *changes])
        )


def images_to_judge(
    config: Config, device: torch.device, trained_on: str | None, **options: Any
) -> tuple[ImageSet, tuple[Doubt, ...], tuple[str, ...]]:
    """The images to judge on, doubts about them, and notes on how they were chosen.

    A folder without split folders is judged as a whole by a model that never saw it.
    """
    if config.data.name == "folder":
        options["trained_on"] = trained_on if config.data.split_of is None else None
    masks_for = None if config.evaluate.eps_low is None else config.evaluate.split
    with stage(f"reading {config.data.name}"):
        data = build.load_splits(config, device, masks_for, **options)
    if config.data.split_of is not None:
        _check_same_files(config.data.split_of, data)
    images = data.test if config.evaluate.split == "test" else data.validation
    if config.evaluate.split == "validation" and config.data.validation == 0 and len(images) == 0:
        raise UserError(
            "evaluate.split validation: with data.validation 0 no image was set aside. Judge the test split."
        )
    return images, tuple(data_doubts(images, data.train)), data.notes


def class_map_of(
    config: Config,
    classes: Sequence[str],
    outputs: Sequence[str],
    groups: Sequence[Sequence[int]] | None,
    model: nn.Module,
) -> ClassMap | None:
    """The class map that the settings ask for; None where they ask for none.

    Args:
        config: the settings.
        classes: those of the data, before they are mapped.
        outputs: the name of each output of the model.
        groups: the outputs that make up each answer, where some are merged.
        model: the model as it is.
    """
    asked = config.data.class_map
    return None if asked is None else ClassMap(restated(classes, asked, outputs), groups, model)


def _check_same_files(path: Path, data: Splits) -> None:
    """Refuse images that differ from those that a run learned from and is judged on."""
    best = RunDir(path).checkpoint("best")
    if not best.exists():
        raise UserError(f"data.split_of: {best} is missing: {path} has not finished an epoch yet.")
    known = checkpoint.read_about(best).get("fingerprint")
    if data.test.fingerprint != known:
        raise UserError(
            f"data.split_of: the images ({data.test.fingerprint}) are not those of {path} ({known}): they were "
            "changed, or --data.root names others."
        )


def refuse_other_classes(config: Config, text: str, classes: int) -> None:
    """Refuse a model that answers with another number of classes than the benchmark whose protocol is followed."""
    protocol = build.protocol_of(config)
    if protocol is not None and classes != (wanted := CLASSES[protocol.facts.data]):
        raise UserError(
            f"protocol {protocol.key} is of {protocol.facts.data} and its {wanted:,} classes, and {text} answers with "
            f"{classes:,}."
        )
