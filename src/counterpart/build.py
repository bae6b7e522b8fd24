"""From a configuration to live objects: the only reader of the name tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from . import devices, distributed
from .attacks import ATTACKS, official, transfer
from .attacks.auto_attack import suite as autoattack_suite
from .attacks.on_parts import Guides, sorted_guides
from .budget import NORMS, Budget
from .config import (
    ATTACK_OPTIONS,
    MAPLESS,
    Config,
    Evaluate,
    EvaluationAttack,
    identity,
    plain,
    readable,
)
from .data import DATA_SETS
from .data.image_sets import ImageSet, Splits, balanced_subset
from .data.labels import keep_labels, relabelled
from .data.mask_files import with_masks
from .data.shifts import shifted
from .data.transforms import Augment, Augmentation, ResizedCrop
from .errors import UserError
from .importance import rules
from .losses.classification import LOSSES
from .losses.segmentation import PART_LOSSES
from .models import create
from .models.normalize import ImageClassifier
from .objectives import adversarial, mart, standard, trades, with_parts
from .protocols import Attacked, Classifier, NamedAttack, Objective, PartModel, Rule
from .records import fingerprint
from .seeding import derive, seeded
from .training.eps_low import eps_low_after
from .training.optimizers import Schedule, schedule
from .training.step import Phase, Settings

# What each method minimises; "part" is the same under a rule drawn from maps.
BASES: dict[str, Callable[..., Objective]] = {
    "at": adversarial, "trades": trades, "mart": mart,
    "part": adversarial, "part-t": trades, "part-m": mart,
}  # fmt: skip


def config_hash(config: Config) -> str:
    """What makes a run what it is, in twelve hex digits."""
    return fingerprint(identity(plain(config)))


def method_name(config: Config) -> str:
    """The method as tables name it."""
    method = config.train.method
    name = method if method == "clean" else method.upper()
    return name + (_variant(config) if config.train.masked else "") + _options(config)


def _variant(config: Config) -> str:
    """How a PART run differs from the paper's mask: ", soft mask, shuffled control"."""
    mask = config.mask
    words = [f"{mask.rule} mask"] if mask.rule != "paper" else []
    words += [f"{mask.map} map"] if mask.map != "grad-cam" else []
    words += [f"layer {mask.layer}"] if mask.layer is not None else []
    words += [f"{mask.control} control"] if mask.control != "none" else []
    words += ["eps_low auto"] if mask.eps_low == "auto" else []
    return "".join(f", {word}" for word in words)


def _options(config: Config) -> str:
    """What else a run has that a user picks models by: ", minimum margin, AWP"."""
    train = config.train
    words = ["minimum margin"] if config.attack.generation == "minimum-margin" else []
    words += [f"label smoothing {train.label_smoothing:g}"] if train.label_smoothing else []
    words += ["AWP"] if train.awp else []
    words += ["EMA"] if train.ema is not None else []
    return "".join(f", {word}" for word in words)


def splits(config: Config, device: torch.device, masks_for: str | None = None, **options: Any) -> Splits:
    """The data set; small ones live on the device. ``options`` go to its reader.

    ``masks_for`` names the split that needs the user's own masks, if the settings ``part`` ask for them.
    """
    data = config.data
    given = {"validation": data.validation, "size": data.size, "download": data.download}
    given |= {} if data.channels is None else {"channels": data.channels}
    loaded = DATA_SETS[data.name](data.root, **{**given, **options})
    if masks_for is not None and config.mask.files is not None:
        loaded = with_masks(loaded, config.mask.files, masks_for)
    train = loaded.train if data.limit is None else balanced_subset(loaded.train, data.limit, seed=0)
    if train.parts is not None:
        train = keep_labels(train, data.labelled)
    judged = [shifted(s, data.shift) for s in (loaded.validation, loaded.test)]
    sets = [relabelled(s, data.labels) for s in (train, *judged)]
    return Splits(*(s if s.pixels is None else s.to(device) for s in sets))


