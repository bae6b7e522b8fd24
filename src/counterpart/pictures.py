"""The pictures that an evaluation keeps for its report; only this module knows the layout of their file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int16

from .checksums import check_tensors, save_tensors
from .errors import UserError
from .parsing import parse_json
from .parsing.limits import refuse_large
from .rundir import write_atomically


@dataclass(frozen=True)
class Pictures:
    """Some images of an evaluation and the answers of the model: arrays of M images, and lists of M entries.

    Their file is a safetensors file. Each array is a tensor of the same name, and everything else is JSON in
    the header.

    Attributes:
        clean: the clean images (M, C, H, W), in [0, 1].
        adversarial: the same images under attack (M, C, H, W), in [0, 1].
        radius: how far the training rule lets each pixel (M, H, W) move, in the unit of the images.
        labels: the numbers of the true classes.
        index: the indices of the images in their data set.
        clean_predictions, adversarial_predictions: the numbers of the classes that the model answers for
            clean and for attacked images.
        confidences_clean, confidences_adversarial: the probabilities in [0, 1] that it gives to these
            classes.
        classes: the names of all classes.
        eps: the radius of the attack's budget on the first image.
        importance: the importance maps (M, u, v) that the rule draws its masks from, or None if it uses none.
        importance_adversarial: the same maps of the attacked images.
        parts, parts_adversarial: the part ids (M, H, W) that a part model finds in clean and in attacked
            images, or None for other models.
        parts_true: the annotated part ids (M, H, W), or None if there are none.
        part_names: the names of the parts, the background first.
        annotated: whether each image has annotated parts.
        fooled_by: the name of the attack that fooled the model first on each image; "" where it stood, or was wrong
            from the start. None in older files.
    """

    clean: Float[np.ndarray, "m c h w"]
    adversarial: Float[np.ndarray, "m c h w"]
    radius: Float[np.ndarray, "m h w"]
    labels: Sequence[int]
    index: Sequence[int]
    clean_predictions: Sequence[int]
    adversarial_predictions: Sequence[int]
    confidences_clean: Sequence[float]
    confidences_adversarial: Sequence[float]
    classes: Sequence[str]
    eps: float
    importance: Float[np.ndarray, "m u v"] | None = None
    parts: Int16[np.ndarray, "m h w"] | None = None
    parts_adversarial: Int16[np.ndarray, "m h w"] | None = None
    parts_true: Int16[np.ndarray, "m h w"] | None = None
    part_names: Sequence[str] | None = None
    annotated: Sequence[bool] | None = None
    importance_adversarial: Float[np.ndarray, "m u v"] | None = None
    fooled_by: Sequence[str] | None = None

    def write(self, path: Path) -> None:
        """Write the file. Where that fails, an earlier file stays as it was."""
        entries = {name: value for name, value in vars(self).items() if value is not None}
        tensors = {name: np.ascontiguousarray(value) for name, value in entries.items() if name in TENSORS}
        header = {name: json.dumps(value) for name, value in entries.items() if name not in TENSORS}
        write_atomically(path, lambda temporary: save_tensors(tensors, temporary, header, "numpy"))

    @classmethod
    def read(cls, path: Path) -> "Pictures":
        """The pictures of a file. Entries that it holds beyond them are passed over.

        Raises:
            UserError: the file cannot be read or is damaged, or its tensors and lists do not fit together.
        """
        from safetensors import SafetensorError, safe_open

        names = [field.name for field in fields(cls)]
        entries: dict[str, Any] = {}
        try:
            refuse_large(path, "WEIGHTS")
            check_tensors(path)
            with safe_open(path, framework="numpy") as file:
                present, header = set(file.keys()), file.metadata() or {}
                for name in names:
                    if name in TENSORS and name in present:
                        entries[name] = file.get_tensor(name)
            for name in names:
                if name in header and name not in TENSORS:
                    entries[name] = parse_json(header[name])
            _check(entries)
        except (SafetensorError, OSError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{path} is damaged or holds no pictures of an evaluation: {reason}. Delete it and evaluate again."
            ) from error
        return cls(**entries)


TENSORS = (
    "clean", "adversarial", "radius", "importance", "importance_adversarial", "parts", "parts_adversarial",
    "parts_true",
)  # fmt: skip
_OF_PARTS = ("parts", "parts_adversarial", "parts_true")
_CLASSES_OF_IMAGES = ("labels", "clean_predictions", "adversarial_predictions")
_CONFIDENCES = ("confidences_clean", "confidences_adversarial")
_LISTS = (*_CLASSES_OF_IMAGES, *_CONFIDENCES, "index", "annotated", "fooled_by")


def _check(entries: Mapping[str, Any]) -> None:
    """Refuse entries of a file that a reader could not use.

    Raises:
        ValueError: an entry is missing, or does not fit the others.
    """
    for field in fields(Pictures):
        if field.default is MISSING and field.name not in entries:
            raise ValueError(f"{field.name} is missing")
    if "parts_true" in entries and "annotated" not in entries:
        raise ValueError("parts_true is there and annotated is missing")
    _check_shapes(entries)
    for name in _LISTS:
        values = entries.get(name, [None] * len(entries["clean"]))
        if not isinstance(values, list) or len(values) != len(entries["clean"]):
            raise ValueError(f"{name} is not a list of {len(entries['clean'])}, an entry for each image")
    for name in ("classes", "part_names"):
        if not isinstance(entries.get(name, []), list):
            raise ValueError(f"{name} is not a list of names")
    for name in _CONFIDENCES:
        if not all(isinstance(confidence, int | float) for confidence in entries[name]):
            raise ValueError(f"{name} holds something else than numbers")
    for name in _CLASSES_OF_IMAGES:
        _check_ids("class", entries[name], entries["classes"])
    for name in _OF_PARTS:
        if name in entries:
            _check_ids("part", np.unique(entries[name]).tolist(), entries.get("part_names", []))


def _check_shapes(entries: Mapping[str, Any]) -> None:
    """Refuse arrays whose shapes do not fit together."""
    if entries["clean"].ndim != 4:
        raise ValueError(
            f"clean has shape {entries['clean'].shape} instead of (images, channels, height, width)"
        )
    count, _, height, width = entries["clean"].shape
    planes = (count, height, width)
    wanted = {"adversarial": entries["clean"].shape, "radius": planes, **dict.fromkeys(_OF_PARTS, planes)}
    for name, shape in wanted.items():
        if name in entries and entries[name].shape != shape:
            raise ValueError(f"{name} has shape {entries[name].shape} instead of {shape}")
    for name in ("clean", "adversarial", "radius", "importance", "importance_adversarial"):
        if name in entries and not (entries[name].dtype.kind == "f" and np.isfinite(entries[name]).all()):
            raise ValueError(f"{name} holds something else than finite numbers")
    for name in ("importance", "importance_adversarial"):
        maps = entries.get(name, entries["radius"])
        if (maps.ndim, len(maps)) != (3, count):
            raise ValueError(f"{name} has shape {maps.shape}, and there are {count} images")


def _check_ids(what: str, ids: Sequence[object], names: Sequence[str]) -> None:
    """Refuse numbers of classes or parts that have no name."""
    for number in ids:
        if not isinstance(number, int) or not 0 <= number < len(names):
            raise ValueError(f"{what} {number} is none of the {len(names)} that are named")
