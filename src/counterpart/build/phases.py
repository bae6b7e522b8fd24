"""The parts of a configuration's training: its budget, mask rule, phases, schedule and loop options."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .. import devices, distributed
from ..budget import NORMS, Budget
from ..budget.arithmetic import without_checks
from ..catalogue import CONTROLS, METHODS
from ..config import Config
from ..contracts import Objective, Rule
from ..data.transforms import Augment, Augmentation, ResizedCrop
from ..errors import UserError
from ..importance import rules
from ..importance.users_rules import call_users_rule
from ..losses.segmentation import PART_LOSSES, segmentation
from ..objectives import n_fgsm, standard, with_parts
from ..training.epochs import steps_of_epoch
from ..training.eps_low import eps_low_after
from ..training.optimizers import Schedule, adamw, schedule, sgd
from ..training.step import LoopOptions, Phase, StepRadii

READ_EVERY = 20
"""The steps between two readings of what they measured, where the host would wait for a device to read it."""


def build_budget(norm: str, eps: float | Tensor) -> Budget:
    """The budget with the same radius for every image and pixel: a number, or a tensor () that is known to be sound."""
    if isinstance(eps, Tensor):
        return without_checks(NORMS[norm], eps=eps)
    try:
        budget: Budget = NORMS[norm](eps)
    except ValueError as error:
        raise UserError(str(error)) from None
    return budget


def build_training_budget(config: Config) -> Budget:
    """The full budget of the attack inside training."""
    return build_budget(config.attack.norm, config.attack.eps)


def build_rule(config: Config, chosen: float | None = None) -> Rule:
    """The rule by which the method narrows the full budget.

    ``chosen`` is the radius that ``mask.eps_low auto`` has reached, which is eps at first.
    """
    if not config.train.masked:
        return rules.constant
    low = config.mask.eps_low
    if low == "auto":
        low = config.attack.eps if chosen is None else chosen
    return build_mask_rule(config, low)


def build_mask_rule(config: Config, eps_low: float) -> Rule:
    """The budget rule of the settings ``mask``, with ``eps_low`` as its smaller radius."""
    control = CONTROLS[config.mask.control].load()
    options: dict[str, Any] = {"multiply": True} if config.mask.projection == "multiply" else {}
    return partial(rules.draw_budget, eps_low=eps_low, mask=build_mask(config), control=control, **options)


def build_mask(config: Config) -> rules.MaskRule:
    """The mask rule of the settings ``mask``: one of the catalogue with its options, or the user's own."""
    mask = config.mask
    if not mask.entry.inside:
        return call_users_rule(mask.entry, mask.rule_options)
    rule: rules.MaskRule = mask.entry.load()(**mask.rule_options)
    if mask.entry.facts.needs_map:
        return replace(rule, source=rules.MapSource(mask.map, mask.map_class))  # type: ignore[type-var]
    return rule


def mask_needs_map(config: Config) -> bool:
    """Whether the mask rule looks at a map of the model.

    A user's own rule says so by its attribute ``needs_map``.
    """
    facts = config.mask.entry.facts
    return facts.needs_map if config.mask.entry.inside else getattr(build_mask(config), "needs_map", True)


def choose_view_options(config: Config) -> dict[str, Any]:
    """The options of ``InferenceView`` that make its probes hold what the mask rule looks at."""
    mask = config.mask
    masked = config.train.masked or config.evaluate.eps_low is not None
    return {"layer": mask.layer, "attention": mask.attention} if masked and mask.needs_map else {}


def build_phases(config: Config, validation: int = 0) -> list[Phase]:
    """The phases of a run: clean epochs, burn-in and main phase.

    Shares of the epochs are rounded to whole epochs.

    Args:
        config: the configuration of the run.
        validation: the number of validation images, which only ``mask.eps_low auto`` asks for.
    """
    train = config.train
    clean = Phase(
        "clean", train.clean_epochs, with_parts(standard(**_smoothing(config)), **_options_of_parts(config))
    )
    if not train.facts.attacked:
        return [replace(clean, epochs=train.epochs)]
    if not train.masked:
        name = "adversarial" if train.method == "at" else train.method  # stored records name it so
        phases = [clean, _build_attacked_phase(config, name, train.epochs, rules.constant)]
    else:
        burn_in = _count_burn_in(config)
        masked = _build_masked_phase(config, train.epochs - burn_in, validation)
        phases = [clean, _build_attacked_phase(config, "burn-in", burn_in, rules.constant), masked]
    return [phase for phase in phases if phase.epochs]