def about_model(config: Config, data: Splits) -> dict[str, Any]:
    """What is needed to rebuild a run's model."""
    channels, height, _ = data.train.shape
    about: dict[str, Any] = {
        "name": config.model.name,
        "num_classes": len(data.train.classes),
        "width": config.model.width,
        "in_channels": channels,
        "image_size": height,
        **({} if config.model.patch_size is None else {"patch_size": config.model.patch_size}),
    }
    if config.model.name.startswith("parts/"):
        owners = part_classes(data.train)
        if config.train.part_loss != "segmentation" and min(owners, default=0) < 0:
            raise UserError(
                f"train.part_loss {config.train.part_loss} needs parts that belong to one class each: use "
                "segmentation, or other data.labels."
            )
        about["parts"] = {"part_classes": owners, **config.model.part_options()}
    return about


def part_classes(images: ImageSet) -> list[int]:
    """The class of each part, from part 1 on; -1 for a part of several classes. Empty if there are no parts."""
    names = {} if images.parts is None else images.parts.names
    owners: dict[int, set[int]] = {}
    for name, parts in names.items():
        for number in parts.values():
            owners.setdefault(number, set()).add(images.classes.index(name))
    found = [owners.get(number, set()) for number in range(1, max(owners, default=0) + 1)]
    return [next(iter(classes)) if len(classes) == 1 else -1 for classes in found]


def model(about: Mapping[str, Any], seed: int, pretrained: bool = False) -> ImageClassifier:
    """A network, freshly initialised from the seed."""
    with seeded(derive(seed, "initialisation")):
        return create(**about, pretrained=pretrained)


def budget(norm: str, eps: float) -> Budget:
    """The same radius for every image and pixel."""
    try:
        made: Budget = NORMS[norm](eps)
    except ValueError as error:
        raise UserError(str(error)) from None
    return made


def training_budget(config: Config) -> Budget:
    """What the attack inside training may do at most."""
    return budget(config.attack.norm, config.attack.eps)


def rule(config: Config, chosen: float | None = None) -> Rule:
    """The budget rule of the method; ``chosen`` is the radius that ``mask.eps_low auto`` has come to, eps at first."""
    if not config.train.masked:
        return partial(rules.constant, budget=training_budget(config))
    low, eps = config.mask.eps_low, config.attack.eps
    if low == "auto":
        low = eps if chosen is None else chosen
    return mask_rule(config, eps, low)


def mask_rule(config: Config, eps: float, eps_low: float) -> Rule:
    """The mask of the settings ``part``, with these two radii."""
    mask = config.mask
    return partial(
        rules.part,
        eps=eps,
        eps_low=eps_low,
        mask=mask.rule,
        control=mask.control,
        kind=mask.map,
        map_class=mask.map_class,
        quantile=mask.quantile,
        quadrant=mask.quadrant,
    )


def shown(config: Config) -> dict[str, Any]:
    """What a view has to show in its probes for the mask of the settings ``part``: options of ``InferenceView``."""
    mask = config.mask
    mapped = (config.train.masked or config.evaluate.eps_low is not None) and mask.rule not in MAPLESS
    return {"layer": mask.layer, "attention": mask.attention} if mapped else {}


