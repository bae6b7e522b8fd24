"""One training step, which perturbs, takes the loss and sums gradients over processes, and its options."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .. import distributed
from ..batch import Batch
from ..checks import after_the_door
from ..contracts import Loss, Objective, Perturbed, Rule
from ..data.transforms import Augment
from ..models.inference import InferenceView
from ..seeding import Keys, derive, seeded
from . import checkpoint
from .meter import Meter
from .shares import as_whole
from .weight_perturbation import adversarial_weights, buffers_kept

Adapt = Callable[[Sequence[Sequence[float]]], "Phase"]
"""A function that returns the phase as it shall be in its next epoch.

It takes the (clean, robust, masked) validation accuracy after each epoch of the phase so far.
"""


class StepRadii(NamedTuple):
    """What may change about the attack of a phase from step to step, in units of the images.

    They are numbers, and tensors () in a compiled step, which is given them anew each time.

    Attributes:
        eps: the full radius.
        eps_low: the radius that a mask leaves to other pixels, which only phases with a mask look at.
        step_size: the length of a step. None: the attack's own share of ``eps``.
    """

    eps: float | Tensor
    eps_low: float | Tensor = 0.0
    step_size: float | Tensor | None = None


@dataclass(frozen=True)
class Phase:
    """Some epochs under one objective.

    Attributes:
        name: the name of the phase in records: "burn-in", "adversarial", "part" or "clean".
        epochs: the number of epochs.
        objective: the attack and the loss for each batch.
        refresh_epochs: the number of epochs after which the maps of all samples are drawn anew and stored.
            With None, the objective draws maps of its own at every step.
        map_class: the class that stored maps explain, such as "true".
        map_kind: the kind of stored maps, such as "grad-cam".
        adapt: a function that draws the phase's next epoch from the validations so far. With None, the phase
            stays the same.
        chosen: the values that ``adapt`` chose, for the epoch's record and the checkpoint.
        masked: the budget rule under which validation attacks a second time, for ``adapt``.
        radii: the radii of ``objective``, in phases in which they change.
        at_radii: the objective at other radii, in such phases. It also takes tensors.
        growing: a function that gives the radii at a moment, in epochs since the start of the run and fractions of
            them. With None, they are those of every moment.
    """

    name: str
    epochs: int
    objective: Objective
    refresh_epochs: int | None = None
    map_class: str = "true"
    map_kind: str = "grad-cam"
    adapt: Adapt | None = None
    chosen: Mapping[str, float] = field(default_factory=dict)
    masked: Rule | None = None
    radii: StepRadii | None = None
    at_radii: Callable[[StepRadii], Objective] | None = None
    growing: Callable[[float], StepRadii] | None = None

    def at(self, moment: float) -> "Phase":
        """The phase at a moment, in epochs since the start of the run."""
        return self if self.growing is None else self.within(self.growing(moment))

    def within(self, radii: StepRadii) -> "Phase":
        """The phase at these radii, and itself where they are its own."""
        if radii == self.radii:
            return self
        assert self.at_radii is not None
        return replace(self, objective=self.at_radii(radii), radii=radii)


@dataclass(frozen=True)
class LoopOptions:
    """The options of training, apart from the model, the phases and the images."""

    batch_size: int
    seed: int
    device: torch.device
    augmentation: Augment | None
    precision: str = "float32"  # never TF32; "bf16" is for the attack's view and the training pass
    compile: bool = False
    # The steps between two readings of what they measured; more than 1 needs a fused optimiser.
    read_every: int = 1
    clip_norm: float | None = None
    ema: float | None = None
    awp: float = 0.0  # the share of each layer's norm that its weights are perturbed by; 0 turns it off
    awp_warmup: int = 0  # the epochs before that perturbation begins
    best_by_robust: bool = True
    part_quality: Callable[[nn.Module], Mapping[str, float]] | None = None  # part -> IoU, after each epoch
    best_by_parts: bool = False  # whether their mean chooses the best weights, in place of accuracies
    checkpoint_every: float = 300.0
    deadline: float | None = None  # by time.monotonic; training stops cleanly at the first step after it
    view: Mapping[str, Any] = field(default_factory=dict)  # the options of the view, such as its layer
    after_epoch: Callable[[Mapping[str, Any]], None] | None = None  # given what is recorded of each epoch


@runtime_checkable
class CompiledPasses(Protocol):
    """The passes of a phase's steps in compiled form, which is ``whole_step.WholeStep``."""

    def takes(self, batch: Batch) -> bool:
        """Whether a batch is of the size that was compiled."""
        ...

    def __call__(
        self, batch: Batch, epoch: int, step: int, radii: StepRadii | None
    ) -> tuple[Loss, Mapping[str, Tensor]] | None:
        """The loss on the attacked batch and what the attack counted, with gradients at the parameters; or None."""
        ...


