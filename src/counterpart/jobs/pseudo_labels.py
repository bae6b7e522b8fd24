"""Copies of a folder of images, with part masks that a trained segmenter predicts where there were none.

Sitawarin et al. 2023, section 5.3 and appendix D.6.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from .. import build, devices, locks, progress
from ..checksums import to_json
from ..config import resolve
from ..contracts import PartModel
from ..data.decoding import decode, header_size
from ..data.folds import photographs_of
from ..data.image_sets import Splits
from ..data.parts_folder import IMAGES, TABLE, mask_of
from ..data.staging import (
    LOCK,
    MANIFEST,
    STAGE,
    as_png,
    open_journal,
    prepared_with,
    read_lines,
    refuse_other,
    write_whole,
)
from ..data.transforms import as_floats
from ..errors import UserError
from ..evaluation.weights import weights_hash
from ..parsing import read_json
from ..part_maps import predicted_parts
from ..rundir import RunDir, write_atomically
from .stored_models import load_run

ANNOTATED, PREDICTED, UNSURE, WITHOUT = "annotated", "predicted", "too unsure", "without a mask"
BATCH = 32
NEVER = -1e4  # a logit so low that its share in a softmax is 0


@dataclass(frozen=True)
class PseudoLabelled:
    """A complete folder, and the number of its images of each kind (``ANNOTATED``, ...)."""

    target: Path
    counts: Mapping[str, int]


@dataclass(frozen=True)
class _Item:
    """An image, its class, its kind (its mask is known, is to be predicted, or stays missing), and its photograph."""

    image: Path
    label: int
    kind: str
    photograph: str


def pseudo_label(
    segmenter: str, target: Path, *, confidence: float = 0.0, changes: Mapping[str, Any] | None = None
) -> PseudoLabelled:
    """A copy of the folder that a segmenter was trained on, with masks for training images without any.

    The training images whose part labels the segmenter learned from keep these labels. Where
    ``data.labelled`` is below 1, they are fewer than the images that have a mask in the source. A prediction
    uses the class of the image: only the parts of that class and the background enter the softmax. As in the
    published code, images are resized to squares for the prediction, and masks are resized back by the
    nearest pixel. Validation and test images keep the masks that they have.

    Differs from the published code in that its softmax over parts still holds the other classes' share.

    Args:
        segmenter: the run folder of a part model, of which the best weights are used.
        target: the folder to write: a new or empty one, or one that an earlier such call began and this one
            completes.
        confidence: the least confidence of a mask, in [0, 1]: the mean over pixels of the largest share in
            the softmax. An image below it gets no mask.
        changes: nested settings that differ from the run's, such as {"data": {"root": ...}}.

    Raises:
        UserError: the run is no part model on such a folder, the target holds something else, or a file is damaged.
            The work that is done stays, and the same call goes on from there.
    """
    run = RunDir(Path(segmenter).expanduser())
    model, about = load_run(run, "best")
    config = resolve(run.config(), changes or {}, source=str(run.path))
    if not isinstance(model, PartModel):
        raise UserError(f"{run.path} holds {config.model.name}, which finds no parts. Train a part model.")
    if config.data.name != "parts" or config.data.root is None:
        raise UserError(
            f"{run.path} was trained on {config.data.name}: pseudo-labels are for folders (data.name parts)."
        )
    for name, usual in (
        ("labels", "parts"),
        ("limit", None),
        ("parts_min_share", 0),
        ("crop_to_parts", None),
    ):
        if (value := getattr(config.data, name)) != usual:
            raise UserError(
                f"{run.path} was trained with data.{name} {value}: train a segmenter without that setting."
            )
    root = config.data.root
    if target.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{target} lies within {root}, the folder that is copied: name another --target.")
    device = devices.resolve(config.device, config.threads)
    data = build.load_splits(config, torch.device("cpu"))
    owners = build.list_part_classes(data.train)
    if owners != model.part_classes.tolist() or list(data.train.classes) != about["classes"]:
        raise UserError(f"{root} has other classes or parts than {run.path} was trained on.")
    preparation = {
        "preparation": "pseudo-labels",
        "segmenter": weights_hash(model),
        "confidence": confidence,
        "source": data.train.fingerprint,
    }
    predict = partial(_predict, model.to(device).eval(), owners, about["model"]["image_size"], device)
    if not (target / MANIFEST).exists():
        with locks.hold(target / LOCK, f"the preparation of {target}", config.wait):
            # Another process may have written it while this one waited.
            if not (target / MANIFEST).exists():
                return _predict_all(data, root, target, preparation, predict, confidence)
    refuse_other(target, preparation, prepared_with(target))
    shutil.rmtree(target / STAGE, ignore_errors=True)
    (target / LOCK).unlink(missing_ok=True)
    return _summary(target)


def _predict_all(
    data: Splits,
    root: Path,
    target: Path,
    preparation: Mapping[str, Any],
    predict: Any,
    confidence: float,
) -> PseudoLabelled:
    """Copy the images that the journal lacks, predict their masks, and finish the folder."""
    items = list(_items(data, root))
    journal = open_journal(target, preparation)
    done = {line["path"] for line in read_lines(journal)[1:]}
    waiting = [item for item in items if _relative(item, root) not in done]
    with (
        journal.open("a", encoding="utf-8") as file,
        progress.track("pseudo-labels", len(items), len(items) - len(waiting)) as bar,
    ):
        for first in range(0, len(waiting), BATCH):
            some = waiting[first : first + BATCH]
            lines = _write(some, root, target, predict, confidence)
            os.sync()  # the journal must not outlast what it names
            file.write("".join(to_json(line, ensure_ascii=False) + "\n" for line in lines))
            file.flush()
            bar.advance(len(some))
    return _finish(root, target, preparation, journal)


def _items(data: Splits, root: Path) -> Iterator[_Item]:
    for images in (data.train, data.validation, data.test):
        assert images.files is not None
        assert images.parts is not None
        photographs, _ = photographs_of(root / IMAGES, images.files)
        for image, label, there, photograph in zip(
            images.files, images.labels.tolist(), images.parts.there.tolist(), photographs, strict=True
        ):
            unknown = PREDICTED if images is data.train else WITHOUT
            yield _Item(image, label, ANNOTATED if there else unknown, photograph)


def _relative(item: _Item, root: Path) -> str:
    return item.image.relative_to(root).as_posix()


def _write(
    items: Sequence[_Item], root: Path, target: Path, predict: Any, confidence: float
) -> list[dict[str, Any]]:
    """The lines of the manifest, one for each image; images and masks are written here."""
    unknown = [item for item in items if item.kind == PREDICTED]
    predictions = (
        dict(zip([item.image for item in unknown], predict(unknown), strict=True)) if unknown else {}
    )
    lines = []
    for item in items:
        mask, kind, sure = mask_of(root, item.image), item.kind, None
        content = mask.read_bytes() if kind == ANNOTATED else None
        if kind == PREDICTED:
            ids, sure = predictions[item.image]
            content, kind = (as_png(ids), PREDICTED) if sure >= confidence else (None, UNSURE)
        if content is not None:
            write_whole(target / mask.relative_to(root), content)
        write_whole(target / _relative(item, root), item.image.read_bytes())
        split, name = item.image.relative_to(root / IMAGES).parts[:2]
        line: dict[str, Any] = {"path": _relative(item, root), "class": name, "split": split, "mask": None}
        if content is not None:
            line["mask"] = mask.relative_to(root).as_posix()
        line |= {"kind": kind, "pseudo": kind == PREDICTED, "source": item.photograph}
        lines.append(line if sure is None else {**line, "confidence": sure})
    return lines


def _predict(
    model: PartModel, owners: Sequence[int], size: int, device: torch.device, items: Sequence[_Item]
) -> list[tuple[np.ndarray, float]]:
    """The part ids (H, W) of each image at its own size, and the confidence in them."""

    def square(image: Image.Image) -> Tensor:
        resized = image.resize((size, size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1)

    pixels = torch.stack([decode(item.image, prepare=square) for item in items])
    labels = torch.tensor([item.label for item in items])
    with torch.no_grad(), devices.exact_float32():
        part_logits = model.forward_parts(as_floats(pixels.to(device))).part_logits.float().cpu()
    masks, sure = of_class(part_logits, labels, torch.tensor(owners), size)
    predictions = []
    for item, ids, share in zip(items, masks, sure.tolist(), strict=True):
        height, width = header_size(item.image)
        kind = np.uint8 if len(owners) < 256 else np.uint16
        full = Image.fromarray(ids.numpy().astype(np.int32)).resize((width, height), Image.Resampling.NEAREST)
        predictions.append((np.asarray(full).astype(kind), share))
    return predictions


def of_class(
    part_logits: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"], owners: Int[Tensor, " p"], size: int
) -> tuple[Int[Tensor, "b s s"], Float[Tensor, " b"]]:
    """The likeliest part of each pixel (B, S, S), and the mean over pixels of its share (B,).

    Only the parts of the image's class and the background compete.

    Args:
        part_logits: the logits of the parts, of which channel 0 is the background.
        labels: the class of each image.
        owners: the class of each part.
        size: the side of the masks, in pixels.
    """
    of_its_class = torch.cat([torch.ones(len(labels), 1, dtype=torch.bool), owners == labels[:, None]], dim=1)
    possible = part_logits.masked_fill(~of_its_class[:, :, None, None], NEVER)
    sure = possible.softmax(dim=1).amax(dim=1).mean(dim=(1, 2))
    return predicted_parts(possible, (size, size)), sure


def _finish(root: Path, target: Path, preparation: Mapping[str, Any], journal: Path) -> PseudoLabelled:
    """Write the table, without which the folder is incomplete, and at last the manifest."""
    lines = sorted(read_lines(journal)[1:], key=lambda line: str(line["path"]))
    table = read_json(root / TABLE) | {"prepared": dict(preparation)}
    os.sync()  # once for all images and masks: the manifest must not outlast them
    text = json.dumps(table, indent=1, ensure_ascii=False) + "\n"
    write_atomically(target / TABLE, partial(Path.write_text, data=text, encoding="utf-8"))
    text = "".join(to_json(line, ensure_ascii=False) + "\n" for line in lines)
    write_atomically(target / MANIFEST, partial(Path.write_text, data=text, encoding="utf-8"))
    shutil.rmtree(target / STAGE, ignore_errors=True)  # another process may be at it
    return _summary(target)


def _summary(target: Path) -> PseudoLabelled:
    return PseudoLabelled(target, Counter(line["kind"] for line in read_lines(target / MANIFEST)))
