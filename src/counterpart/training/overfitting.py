"""Catastrophic overfitting: a model that learns the attack of its training, and loses its robustness to any other."""

from collections.abc import Mapping, Sequence
from typing import Any

OVERFITTED = "catastrophic overfitting"  # the name of the doubt
FELL_TO = 0.5  # the share of its best validation accuracy that is left of a model that fell
FELL_BY = 0.1  # and by so much accuracy at least, which few validation images do not lose by luck


def catastrophic_overfitting(epochs: Sequence[Mapping[str, Any]]) -> str | None:
    """A sentence on the last epoch, where the model has overfitted to the attack of its training; None elsewhere.

    Wong, Rice and Kolter 2020, arXiv 2001.03994, section 5.4: within an epoch, accuracy under PGD falls to nothing
    while accuracy on training's own single-step images rises. So the last epoch is held against the one of its phase at
    which validation was best. Training by many steps overfits as well, but slowly, and validation keeps most of what it
    had.

    Args:
        epochs: the details of the records of a run's epochs, in their order (``epoch_record.epoch_details``).
    """
    if not epochs or "validation_robust" not in epochs[-1]:
        return None
    last = epochs[-1]
    if last["phase"] == "clean":  # which has no attack to learn, and no robustness to lose
        return None
    phase = [epoch for epoch in epochs if epoch["phase"] == last["phase"] and "validation_robust" in epoch]
    best = max(phase, key=lambda epoch: epoch["validation_robust"])
    before, now = best["validation_robust"], last["validation_robust"]
    fell = now <= FELL_TO * before and before - now >= FELL_BY
    if not fell or last["accuracy"] <= best["accuracy"]:
        return None
    return (
        f"robust accuracy on validation images fell from {before:.2%} after epoch {best['epoch'] + 1} to {now:.2%} "
        f"after epoch {last['epoch'] + 1}, while accuracy under training's own attack rose from "
        f"{best['accuracy']:.2%} to {last['accuracy']:.2%}. The model has learned that attack and no other: use the "
        "best weights, more steps (attack.steps), or more noise (attack.noise)."
    )