def _build_attacked_phase(config: Config, name: str, epochs: int, rule: Rule, **chosen: Any) -> Phase:
    """A phase of the method under a budget rule, whose radius may grow at the start of the run."""
    full, adapts = _full_radii(config), config.mask.eps_low == "auto"
    make = _make_objectives(config, **chosen)
    phase = Phase(name, epochs, make(rule, full))
    if not config.attack.eps_warmup and not adapts:
        return phase

    def at_radii(radii: StepRadii) -> Objective:
        narrowed: Any = rule
        if rule is not rules.constant:
            narrowed = partial(narrowed, eps_low=radii.eps_low)
        return make(narrowed, radii)

    def grow(moment: float) -> StepRadii:
        share = _grown_share(config, moment)
        eps = share * config.attack.eps
        step_size = None if config.attack.step_size is None else share * config.attack.step_size
        return StepRadii(eps, min(full.eps_low, eps), step_size)

    growing = grow if config.attack.eps_warmup else None
    return replace(phase, radii=full, at_radii=at_radii, growing=growing)


def _full_radii(config: Config) -> StepRadii:
    """The radii of training as the settings have them. ``mask.eps_low auto`` begins at eps."""
    attack, low = config.attack, config.mask.eps_low
    return StepRadii(attack.eps, attack.eps if low == "auto" else low, attack.step_size)


def _grown_share(config: Config, moment: float) -> float:
    """The share of ``attack.eps`` that training's radius has at a moment, in epochs since the start of the run.

    It grows in a line from 0 in the first attacked step to 1 after ``attack.eps_warmup`` epochs. Debenedetti,
    Sehwag and Mittal 2022, arXiv 2209.07399, train transformers so ("epsilon-warmup"). Differs from their code,
    where the radius grows once in an epoch and the step has its full length from the start.
    """
    return min(1.0, (moment - config.train.clean_epochs) / config.attack.eps_warmup)


def _build_masked_phase(config: Config, epochs: int, validation: int) -> Phase:
    """The phase in which a mask narrows the budgets."""
    mask, full = config.mask, _full_radii(config)
    chosen: dict[str, Any] = {} if mask.drawn_from is None else {"drawn_from": mask.drawn_from}
    phase = replace(
        _build_attacked_phase(config, config.train.method, epochs, build_rule(config), **chosen),
        refresh_epochs=mask.refresh_epochs,
        map_class=mask.map_class,
        map_kind=mask.map,
    )

    def adapt(validated: Sequence[Sequence[float]]) -> Phase:
        accuracies = [(robust, masked) for _, robust, masked in validated]
        low = eps_low_after(accuracies, images=validation, eps=config.attack.eps)
        following = phase.within(full._replace(eps_low=low))
        return replace(following, chosen={"eps_low": low}, masked=build_rule(config, low))

    return replace(phase, adapt=adapt) if mask.eps_low == "auto" else phase


def _count_burn_in(config: Config) -> int:
    """The number of epochs with the full budget before masks begin."""
    share, epochs = config.mask.burn_in, config.train.epochs
    whole = round(share * epochs)
    if 0 < share < 1 and epochs > 1:  # short runs shall have both phases too
        return min(max(1, whole), epochs - 1)
    return whole


def _make_objectives(config: Config, **chosen: Any) -> Callable[[Rule, StepRadii], Objective]:
    """A function that gives the objective of the method under a budget rule, with its full radius and its step.

    It looks at no settings and loads no code, because compiled code calls it.
    """
    train, attack = config.train, config.attack
    options: dict[str, Any] = _smoothing(config)
    if train.facts.robust_term:
        options |= {"beta": train.beta, "bn_batches": train.bn_batches}
    make = METHODS[train.method].load()
    if attack.generation == "n-fgsm":
        make = n_fgsm
        options["noise"] = attack.noise
    else:
        options["steps"] = attack.steps
    if attack.generation == "minimum-margin":
        options["targets"] = attack.targets
    norm, part_options = attack.norm, _options_of_parts(config)

    def at(rule: Rule, radii: StepRadii) -> Objective:
        budget = build_budget(norm, radii.eps)
        objective = make(budget=budget, rule=rule, step_size=radii.step_size, **options, **chosen)
        return with_parts(objective, **part_options)

    return at


