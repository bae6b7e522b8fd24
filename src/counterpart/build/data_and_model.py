"""The images and the network of a configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..catalogue import find
from ..config import Config
from ..data.image_sets import ImageSet, Splits, balanced_subset
from ..data.labels import common_parts, keep_labels, relabelled, say_what_stays
from ..data.mask_files import with_masks
from ..data.shifts import shifted
from ..data.users_data import load_users_data
from ..errors import UserError
from ..models import create
from ..seeding import derive, seeded
from .benchmark import keep_to_benchmark, prepare_for_benchmark, protocol_of


def load_splits(
    config: Config,
    device: torch.device,
    masks_for: str | None = None,
    loaded: Splits | None = None,
    staying: Mapping[str, Sequence[str]] | None = None,
    **options: Any,
) -> Splits:
    """The three splits of the data set. A small data set lives on the device.

    ``options`` are passed on to the reader of the data set. ``masks_for`` names the split that needs the
    user's own masks, if the settings ``mask`` ask for them. ``loaded`` are images that a program holds, in
    place of the data set that the configuration names. ``staying`` are the parts that a trained model knows of
    each class; without them ``data.parts_min_share`` chooses by the training images.
    """
    data, protocol = config.data, protocol_of(config)
    if protocol is not None:
        options = prepare_for_benchmark(protocol, options)
    loaded = load_named(config, options) if loaded is None else loaded
    if protocol is not None:
        loaded = keep_to_benchmark(protocol, loaded, config)
    if masks_for is not None and config.mask.files is not None:
        loaded = with_masks(loaded, config.mask.files, masks_for)
    train = loaded.train if data.limit is None else balanced_subset(loaded.train, data.limit, seed=0)
    if train.parts is not None:
        train = keep_labels(train, data.labelled)
    validation, test = (shifted(split, data.shift) for split in (loaded.validation, loaded.test))
    notes = loaded.notes
    if data.parts_min_share == 0 or train.parts is None:
        staying = None
    else:
        staying = common_parts(train, data.parts_min_share) if staying is None else staying
        notes += (say_what_stays(train.parts.names, staying, data.parts_min_share),)
    splits = Splits(train, validation, test, notes).each(
        lambda split: relabelled(split, data.labels, staying)
    )
    splits = splits.each(lambda split: replace(split, workers=data.workers))
    return splits.each(lambda split: split if split.pixels is None else split.to(device))


def load_named(config: Config, options: Mapping[str, Any]) -> Splits:
    """The splits of the data set that the settings name, as its reader gives them."""
    data, entry = config.data, find("data", config.data.name)
    if not entry.inside:
        return load_users_data(entry, data.root, data.options or {}, validation=data.validation)
    arguments: dict[str, Any] = {"validation": data.validation, "size": data.size, "download": data.download}
    more = {"channels": data.channels, "fold": data.fold, "crop_to_parts": data.crop_to_parts}
    arguments |= {name: value for name, value in more.items() if value is not None}
    loaded: Splits = entry.load()(data.root, **{**arguments, **options})
    return loaded


def describe_model(config: Config, data: Splits) -> dict[str, Any]:
    """The description that is needed to rebuild the model of a run."""
    channels, height, _ = data.train.shape
    about: dict[str, Any] = {
        "name": config.model.name,
        "num_classes": len(data.train.classes),
        "width": config.model.width,
        "in_channels": channels,
        "image_size": height,
        **({} if config.model.patch_size is None else {"patch_size": config.model.patch_size}),
        **({} if config.model.options is None else {"options": config.model.options}),
    }
    if config.model.name.startswith("parts/"):
        owners = list_part_classes(data.train)
        if config.train.part_loss != "segmentation" and min(owners, default=0) < 0:
            raise UserError(
                f"train.part_loss {config.train.part_loss} needs parts that belong to one class each: use "
                "segmentation, or other data.labels."
            )
        about["parts"] = {"part_classes": owners, **config.model.part_options()}
    return about


def list_part_classes(images: ImageSet) -> list[int]:
    """The class of each part, from part 1 on.

    It is -1 for a part of several classes. Without parts the list is empty.
    """
    names = {} if images.parts is None else images.parts.names
    owners: dict[int, set[int]] = {}
    for name, parts in names.items():
        for number in parts.values():
            owners.setdefault(number, set()).add(images.classes.index(name))
    classes = [owners.get(number, set()) for number in range(1, max(owners, default=0) + 1)]
    return [next(iter(shared)) if len(shared) == 1 else -1 for shared in classes]


def build_model(about: Mapping[str, Any], seed: int, pretrained: bool = False) -> nn.Module:
    """A network, freshly initialised from the seed."""
    with seeded(derive(seed, "initialisation")):
        return create(**about, pretrained=pretrained)
