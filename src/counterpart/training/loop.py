"""The training loop: epochs of (perturb, loss, step), validation, records and checkpoints.

Everything random is a function of (seed, epoch, step, sample index), so a run that was killed and continued
from a checkpoint ends with the same bits as one that was not.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD

from .. import devices, distributed
from ..batch import Batch
from ..data.image_sets import ImageSet
from ..data.loaders import batches, epoch_order
from ..errors import NotFinite, UserError
from ..importance import store
from ..models.forms import Form
from ..models.inference import InferenceView
from ..progress import Bar, track
from ..records import Record
from ..rundir import RunDir
from . import checkpoint
from .checkpoint import State
from .optimizers import Schedule
from .signals import stop_requests
from .step import LoopOptions, Phase, one_pass, train_step
from .weight_average import averaged

Validate = Callable[..., tuple[float, ...]]
"""(model, its view) -> (clean, robust) accuracy on the validation images; (model, its view, rule) -> that, and the
accuracy under an attack within the rule's budget.
"""

VALIDATED = ("validation_clean", "validation_robust", "validation_masked")
"""What records call that; the last one is there where a rule was given."""


def fit(
    model: nn.Module,
    phases: Sequence[Phase],
    images: ImageSet,
    *,
    run: RunDir,
    optimizer: SGD,
    rate: Schedule,
    validate: Validate,
    settings: LoopOptions,
    about: Mapping[str, Any],
) -> bool:
    """Train ``model`` in place, from where the run folder's last checkpoint stands.

    Args:
        model: a Classifier on ``settings.device``.
        phases: what to do in which epochs.
        images: training images.
        run: folder for checkpoints, records and log.
        optimizer: over the model's parameters.
        rate: learning rate by absolute epoch.
        validate: called after each epoch.
        settings: everything else.
        about: what is needed to rebuild the model; goes into every checkpoint. Its "view" is the form of the attack's
            view, where that is not ``fast``; it has to be the same at every start.

    Returns:
        Whether the run is finished; False where the deadline ended it.

    Raises:
        UserError: a loss, gradient, weight or logit that is not finite, no memory, no disk space. The last
            checkpoint stays as it is.
        KeyboardInterrupt: a stop was asked for; a checkpoint has been written. A run that was in its last
            validation is finished then, but whoever called shall not go on to the next one.
    """
    least = _least()
    if min(settings.batch_size, len(images)) < least:
        raise UserError(
            f"Batches of {settings.batch_size} from {len(images)} training images are too small: a step needs two "
            f"images, and one on every process, so train.batch_size and the training set must be at least {least}."
        )
    form: Form = about.get("view", "fast")
    model.to(memory_format=devices.memory_format(model) if form == "fast" else torch.contiguous_format)
    ema = None if settings.ema is None else averaged(model, settings.ema)
    state, maps = State(), None
    if run.checkpoint("last").exists():
        before = checkpoint.read(run.checkpoint("last"))[1]
        for key, what, things in (("fingerprint", "data", "images"), ("masks", "masks", "masks")):
            if before.get(key) != about.get(key):
                raise UserError(
                    f"{run.path} was trained on {what} {before.get(key)}, now there is {about.get(key)}: the {things} "
                    "changed. Put them back, or start another run with --name."
                )
        state, maps = checkpoint.load(run.checkpoint("last"), model, optimizer, ema)
        maps = None if maps is None else maps.to(settings.device)
        if not distributed.is_main():  # the checkpoint holds the sums over all processes
            state.totals = {}
    epochs = sum(phase.epochs for phase in phases)
    if state.epoch >= epochs:
        return True
    if distributed.is_main():
        run.drop_epochs_from(state.epoch)
    view = InferenceView(
        model, precision=settings.precision, compile=settings.compile, form=form, **settings.view
    )
    judged = model if ema is None else ema.module
    # Validation attacks what it judges: a bf16 view stops at images that fool it and not the float32 model. And
    # uncompiled, since a last small batch would compile the view once more.
    judged_view = InferenceView(judged, form=form, **(settings.view if any(p.adapt for p in phases) else {}))
    saved = epoch_started = time.monotonic()
    steps = _steps(len(images), settings.batch_size)

    def save() -> None:
        nonlocal saved
        if not checkpoint.finite([t for t in model.state_dict().values() if t.is_floating_point()]):
            raise _diverged(run, "The weights are not finite", state)
        state.seconds = time.monotonic() - epoch_started if state.step else 0.0
        if distributed.is_main():
            checkpoint.save(
                run.checkpoint("last"), state, {**about, **phase.chosen}, model, optimizer, ema, maps
            )
        distributed.barrier()
        saved = time.monotonic()

    total, done = epochs * len(images), state.epoch * len(images) + state.step * settings.batch_size
    with (
        devices.exact_float32(),
        stop_requests() as stop_asked,
        track("training", total, done, run.path / "progress.log") as bar,
    ):
        if done:
            bar.say(f"Continuing {run.name} at epoch {state.epoch + 1} of {epochs}, step {state.step}.")
        for epoch in range(state.epoch, epochs):
            number, first = _phase_at(phases, epoch)
            phase, epoch_started = phases[number], time.monotonic() - state.seconds
            if epoch == first:
                state.validated = []
            if phase.adapt is not None:
                phase = phase.adapt(state.validated)
            bar.describe(f"{run.name}: epoch {epoch + 1} of {epochs} ({phase.name})")
            if phase.refresh_epochs is None:
                maps = None
            elif state.step == 0 and (epoch - first) % phase.refresh_epochs == 0:
                maps = _draw_maps(view, images, phase, settings)
            order = epoch_order(len(images), settings.seed, epoch)
            loader = batches(
                images,
                batch_size=settings.batch_size,
                device=settings.device,
                order=order[: _kept(len(images), settings.batch_size)],
                augmentation=settings.augmentation,
                seed=settings.seed,
                epoch=epoch,
                maps=maps,
                first=state.step,
            )
            for step, batch in enumerate(loader, start=state.step):
                for group in optimizer.param_groups:
                    group["lr"] = rate(epoch + step / steps)
                size = min(settings.batch_size, len(images) - step * settings.batch_size)
                measured = None
                try:
                    measured = train_step(batch, size, epoch, step, model, view, phase, optimizer, settings)
                except NotFinite as error:
                    state.step = step + 1
                    raise _diverged(run, str(error), state) from error
                except (RuntimeError, MemoryError) as error:
                    if not devices.is_out_of_memory(error):
                        raise
                if measured is None:  # out here the error is gone, and with it all that its frames held
                    raise _no_memory(batch, model, view, phase, settings)
                if ema is not None:
                    ema.update_parameters(model)
                view.refresh()
                for name, value in measured.items():
                    state.totals[name] = state.totals.get(name, 0.0) + value
                state.step = step + 1
                bar.advance(size)
                out_of_time = _is_past(settings.deadline)
                due = time.monotonic() - saved > settings.checkpoint_every
                # The main process's clock decides for all; a signal may have reached any of them.
                ending = distributed.any_(stop_asked(), settings.device)
                flags = distributed.from_main(out_of_time + 2 * due, settings.device)
                if state.step < steps and (flags or ending):
                    _share_totals(state, settings.device)
                    save()
                    if flags in (1, 3) or ending:
                        return _ended(bar, ending, f"epoch {epoch + 1}, step {state.step} of {steps}")

            _share_totals(state, settings.device)
            judged_view.refresh()
            bar.describe(f"{run.name}: validation after epoch {epoch + 1} of {epochs}")
            try:
                rule = () if phase.masked is None else (phase.masked,)
                clean, robust, *masked = validate(judged, judged_view, *rule)
            except NotFinite as error:
                raise _diverged(run, "The validation logits are not finite", state) from error
            record = _epoch_record(
                state,
                phase,
                settings,
                about,
                rate(epoch),
                [clean, robust, *masked],
                time.monotonic() - epoch_started,
            )
            if distributed.is_main():
                run.add([record])
                bar.say(_line(record.details, epochs))
            score = [robust, clean] if settings.best_by_robust else [clean, robust]
            if number != state.best_phase or score > state.best_score:
                state.best_phase, state.best_score = number, score
                if distributed.is_main():
                    checkpoint.save_weights(
                        run.checkpoint("best"), judged, {**about, **phase.chosen, "epoch": epoch}
                    )
            state.validated.append([clean, robust, *masked])
            state.epoch, state.step, state.totals = epoch + 1, 0, {}
            state.seconds = 0.0
            save()
            ending = distributed.any_(stop_asked(), settings.device)
            late = bool(distributed.from_main(_is_past(settings.deadline), settings.device))
            if ending or (late and state.epoch < epochs):
                return _ended(bar, ending, f"the end of epoch {state.epoch}")
    return True


def _is_past(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() > deadline


def _steps(length: int, batch_size: int) -> int:
    return -(-_kept(length, batch_size) // batch_size)


def _kept(length: int, batch_size: int) -> int:
    """Images of an epoch: a last batch that is too small is left out.

    Each epoch's order leaves out others.
    """
    rest = length % batch_size
    return length - rest if rest < _least() else length


def _least() -> int:
    """Images of a step: batch norm cannot train on a single one, and every process needs one."""
    return max(2, distributed.world_size())


def _phase_at(phases: Sequence[Phase], epoch: int) -> tuple[int, int]:
    """Number of the phase that an epoch belongs to, and its first epoch."""
    first = 0
    for number, phase in enumerate(phases):
        if epoch < first + phase.epochs:
            return number, first
        first += phase.epochs
    raise ValueError(f"epoch {epoch} lies behind the last phase, which ends at {first}.")


def _draw_maps(view: InferenceView, images: ImageSet, phase: Phase, settings: LoopOptions) -> Tensor:
    """Maps of all samples, one clean pass each; each process draws its share."""
    # Not in larger batches: a probe keeps its graph, and that of a step is what memory is known to hold.
    loader = batches(images, batch_size=settings.batch_size, device=settings.device)
    maps = store.fill(view, loader, int(images.index.max()) + 1, phase.map_class, phase.map_kind)
    distributed.sum_([maps])
    return maps


def _share_totals(state: State, device: torch.device) -> None:
    """Totals of all processes on the main one; the others start again at zero."""
    if distributed.world_size() == 1:
        return
    names = sorted(state.totals)
    sums = torch.tensor([state.totals[n] for n in names], dtype=torch.float64, device=device)
    distributed.sum_([sums])
    keep = float(distributed.is_main())
    state.totals = dict(zip(names, (sums * keep).tolist(), strict=True))


def _epoch_record(
    state: State,
    phase: Phase,
    settings: LoopOptions,
    about: Mapping[str, Any],
    lr: float,
    validated: Sequence[float],
    seconds: float,
) -> Record:
    sums = state.totals
    count = max(sums.get("images", 0.0), 1.0)
    details: dict[str, Any] = {
        "epoch": state.epoch,
        "fingerprint": about.get("fingerprint"),
        "phase": phase.name,
        "lr": lr,
        "loss": sums.get("loss", 0.0) / count,
        "accuracy": sums.get("accuracy", 0.0) / count,
        **dict(zip(VALIDATED[: len(validated)], validated, strict=True)),
        "images_per_second": count / seconds,
        "peak_memory": devices.peak_memory(settings.device),  # bytes, of this process so far
        "device": settings.device.type,
    }
    if "masks" in about:
        details["masks"] = about["masks"]
    if "part_loss" in sums:
        details["part_loss"] = sums["part_loss"] / count
    if "radius" in sums:
        details["mean_radius"] = sums["radius"] / count
    if "flat_maps" in sums:
        details["flat_maps"] = int(sums["flat_maps"])
    details |= phase.chosen
    return Record(
        kind="epoch",
        name="epoch",
        seed=settings.seed,
        config=about.get("config"),
        details=details,
        seconds=seconds,
    )


def _line(details: Mapping[str, Any], epochs: int) -> str:
    line = (
        f"epoch {details['epoch'] + 1:>3} of {epochs}  {details['phase']:<11}  lr {details['lr']:.4g}  "
        f"loss {details['loss']:.4f}  validation clean {details['validation_clean']:.2%} "
        f"robust {details['validation_robust']:.2%}  {details['images_per_second']:,.0f} images/s"
    )
    flat, low = details.get("flat_maps", 0), details.get("eps_low")
    line += "" if low is None else f"  eps_low {low:.4g}"
    what = "without a mask" if "masks" in details else "flat maps"
    return line + (f"  {flat} {what}: full budget" if flat else "")


def _ended(bar: Bar, interrupted: bool, where: str) -> bool:
    bar.say(f"Stopped at {where}. The same command continues from there.")
    if interrupted:
        raise KeyboardInterrupt
    return False


def _diverged(run: RunDir, what: str, state: State) -> UserError:
    """What stopped, where, and what is left of the run."""
    last = run.checkpoint("last")
    kept = (
        f"{last} was written before that and stays" if last.exists() else "No checkpoint had been written yet"
    )
    return UserError(
        f"{what} at epoch {state.epoch + 1}, step {state.step}. {kept}. A smaller optimizer.lr, optimizer.clip_norm 1 "
        "or train.precision float32 usually helps: each is another run, so give it another --name."
    )


def _no_memory(
    batch: Batch, model: nn.Module, view: InferenceView, phase: Phase, settings: LoopOptions
) -> UserError:
    """Find out which batch size fits, and say so. Not inside an except block: its error keeps memory alive."""

    def attempt(size: int) -> None:
        model.zero_grad(set_to_none=True)
        _, loss = one_pass(batch.select(slice(0, size)), 0, 0, model, view, phase, settings)
        torch.autograd.backward(loss.total)

    fits = devices.size_that_fits(attempt, len(batch), settings.device) * distributed.world_size()
    advice = (
        f"--train.batch-size {fits} fits" if fits else "not even one image fits: use a smaller model or size"
    )
    return UserError(
        f"Out of memory with batches of {settings.batch_size}: {advice}. The last checkpoint is untouched; "
        "another batch size is another run, so give it another --name."
    )