def _options_of_parts(config: Config) -> dict[str, Any]:
    """The options of the loss of parts. Its weight is 0 where the run has none."""
    part_loss, weight = PART_LOSSES[config.train.part_loss], config.train.background_weight
    if weight != 1:  # which the loss "segmentation" alone has
        part_loss = partial(segmentation, background_weight=weight)
    return {"c_seg": config.c_seg, "part_loss": part_loss, **_smoothing(config)}


def _smoothing(config: Config) -> dict[str, Any]:
    return {"label_smoothing": config.train.label_smoothing}


def _is_fused(config: Config, device: torch.device) -> bool:
    """Whether the optimiser takes its step in one kernel, which can leave it out without a word to the host."""
    return device.type == "cuda" or config.train.compile


def build_optimizer(config: Config, model: nn.Module) -> Optimizer:
    """The optimiser of a model's parameters."""
    settings = config.optimizer
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    options: dict[str, Any] = {
        "fused": True if _is_fused(config, device) else None,
        "lr": settings.lr,
        "weight_decay": settings.weight_decay,
        "decay_norm": settings.decay_norm,
        "no_decay": settings.no_decay,
        "encoder_scale": settings.encoder_scale,
    }
    if settings.name == "adamw":
        return adamw(model, **options)
    return sgd(model, momentum=settings.momentum, nesterov=settings.nesterov, **options)


def build_schedule(config: Config, images: int) -> Schedule:
    """The learning rate by absolute epoch. The clean epochs at the start have a schedule of their own.

    ``images`` is the number of training images, which say how many steps an epoch has.
    """
    optimizer, clean = config.optimizer, config.train.clean_epochs
    steps = steps_of_epoch(images, config.train.batch_size)
    for name, epochs in (("clean_epochs", clean), ("epochs", config.train.epochs)):
        if 0 < (every := steps * epochs) <= optimizer.warmup_steps:
            raise UserError(
                f"optimizer.warmup_steps {optimizer.warmup_steps} leaves none of the {every} steps of train.{name} to "
                "optimizer.lr: give fewer."
            )
    of_length = partial(
        schedule,
        optimizer.schedule,
        lr=optimizer.lr,
        milestones=optimizer.milestones,
        gamma=optimizer.gamma,
        warmup_epochs=optimizer.warmup_epochs,
        warmup_steps=optimizer.warmup_steps,
        steps=steps,
    )
    before, main = of_length(epochs=clean), of_length(epochs=config.train.epochs)
    return lambda epoch: before(epoch) if epoch < clean else main(epoch - clean)


def build_loop_options(config: Config, device: torch.device, deadline: float | None = None) -> LoopOptions:
    """The options of the training loop, with the deadline at which it stops."""
    train = config.train
    precision = train.precision
    if precision == "auto":
        precision = "bf16" if devices.has_bf16(device) else "float32"
    if device.type == "mps" and distributed.world_size() > 1:
        raise UserError("mps runs one process only; start without torchrun, or with --device cpu.")
    return LoopOptions(
        batch_size=train.batch_size,
        seed=config.seed,
        device=device,
        augmentation=_build_augmentation(config),
        precision=precision,
        compile=train.compile,
        read_every=READ_EVERY if _is_fused(config, device) else 1,
        clip_norm=config.optimizer.clip_norm,
        ema=train.ema,
        awp=train.awp,
        awp_warmup=train.awp_warmup,
        best_by_robust=train.facts.attacked,
        checkpoint_every=train.checkpoint_every,
        deadline=deadline,
        view=choose_view_options(config) if train.masked else {},
    )


def _build_augmentation(config: Config) -> Augment | None:
    data = config.data
    if data.crop == "resized":
        return ResizedCrop(flip=data.flip)
    return Augmentation(data.padding, data.flip) if data.padding or data.flip else None
