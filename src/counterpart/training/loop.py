"""The training loop: epochs of attacks, losses and steps, with validation, records and checkpoints.

Everything random is a function of (seed, epoch, step, sample index), so a run that was killed and continued
from a checkpoint ends with the same bits as one that was not.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from .. import devices, distributed
from ..batch import Batch
from ..data.image_sets import ImageSet
from ..data.loaders import batches, epoch_order
from ..errors import NotFinite
from ..models.forms import Form
from ..models.inference import InferenceView
from ..progress import Bar, track
from ..records import Record, hand_over
from ..rundir import RunDir
from . import checkpoint
from .checkpoint import State
from .epoch_record import epoch_details, epoch_line, epochs_of, share_totals
from .epochs import images_used, phase_at, refuse_small_batches, steps_of_epoch
from .failures import diverged, out_of_memory
from .meter import BrokenStep, Meter
from .optimizers import Schedule, set_rate
from .overfitting import OVERFITTED, catastrophic_overfitting
from .resuming import resume
from .signals import Requests, stop_requests
from .step import LoopOptions, Phase, Running, train_step
from .stored_maps import draw_maps
from .weight_average import averaged
from .whole_step import WholeStep, why_not

Validate = Callable[..., tuple[float, ...]]
"""A function of a model and its view that returns the (clean, robust) accuracy on the validation images.

