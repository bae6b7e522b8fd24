"""Doubts about a run that follow from how it was trained."""

from ..evaluation.model_checks import Doubt
from ..rundir import RunDir
from ..training.epoch_record import epochs_of
from ..training.overfitting import OVERFITTED, catastrophic_overfitting


def doubts_of_training(run: RunDir, epoch: int | None) -> tuple[Doubt, ...]:
    """A doubt if the weights of this epoch, by default the last, had overfitted to the attack of their training."""
    epochs = epochs_of(run)
    if epoch is not None:
        epochs = [details for details in epochs if details["epoch"] <= epoch]
    text = catastrophic_overfitting(epochs)
    return () if text is None else (Doubt(OVERFITTED, text),)


def doubts_of_fold(trained: str | None, judged: str | None) -> tuple[Doubt, ...]:
    """A doubt if a folder is dealt otherwise than for the model's training: then it has seen images of the test."""
    if trained == judged:
        return ()
    before, now = (f"data.fold {fold}" if fold else "no data.fold" for fold in (trained, judged))
    text = (
        f"the model was trained with {before} and is judged with {now}: it has learned from images that are judged. "
        "Leave data.fold out to judge it on those that it has not seen."
    )
    return (Doubt("images seen in training", text),)