def phases(config: Config, validation: int = 0) -> list[Phase]:
    """Clean epochs, burn-in and main phase; shares of the epochs are rounded to whole ones.

    Args:
        config: the run.
        validation: how many validation images it has; only ``mask.eps_low auto`` asks.
    """
    epochs, method, attack = config.train.epochs, config.train.method, config.attack
    smoothing, part_loss = config.train.label_smoothing, PART_LOSSES[config.train.part_loss]
    parted = partial(with_parts, c_seg=config.c_seg, part_loss=part_loss, label_smoothing=smoothing)
    options: dict[str, Any] = {"label_smoothing": smoothing}
    clean = Phase("clean", config.train.clean_epochs, parted(standard(**options)))
    if method == "clean":
        return [replace(clean, epochs=epochs)]
    full = training_budget(config)
    base = BASES[method]
    if base is not adversarial:
        options |= {"beta": config.train.beta, "bn_batches": config.train.bn_batches}
    if attack.generation == "minimum-margin":
        options["targets"] = attack.targets

    def make(**chosen: Any) -> Objective:
        attacked = {"budget": full, "steps": attack.steps, "step_size": attack.step_size}
        return parted(base(**attacked, **options, **chosen))

    unmasked = make(rule=partial(rules.constant, budget=full))
    if not config.train.masked:
        last = Phase("adversarial" if method == "at" else method, epochs, unmasked)
        return [phase for phase in (clean, last) if phase.epochs]
    mask = config.mask
    burn_in = round(mask.burn_in * epochs)
    if 0 < mask.burn_in < 1 and epochs > 1:  # short runs have both phases too
        burn_in = min(max(1, burn_in), epochs - 1)
    chosen = {} if mask.drawn_from is None else {"drawn_from": mask.drawn_from}
    main = make(rule=rule(config), **chosen)
    last = Phase(method, epochs - burn_in, main, mask.refresh_epochs, mask.map_class, mask.map)

    def adapt(validated: Sequence[Sequence[float]]) -> Phase:
        low = eps_low_after(
            [(full, masked) for _, full, masked in validated], images=validation, eps=attack.eps
        )
        drawn = rule(config, low)
        return replace(last, objective=make(rule=drawn, **chosen), chosen={"eps_low": low}, masked=drawn)

    if mask.eps_low == "auto":
        last = replace(last, adapt=adapt)
    return [phase for phase in (clean, Phase("burn-in", burn_in, unmasked), last) if phase.epochs]


def rate(config: Config) -> Schedule:
    """The learning rate by absolute epoch; the clean epochs before have a schedule of their own."""
    o, clean = config.optimizer, config.train.clean_epochs
    of_length = partial(
        schedule, o.schedule, lr=o.lr, milestones=o.milestones, gamma=o.gamma, warmup_epochs=o.warmup_epochs
    )
    before, main = of_length(epochs=clean), of_length(epochs=config.train.epochs)
    return lambda epoch: before(epoch) if epoch < clean else main(epoch - clean)


def settings(config: Config, device: torch.device, deadline: float | None = None) -> Settings:
    """How to train, and until when."""
    train, data = config.train, config.data
    precision = train.precision
    if precision == "auto":
        precision = "bf16" if devices.has_bf16(device) else "float32"
    if device.type == "mps" and distributed.world_size() > 1:
        raise UserError("mps runs one process only; start without torchrun, or with --device cpu.")
    augmentation: Augment | None = ResizedCrop(flip=data.flip)
    if data.crop == "padded":
        moves = data.padding or data.flip
        augmentation = Augmentation(data.padding, data.flip) if moves else None
    return Settings(
        batch_size=train.batch_size,
        seed=config.seed,
        device=device,
        augmentation=augmentation,
        precision=precision,
        compile=train.compile,
        clip_norm=config.optimizer.clip_norm,
        ema=train.ema,
        awp=train.awp,
        awp_warmup=train.awp_warmup,
        best_by_robust=train.method != "clean",
        checkpoint_every=train.checkpoint_every,
        deadline=deadline,
        shown=shown(config) if train.masked else {},
    )


def evaluation_attacks(
    evaluate: Evaluate,
    norm: str,
    classes: int,
    load: Callable[[str], Classifier],
    *,
    model: nn.Module,
    images: ImageSet,
) -> list[NamedAttack]:
    """The attacks of an evaluation, named by what they do: "PGD-20", "PGD-50x5 margin", "apgd-t target 3".

    Args:
        evaluate: names and options.
        norm: of the budget; AutoAttack's suites depend on it.
        classes: K, of the model.
        load: the model of a target, for transfer attacks.
        model: the attacked one; attacks on parts ask how it predicts them.
        images: the evaluated ones, whose masks attacks on parts may lead to.

    Raises:
        UserError: an attack does not have the norm or so many classes, two are the same, or one aims at parts of a
            model or of images that have none.
    """
    made = []
    for spec in evaluate.attacks:
        row = ATTACKS[spec.attack] if spec.attack != "autoattack" else None
        options = dict(spec.options)
        if row is None:
            ours = evaluate.engine == "counterpart"
            version = options["version"]
            made += autoattack_suite(version, norm, classes) if ours else official.suite(version, classes)
            continue
        if norm not in row.norms:
            raise UserError(f"attack {spec.attack} has no {norm}: it has {', '.join(row.norms)}.")
        for name in ("target", "targets"):
            if (options.get(name) or 1) > classes - 1:
                raise UserError(
                    f"attack {spec.attack}: {name} {options[name]} of {classes - 1} wrong classes; "
                    f"the model has {classes}."
                )
        if "loss" in options:
            options["loss"] = LOSSES[options["loss"]]
        if row.parts:
            options |= _part_options(spec, model, images)
        attack: Callable[..., Attacked] = partial(row.attack, **options)
        if spec.surrogate is not None:
            attack = partial(transfer, surrogate=load(spec.surrogate), attack=attack)
        name = _name(spec)
        made.append(NamedAttack(name, attack, name, row.parts))
    names = [one.name for one in made]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"evaluate.attacks names the same attack twice: {twice}.")
    return made