Given a rule as well, it also returns the accuracy under an attack within the rule's budget. It returns nothing where
there are no validation images.
"""


def fit(
    model: nn.Module,
    phases: Sequence[Phase],
    images: ImageSet,
    *,
    run: RunDir,
    optimizer: Optimizer,
    rate: Schedule,
    validate: Validate,
    options: LoopOptions,
    about: Mapping[str, Any],
) -> bool:
    """Whether a run is finished, after ``model`` was trained in place.

    Training goes on from the last checkpoint in the run folder.

    Args:
        model: a Classifier on ``options.device``.
        phases: the phases in their order, each of which says what to do in how many epochs.
        images: the training images.
        run: the folder for checkpoints, records and the log.
        optimizer: the optimiser of the model's parameters, in groups as ``optimizers.group_parameters`` makes them.
        rate: the function that gives the learning rate by the absolute epoch.
        validate: the function that measures accuracies after each epoch.
        options: how to train: batches, precision, seed and the like.
        about: what is needed to rebuild the model, which goes into every checkpoint. Its "view" is the form
            of the attack's view, where that is not ``fast``; it has to be the same at every start.

    Returns:
        True where the run is finished, and False where the deadline ended it.

    Raises:
        UserError: a loss, gradient, weight or logit is not finite, or memory or disk space is exhausted. The
            last checkpoint stays as it is.
        KeyboardInterrupt: a stop was asked for, and a checkpoint has been written. A run that was in its last
            validation is finished then, but the caller shall not go on to the next run.
    """
    refuse_small_batches(len(images), options)
    fast = about.get("view", "fast") == "fast"
    model.to(memory_format=devices.memory_format(model) if fast else torch.contiguous_format)
    ema = None if options.ema is None else averaged(model, options.ema)
    state, maps = resume(run, about, model, optimizer, ema, options.device)
    epochs = sum(phase.epochs for phase in phases)
    if state.epoch >= epochs:
        return True
    if distributed.is_main():
        run.drop_epochs_from(state.epoch)
    views = _make_views(model, ema, phases, options, about)
    training = _Training(
        model, phases, images, run, optimizer, rate, validate, options, about, ema, state, maps, *views,
        Running(Meter(options.read_every)),
    )  # fmt: skip
    total, done = epochs * len(images), state.epoch * len(images) + state.step * options.batch_size
    with (
        devices.exact_float32(),
        devices.repeatable_convolutions(),
        stop_requests() as stop_asked,
        track("training", total, done, run.progress_log) as bar,
    ):
        if done:
            bar.say(f"Continuing {run.name} at epoch {state.epoch + 1} of {epochs}, step {state.step}.")
        for epoch in range(state.epoch, epochs):
            phase = training.enter_epoch()
            bar.describe(f"{run.name}: epoch {epoch + 1} of {epochs} ({phase.name})")
            training.refresh_maps(phase)
            requests = training.take_steps(phase, bar, stop_asked)
            if requests.end:
                return _ended(bar, requests, f"epoch {epoch + 1}, step {state.step} of {training.steps}")
            bar.describe(f"{run.name}: validation after epoch {epoch + 1} of {epochs}")
            accuracies = training.validate_epoch(phase)
            record = training.record_epoch(phase, accuracies)
            bar.say("\n".join([epoch_line(record.details, epochs), *training.warnings()]))
            training.keep_best(phase, accuracies)
            training.finish_epoch(phase, accuracies, record)
            requests = training.hear_requests(stop_asked)
            if requests.stop or (requests.late and state.epoch < epochs):
                return _ended(bar, requests, f"the end of epoch {state.epoch}")
            if options.after_epoch is not None:
                options.after_epoch(record.details)
    return True


@dataclass
class _Training:
    """A training under way, with the arguments of ``fit`` and the point that it has reached.

    Attributes:
        ema: the averaged weights, where they are asked for. They are then judged and kept in place of the
            model's.
        maps: the stored maps of all samples, in phases that store them.
        view: the view of the model that training attacks.
        judged_view: the view of the judged model that validation attacks.
        part_quality: the intersection over union of each part on the validation images after this epoch.
        saved: the time at which a checkpoint was last written, or else at which this start of the run began.
        epoch_started: the time at which this epoch would have begun without a break.
    """

    model: nn.Module
    phases: Sequence[Phase]
    images: ImageSet
    run: RunDir
    optimizer: Optimizer
    rate: Schedule
    validate: Validate
    options: LoopOptions
    about: Mapping[str, Any]
    ema: AveragedModel | None
    state: State
    maps: Tensor | None
    view: InferenceView
    judged_view: InferenceView
    running: Running
    part_quality: Mapping[str, float] | None = None
    saved: float = field(default_factory=time.monotonic)
    epoch_started: float = 0.0

    @property
    def judged(self) -> nn.Module:
        """The model whose accuracy counts: the averaged one, where weights are averaged."""
        return self.model if self.ema is None else self.ema.module

    @property
    def steps(self) -> int:
        """The number of steps in an epoch."""
        return steps_of_epoch(len(self.images), self.options.batch_size)

    def enter_epoch(self) -> Phase:
        """The phase of the epoch that the state stands at, which begins here or goes on."""
        state = self.state
        self.epoch_started = time.monotonic() - state.seconds
        number, first = phase_at(self.phases, state.epoch)
        phase = self.phases[number]
        if state.epoch == first:
            state.validated = []
        if phase.adapt is not None:
            phase = phase.adapt(state.validated)
        if self.options.compile and (state.epoch == first or self.running.whole is None):
            self.running.whole = WholeStep(self.phases[number], self.model, self.view, self.options)
        return phase

    def refresh_maps(self, phase: Phase) -> None:
        """Draw the stored maps anew where that is due, and drop them in a phase that stores none."""
        _, first = phase_at(self.phases, self.state.epoch)
        if phase.refresh_epochs is None:
            self.maps = None
        elif self.state.step == 0 and (self.state.epoch - first) % phase.refresh_epochs == 0:
            self.maps = draw_maps(self.view, self.images, phase, self.options)

    def take_steps(self, phase: Phase, bar: Bar, stop_asked: Callable[[], bool]) -> Requests:
        """Take the steps of the epoch that are left, and return what ended them early, if anything did."""
        state, options, length = self.state, self.options, len(self.images)
        self.running.checked = False  # so that the first of them checks what it is given
        order = epoch_order(length, options.seed, state.epoch)
        loader = batches(
            self.images,
            batch_size=options.batch_size,
            device=options.device,
            order=order[: images_used(length, options.batch_size)],
            augmentation=options.augmentation,
            seed=options.seed,
            epoch=state.epoch,
            maps=self.maps,
            first=state.step,
        )
        for step, batch in enumerate(loader, start=state.step):
            size = min(options.batch_size, length - step * options.batch_size)
            self.take_step(phase, batch, size)
            bar.advance(size)
            requests = self.hear_requests(stop_asked)
            if state.step < self.steps and any(requests):
                self.read_measured()
                share_totals(state, options.device)
                self.save(phase)
                if requests.end:
                    return requests
        self.read_measured()
        return Requests()

    def read_measured(self) -> None:
        """Add what steps measured since the last reading to the totals of the epoch."""
        try:
            self.add(self.running.meter.read())
        except BrokenStep as error:
            self.state.step = error.step + 1
            raise diverged(self.run, str(error), self.state) from error

    def add(self, measured: Mapping[str, float]) -> None:
        """Add sums over images to the totals of the epoch."""
        for name, value in measured.items():
            self.state.totals[name] = self.state.totals.get(name, 0.0) + value

    def take_step(self, phase: Phase, batch: Batch, size: int) -> None:
        """Take one step, on this process's share of a batch of ``size`` images."""
        state, step = self.state, self.state.step
        moment = state.epoch + step / self.steps
        phase = phase.at(moment)
        set_rate(self.optimizer, self.rate(moment))
        measured = None
        try:
            measured = train_step(
                batch, size, state.epoch, step, self.model, self.view, phase, self.optimizer, self.options,
                self.running,
            )  # fmt: skip
        except BrokenStep as error:
            state.step = error.step + 1
            raise diverged(self.run, str(error), state) from error
        except (RuntimeError, MemoryError) as error:
            if not devices.is_out_of_memory(error):
                raise
        if measured is None:  # here the error is gone, and with it the memory that its frames held
            raise out_of_memory(batch, self.model, self.view, phase, self.options)
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        self.view.refresh()
        self.add(measured)
        state.step = step + 1

    def hear_requests(self, stop_asked: Callable[[], bool]) -> Requests:
        """The requests since the last step, the same on every process.

        The main process's clock decides for all; a signal may have reached any of them.
        """
        late = due = False
        if distributed.is_main():
            late = _is_past(self.options.deadline)
            due = time.monotonic() - self.saved > self.options.checkpoint_every
        return Requests(*distributed.any_of((stop_asked(), late, due), self.options.device))

    def validate_epoch(self, phase: Phase) -> list[float]:
        """The accuracies after an epoch: clean, robust, and under the phase's rule where it has one."""
        share_totals(self.state, self.options.device)
        self.judged_view.refresh()
        rule = () if phase.masked is None else (phase.masked,)
        if self.options.part_quality is not None:
            self.part_quality = self.options.part_quality(self.judged)
        try:
            return [*self.validate(self.judged, self.judged_view, *rule)]
        except NotFinite as error:
            raise diverged(self.run, "The validation logits are not finite", self.state) from error

    def record_epoch(self, phase: Phase, accuracies: Sequence[float]) -> Record:
        """Add the epoch's record to the run, and return it. Nobody has heard it yet."""
        seconds = time.monotonic() - self.epoch_started
        details = epoch_details(
            self.state,
            phase,
            accuracies,
            self.part_quality,
            about=self.about,
            lr=self.rate(self.state.epoch),
            seconds=seconds,
            device=self.options.device,
        )
        record = Record(
            kind="epoch",
            name="epoch",
            seed=self.options.seed,
            config=self.about.get("config"),
            details=details,
            seconds=seconds,
        )
        if distributed.is_main():
            self.run.add_unheard([record])
        return record

    def warnings(self) -> list[str]:
        """What is to be said where the model has overfitted to the attack of its training."""
        if not distributed.is_main():
            return []
        overfitted = catastrophic_overfitting(epochs_of(self.run))
        return [] if overfitted is None else [f"{OVERFITTED.capitalize()}: {overfitted}"]

    def keep_best(self, phase: Phase, accuracies: Sequence[float]) -> None:
        """Write the judged weights where they are the best of their phase. Without validation the last are."""
        state = self.state
        number, _ = phase_at(self.phases, state.epoch)
        score = [float(state.epoch)]
        if self.part_quality is not None and self.options.best_by_parts:
            score = [fmean(self.part_quality.values())]
        elif accuracies:
            clean, robust = accuracies[:2]
            score = [robust, clean] if self.options.best_by_robust else [clean, robust]
        # A run that began when the best weights were chosen otherwise has a score of another length.
        comparable = number == state.best_phase and len(score) == len(state.best_score)
        if comparable and score <= state.best_score:
            return
        state.best_phase, state.best_score = number, score
        if distributed.is_main():
            about = {**self.about, **phase.chosen, "epoch": state.epoch}
            checkpoint.save_weights(self.run.checkpoint("best"), self.judged, about)

    def finish_epoch(self, phase: Phase, accuracies: Sequence[float], record: Record) -> None:
        """Move the state to the beginning of the next epoch, save it, and let the record be heard.

        An epoch that was heard before its checkpoint is written might be made, and heard, once more.
        """
        state = self.state
        state.validated.append([*accuracies])
        state.epoch, state.step, state.totals, state.seconds = state.epoch + 1, 0, {}, 0.0
        self.save(phase)
        if distributed.is_main():
            hand_over([record], self.run.path)

    def save(self, phase: Phase) -> None:
        """Write the checkpoint that a later start goes on from."""
        weights = [value for value in self.model.state_dict().values() if value.is_floating_point()]
        if not bool(checkpoint.finite(weights)):
            raise diverged(self.run, "The weights are not finite", self.state)
        self.state.seconds = time.monotonic() - self.epoch_started if self.state.step else 0.0
        if distributed.is_main():
            checkpoint.save(
                self.run.checkpoint("last"), self.state, {**self.about, **phase.chosen}, self.model,
                self.optimizer, self.ema, self.maps,
            )  # fmt: skip
        distributed.barrier()
        self.saved = time.monotonic()


def _make_views(
    model: nn.Module,
    ema: AveragedModel | None,
    phases: Sequence[Phase],
    options: LoopOptions,
    about: Mapping[str, Any],
) -> tuple[InferenceView, InferenceView]:
    """The view that training attacks, and the view that validation attacks.

    Validation searches in the training precision and judges in float32; what fools a bf16 view alone is attacked once
    more on the model. Its view is not compiled, because a last small batch would compile it once more.
    """
    form: Form = about.get("view", "fast")
    # Where the step is compiled as a whole, its last batch runs as it is.
    trunk_alone = options.compile and why_not(options, form) is not None
    view = InferenceView(model, precision=options.precision, compile=trunk_alone, form=form, **options.view)
    shows = options.view if any(phase.adapt for phase in phases) else {}
    judged = model if ema is None else ema.module
    return view, InferenceView(judged, precision=options.precision, form=form, **shows)


def _is_past(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() > deadline


def _ended(bar: Bar, requests: Requests, where: str) -> bool:
    bar.say(f"Stopped at {where}. The same command continues from there.")
    if requests.stop:
        raise KeyboardInterrupt
    return False
