"""What is kept and printed of an epoch."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch

from .. import devices, distributed
from ..rundir import RunDir
from .checkpoint import State
from .step import Phase

VALIDATED = ("validation_clean", "validation_robust", "validation_masked")
"""The names of these accuracies in records. The last is there where a rule was given."""
VALIDATED_PARTS = "validation_miou"


def epoch_details(
    state: State,
    phase: Phase,
    accuracies: Sequence[float],
    part_quality: Mapping[str, float] | None,
    *,
    about: Mapping[str, Any],
    lr: float,
    seconds: float,
    device: torch.device,
) -> dict[str, Any]:
    """The details that the record of an epoch holds.

    Args:
        state: the point that training has reached, with this epoch's sums over its images.
        phase: the phase of the epoch.
        accuracies: on the validation images, as ``VALIDATED`` names them.
        part_quality: the intersection over union of each part on the validation images.
        about: what the checkpoints say of the run.
        lr: the learning rate at the start of the epoch.
        seconds: how long the epoch took.
        device: where it was computed.
    """
    sums = state.totals
    count = max(sums.get("images", 0.0), 1.0)
    details: dict[str, Any] = {
        "epoch": state.epoch,
        "fingerprint": about.get("fingerprint"),
        "phase": phase.name,
        "lr": lr,
        "loss": sums.get("loss", 0.0) / count,
        "accuracy": sums.get("accuracy", 0.0) / count,
        **dict(zip(VALIDATED[: len(accuracies)], accuracies, strict=True)),
        "images_per_second": count / seconds,
        "peak_memory": devices.peak_memory(device),  # in bytes, of this process so far
        "device": device.type,
    }
    if part_quality is not None:
        details[VALIDATED_PARTS] = fmean(part_quality.values())
        details["validation_parts"] = part_quality
    if "masks" in about:
        details["masks"] = about["masks"]
    if "part_loss" in sums:
        details["part_loss"] = sums["part_loss"] / count
    if "radius" in sums:
        details["mean_radius"] = sums["radius"] / count
    if "flat_maps" in sums:
        details["flat_maps"] = int(sums["flat_maps"])
    details |= phase.chosen
    return details


def epochs_of(run: RunDir) -> list[Mapping[str, Any]]:
    """The details of every epoch that a run has recorded, in their order."""
    return [record.details for record in run.records() if record.kind == "epoch"]


def epoch_line(details: Mapping[str, Any], epochs: int) -> str:
    """The line that is printed after an epoch, of ``epochs`` in all."""
    validated = ""
    if "validation_clean" in details:
        clean, robust = details["validation_clean"], details["validation_robust"]
        validated = f"validation clean {clean:.2%} robust {robust:.2%}  "
    if VALIDATED_PARTS in details:
        validated += f"mIoU {details[VALIDATED_PARTS]:.2%}  "
    line = (
        f"epoch {details['epoch'] + 1:>3} of {epochs}  {details['phase']:<11}  lr {details['lr']:.4g}  "
        f"loss {details['loss']:.4f}  {validated}{details['images_per_second']:,.0f} images/s"
    )
    flat, low = details.get("flat_maps", 0), details.get("eps_low")
    line += "" if low is None else f"  eps_low {low:.4g}"
    what = "without a mask" if "masks" in details else "flat maps"
    return line + (f"  {flat} {what}: full budget" if flat else "")


def share_totals(state: State, device: torch.device) -> None:
    """Add the totals of all processes up on the main one. The others start again at zero."""
    if distributed.world_size() == 1:
        return
    names = sorted(state.totals)
    sums = torch.tensor([state.totals[n] for n in names], dtype=torch.float64, device=device)
    distributed.sum_([sums])
    keep = float(distributed.is_main())
    state.totals = dict(zip(names, (sums * keep).tolist(), strict=True))