def _part_options(spec: EvaluationAttack, model: nn.Module, images: ImageSet) -> dict[str, Any]:
    """What an attack on parts must know of the model, and the masks that it may lead to."""
    if not isinstance(model, PartModel):
        raise UserError(
            f"attack {spec.attack} aims at parts, and this model predicts none: evaluate a part model (model.name "
            "parts/...), or leave the attack out."
        )
    if images.parts is None or not images.parts.there.any():
        raise UserError(
            f"attack {spec.attack} needs images with annotated parts, and {images.name} has none: use data.name parts "
            "or synthetic-parts, or leave the attack out."
        )
    options: dict[str, Any] = {"full_resolution": model.full_resolution}
    if spec.options.get("strategy", "untargeted") == "untargeted":
        return options
    there = images.parts.there.nonzero()[:, 0].cpu()
    guides = Guides(lambda rows: images.read_parts(there[rows.cpu()]), images.labels.cpu()[there])
    owners = torch.unique(guides.classes).tolist()
    if spec.options["strategy"] == "sorted":
        device = next(model.parameters()).device
        with torch.no_grad():
            found = model.forward_parts(torch.zeros(1, *images.shape, device=device)).part_logits
        try:
            guides = sorted_guides(guides, model, found.shape[1] - 1, (found.shape[2], found.shape[3]))
        except UserError as error:
            raise UserError(
                f"attack two-staged, strategy sorted: {error} Use another strategy; of parts-worst-case, list the "
                "other attacks (docs/parts.md)."
            ) from None
    elif len(owners) == 1 and (images.labels == owners[0]).any():
        raise UserError(  # before an hour of other attacks
            f"attack two-staged leads to masks of wrong classes, and only {images.classes[owners[0]]} has masks: "
            "evaluate on images with masks of two classes, use strategy untargeted, or leave the attack out."
        )
    return options | {"guides": guides}


def _name(spec: EvaluationAttack) -> str:
    options, defaults = spec.options, ATTACK_OPTIONS[spec.attack]
    short = {
        "minimum-margin": "MM", "random-search": "random search", "square": "Square", "rays": "RayS",
        "single-staged": "single-staged", "two-staged": "two-staged",
    }  # fmt: skip
    name = short.get(spec.attack, spec.attack.upper())
    name += f"{options['targets']}" if "targets" in options else ""
    count = next((options[k] for k in ("steps", "queries", "draws") if k in options), None)
    name += f"-{count}" if count is not None else ""
    name += f"x{options['restarts']}" if options.get("restarts", 1) > 1 else ""
    words = {
        "loss": "", "target": "target ", "eot": "eot ", "step_size": "step ", "share": "share ", "strategy": "",
    }  # fmt: skip
    for option, word in words.items():
        if option in options and options[option] != defaults[option]:
            shown = options[option]
            name += f" {word}{readable(shown) if isinstance(shown, float) else shown}"
    name += "" if options.get("aimed", True) else " unaimed"
    name += " published" if options.get("published") else ""
    return name if spec.surrogate is None else f"{name} from {spec.surrogate}"