@dataclass
class Running:
    """What a training keeps from step to step.

    Attributes:
        meter: what steps measured and nobody has read.
        whole: the compiled passes of the phase, where ``train.compile`` asks for them.
        checked: whether a step has checked its images and labels. On a device later ones do not, because the host would
            wait for it.
    """

    meter: Meter = field(default_factory=Meter)
    whole: CompiledPasses | None = None
    checked: bool = False

    def door(self, device: torch.device) -> AbstractContextManager[object]:
        """The block of a step's passes, in which images and labels are checked or not."""
        passed, self.checked = self.checked and device.type != "cpu", True
        return after_the_door() if passed else nullcontext()


def train_step(
    batch: Batch,
    size: int,
    epoch: int,
    step: int,
    model: nn.Module,
    view: InferenceView,
    phase: Phase,
    optimizer: Optimizer,
    options: LoopOptions,
    running: Running | None = None,
) -> dict[str, float]:
    """The sums over this process's share of a batch of ``size`` images, after one training step on it.

    With ``running`` they are the sums since its meter was last read, and empty where that is not due. A batch of the
    size that was compiled is then attacked and passed by compiled code.

    Raises:
        BrokenStep: a loss or a gradient was not finite on some process. The weights have not moved since.
    """
    running = Running() if running is None else running
    meter, whole = running.meter, running.whole

    def backward(perturbed: Perturbed | None = None) -> tuple[Perturbed, Loss]:
        optimizer.zero_grad(set_to_none=True)
        perturbed, loss = one_pass(batch, epoch, step, model, view, phase, options, perturbed, size)
        torch.autograd.backward(loss.total * (len(batch) / size))
        return perturbed, loss

    compiled = None
    if whole is not None and whole.takes(batch):
        compiled = whole(batch, epoch, step, phase.radii)
    if compiled is not None:
        loss, counts = compiled
    elif options.awp and epoch >= options.awp_warmup:
        with buffers_kept(model), running.door(options.device):
            perturbed, _ = backward()
        _sum_gradients(model)  # otherwise processes would perturb their weights differently
        with adversarial_weights(model, options.awp):
            _, loss = backward(perturbed)
        counts = perturbed.counts
    else:
        with running.door(options.device):
            perturbed, loss = backward()
        counts = perturbed.counts
    loss_of_all = loss.total.detach() * len(batch)
    _sum_gradients(model, loss_of_all)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    # What is not finite on any process is not finite in a sum.
    meter.note(step, len(batch), loss, counts, checkpoint.finite([loss_of_all, *gradients]))
    measured = meter.read() if meter.is_due else {}
    meter.freeze(optimizer)
    if options.clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), options.clip_norm)
    optimizer.step()
    return measured


def one_pass(
    batch: Batch,
    epoch: int,
    step: int,
    model: nn.Module,
    view: InferenceView,
    phase: Phase,
    options: LoopOptions,
    perturbed: Perturbed | None = None,
    size: int | None = None,
) -> tuple[Perturbed, Loss]:
    """The perturbed images, attacked here unless they are given, and the loss on them.

    Attack and loss draw the same random numbers in every pass of a step. With ``size``, the batch is this
    process's share of ``size`` images, and other processes pass their shares at the same time. Without it,
    the batch is whole.
    """
    if perturbed is None:
        keys = Keys(options.seed, "train", batch.index).fold(epoch)
        perturbed = phase.objective.perturb(view, batch, keys)
    model.train()
    cast = torch.autocast(options.device.type, torch.bfloat16, enabled=options.precision == "bf16")
    whole = nullcontext() if size is None else as_whole(size)
    with seeded(derive(options.seed, "dropout", epoch, step, 0), options.device), cast, whole:
        return perturbed, phase.objective.loss(model, batch, perturbed)


def _sum_gradients(model: nn.Module, *more: Tensor) -> None:
    """Add up the gradients of all processes, so that they act as one process on the whole batch; and ``more``."""
    if distributed.world_size() == 1:
        return
    for p in model.parameters():
        if p.grad is None and p.requires_grad:
            p.grad = torch.zeros_like(p)
    distributed.sum_([*more, *(p.grad for p in model.parameters() if p.grad is not None)])
