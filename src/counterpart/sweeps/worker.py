"""A worker of a sweep: it takes trials from the study, trains each in a run folder of its own, and tells the study."""

import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .. import build, devices, distributed
from ..config import Config, identity, plain
from ..data.image_sets import Splits
from ..errors import Diverged, OutOfMemory, UserError
from ..jobs import training
from ..jobs.notes import say
from ..rundir import RunDir
from ..seeding import derive
from .pruning import Pruned, is_hopeless, make_pruner
from .space import Space, apply, text_of
from .study import Lost, SharedStudy, give_back, held, open_study, report, take_trial, tell
from .summary import Sweep, summarise
from .trials import name_trial, shorten

if TYPE_CHECKING:
    import optuna

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Worker:
    """What a worker needs for every trial.

    Attributes:
        shared: the study.
        config: the configuration that all trials share.
        space: the settings that vary.
        images: the images, without those of the test.
        model: a network that a program holds, in place of the configuration's.
        deadline: the time by ``time.monotonic`` at which the worker stops.
        prune: whether hopeless trials end early.
    """

    shared: SharedStudy
    config: Config
    space: Space
    images: Splits
    model: nn.Module | None
    deadline: float | None
    prune: bool


def sweep(
    config: Config,
    space: Space,
    trials: int | None = None,
    *,
    storage: str | None = None,
    prune: bool = True,
    data: Splits | None = None,
    model: nn.Module | None = None,
) -> Sweep:
    """The sweep of a space, after this worker found no trial left to take.

    Other workers, of this machine and of others, may take trials of the same study at the same time. The test
    images are not read: trials are compared by the validation images alone.

    Args:
        config: the configuration that all trials share. Its name is that of the study and of its folder.
        space: the settings that vary.
        trials: the number of trials of all workers together. The default is every point of a space of lists.
        storage: the address of a database. The default is a journal in the folder of the sweep.
        prune: whether trials end early that are below the median in both accuracies.
        data: images that a program holds, in place of the data set that the configuration names.
        model: a network that a program holds, in place of the configuration's.

    Raises:
        UserError: something is wrong that the user can mend. The trial under way waits for the next worker.
        KeyboardInterrupt: a stop was asked for. The trial under way has a checkpoint, and waits.
    """
    if distributed.started_together() > 1:
        raise UserError(
            "a sweep starts no processes together: leave torchrun out, and start several workers instead."
        )
    count = _count(space, trials)
    devices.resolve(config.device, config.threads)
    images = _without_test(build.load_named(config, {}) if data is None else data)
    if len(images.validation) == 0:
        raise UserError(
            "a sweep compares trials on validation images, and there are none: set data.validation."
        )
    n = min(config.train.validation_n or len(images.validation), len(images.validation))
    name = config.name or "sweep"
    config, folder = config.model_copy(update={"name": name}), config.runs / name
    after = config.train.stop_after
    deadline = None if after is None else time.monotonic() + after
    with open_study(name, folder, storage, _identity(config, space, images)) as shared:
        if prune:
            shared.study.pruner = make_pruner(config)
        worker = _Worker(shared, config, space, images, model, deadline, prune)
        while deadline is None or time.monotonic() < deadline:
            trial = take_trial(shared, count)
            if trial is None:
                break
            _run(worker, trial)
            summarise(shared, config, space, n)
        return summarise(shared, config, space, n)


def _count(space: Space, trials: int | None) -> int:
    points = space.points
    if trials is not None and trials < 1:
        raise UserError(f"trials {trials} must be a whole number of at least 1.")
    if points is None and trials is None:
        raise UserError(
            f"the space {space.name} holds a range: say how many trials there shall be, with --trials."
        )
    if points is None or trials is None:
        return trials or len(points or ())
    return min(trials, len(points))


def _without_test(images: Splits) -> Splits:
    """The same images, but none to test on: a sweep cannot choose by what it does not have."""
    return replace(images, test=images.test.subset(torch.arange(0)))


def _identity(config: Config, space: Space, images: Splits) -> dict[str, Any]:
    """What decides the results of a study: the space, the settings that do not vary, and the content of the images."""
    settings = plain(config)
    for dimension in space.dimensions:
        section, _, leaf = dimension.name.partition(".")
        settings[section].pop(leaf)
    return {**identity(settings), "space": space.describe(), "images": images.train.fingerprint}


def _run(worker: _Worker, trial: "optuna.Trial") -> None:
    """Train a trial, or go on with it, and tell the study how it ended; else it waits for the next worker."""
    from optuna.trial import TrialState

    shared, name = worker.shared, name_trial(trial.number)
    try:
        with held(shared, trial) as lost:
            _choose_sampler(worker, trial)
            outcome = _train(worker, trial, lost.is_set)
            if not outcome.finished:
                return
            best = {record.name: record.value for record in training.best_validation(outcome.run)}
            trial.set_user_attr("natural", best["validation_clean"])
            tell(shared, trial, TrialState.COMPLETE, best["validation_robust"])
    except Pruned:
        tell(shared, trial, TrialState.PRUNED)
    except Lost:
        _log.warning("%s: another worker took it up.", name)
    except (Diverged, OutOfMemory) as error:
        _log.warning("%s: %s", name, error)
        trial.set_user_attr("why", str(error))
        tell(shared, trial, TrialState.FAIL)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    finally:
        give_back(shared, trial)


def _choose_sampler(worker: _Worker, trial: "optuna.Trial") -> None:
    """Let the sampler of a trial depend on the seed and the trial's number alone.

    Workers that had a sampler of the same seed for all their trials would draw the same ones.
    """
    from .samplers import FixedSampler, tree_sampler

    seed, points = worker.config.seed, worker.space.points
    if points is None:
        worker.shared.study.sampler = tree_sampler(derive(seed, "sweep", trial.number))
        return
    random.Random(derive(seed, "sweep")).shuffle(points)
    worker.shared.study.sampler = FixedSampler(points[trial.number])


def _train(worker: _Worker, trial: "optuna.Trial", is_lost: Callable[[], bool]) -> training.Trained:
    """Train a trial in its run folder.

    Raises:
        Pruned: the trial shall end early.
        Lost: another worker took this one for dead, and took the trial up.
    """
    values = {dimension.name: dimension.suggest(trial) for dimension in worker.space.dimensions}
    name = f"{worker.config.name}/{name_trial(trial.number)}"
    config = apply(worker.config.model_copy(update={"name": name}), values, worker.space.name)
    epochs = config.train.all_epochs
    say([f"{name}: {', '.join(f'{key} {shorten(text_of(value))}' for key, value in values.items())}."])

    def watch(details: Mapping[str, Any]) -> None:
        epoch = details["epoch"]
        report(worker.shared, trial, epoch, details["validation_clean"], details["validation_robust"])
        if is_lost():
            raise Lost
        if worker.prune and epoch + 1 < epochs and is_hopeless(worker.shared, trial, epoch):
            raise Pruned

    for record in RunDir(config.runs / name).records():
        if record.kind == "epoch":  # which an earlier worker trained, and may not have told
            watch(record.details)
    return training.train(config, worker.deadline, data=worker.images, model=worker.model, watch=watch)
