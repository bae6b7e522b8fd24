"""The training of a configuration's run, which an interrupted run continues."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from .. import build, devices, distributed, hosts
from ..attacks import pgd
from ..batch import Batch
from ..budget import Budget
from ..config import Config, identity, plain, resolve
from ..contracts import Rule
from ..data.image_sets import ImageSet, Splits, balanced_subset
from ..data.labels import parts_that_stay
from ..data.mask_files import masks_fingerprint
from ..data.transforms import as_floats
from ..errors import UserError
from ..evaluation import validation
from ..evaluation.answers import logits_of
from ..evaluation.model_checks import data_doubts
from ..evaluation.part_quality import count_parts, part_ious
from ..evaluation.weights import weights_hash
from ..models.forms import Form
from ..models.hub import start_from
from ..models.inference import InferenceView
from ..models.normalize import ImageClassifier
from ..progress import stage
from ..records import Record
from ..rundir import RunDir
from ..seeding import Keys
from ..training import checkpoint
from ..training.epoch_record import VALIDATED, VALIDATED_PARTS
from ..training.loop import Validate, fit
from .notes import say
from .seeds import aggregate
from .stored_models import weights_of
from .views import training_form

VALIDATION_BATCH = 256
PART_WEIGHTS = ("segmenter.", "part_heads.")  # in the names of a part model's tensors, and of no classifier's
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A run, and whether it reached its last epoch, or ``train.stop_after`` ended it before."""

    run: RunDir
    finished: bool


def train(
    config: Config,
    deadline: float | None = None,
    *,
    data: Splits | None = None,
    model: nn.Module | None = None,
    watch: Callable[[Mapping[str, Any]], None] | None = None,
) -> Trained:
    """The run of a configuration, trained or continued in the folder ``config.runs / config.name``.

    Args:
        config: the configuration of the run.
        deadline: the time by ``time.monotonic`` at which training stops. The default is ``train.stop_after``
            from now.
        data: images that a program holds, in place of the data set that the configuration names.
        model: a network that a program holds, in place of the configuration's. A copy of it is trained.
        watch: a function that is given the details of each epoch's record, after the checkpoint was written.
            What it raises ends the training, and goes on to the caller.

    Raises:
        UserError: something is wrong that the user can mend. Nothing is written before data and model are
            known to be good.
        KeyboardInterrupt: Ctrl-C or SIGTERM asked for a stop, and a checkpoint has been written.
    """
    distributed.start()
    run = RunDir(config.runs / (config.name or "run"))
    with hosts.hold(run.training_lock, f"the training {run.path}", config.wait):
        return _train(config, run, _deadline(config) if deadline is None else deadline, data, model, watch)


def _train(
    config: Config,
    run: RunDir,
    deadline: float | None,
    data: Splits | None,
    model: nn.Module | None,
    watch: Callable[[Mapping[str, Any]], None] | None,
) -> Trained:
    """The run of a configuration, while nobody else trains it."""
    for file in (run.records_file, run.progress_log):
        run.refuse_links_out(file)
    device = devices.resolve(config.device, config.threads)
    _refuse_settings_of_judging(config)
    if not distributed.from_main(run.config_file.exists()):  # a run that was begun with them goes on
        _refuse_masks_that_nothing_draws(config)
    say(build.name_users_code(config))
    masks_for = "train" if config.train.masked else None
    with stage(f"reading {config.data.name}"):
        data = build.load_splits(config, device, masks_for=masks_for, loaded=data)
    say(data.notes)
    _say_what_is_shared(data)
    validation = _validation_images(config, data)
    _check_targets(config, len(data.train.classes))
    about_model = build.describe_model(config, data)
    model = _new_model(config, about_model) if model is None else deepcopy(model)
    model.to(device)
    _check_answers(model, data, device)
    form, why = training_form(run, model, data.train, device)
    say([] if why is None else [why])
    _check_saliency(config, model, data.train, device, form)
    optimizer, rate = build.build_optimizer(config, model), build.build_schedule(config, len(data.train))
    if distributed.is_main():
        run.create(plain(config), partial(_identity, run=run))
        run.sweep()
    distributed.barrier()

    masks = masks_fingerprint(data.train)
    about = {
        "model": about_model,
        "classes": list(data.train.classes),
        "data": data.train.name,
        "fingerprint": data.train.fingerprint,
        "config": build.hash_config(config),
        **({} if masks is None else {"masks": masks}),
        **({} if (staying := parts_that_stay(data.train)) is None else {"parts": staying}),
        **({} if form == "fast" else {"view": form}),
    }
    _refuse_differing_hosts(about, model)
    finished = fit(
        model,
        build.build_phases(config, len(validation)),
        data.train,
        run=run,
        optimizer=optimizer,
        rate=rate,
        validate=_validator(config, validation, device),
        options=replace(
            build.build_loop_options(config, device, deadline),
            part_quality=_part_quality(config, validation, device),
            best_by_parts=config.c_seg == 1,  # its classes are never learned
            after_epoch=watch,
        ),
        about=about,
    )
    return Trained(run, finished)


def _refuse_differing_hosts(about: Mapping[str, Any], model: nn.Module) -> None:
    """Refuse processes that are about to train another run than the main one."""
    if distributed.world_size() == 1:
        return
    names = {"config": "the settings", "fingerprint": "the data", "masks": "the masks"}
    facts = {words: about.get(name) for name, words in names.items()}
    hosts.same_everywhere({**facts, "the weights at the start": weights_hash(model)})


def _refuse_settings_of_judging(config: Config) -> None:
    """Refuse settings of the images that only make sense for a model that is judged."""
    if config.data.shift != "none":
        raise UserError(
            "data.shift is for judging a model: training and its validation take images as they are."
        )
    if config.data.class_map is not None:
        raise UserError(
            "data.class_map is for evaluating a model on other classes; training gives it the data's own."
        )
    if config.data.split_of is not None:
        raise UserError("data.split_of is for judging a model: training takes data.name and data.root.")


def _refuse_masks_that_nothing_draws(config: Config) -> None:
    """Refuse settings of masks where neither the training nor its evaluations draw any."""
    if config.train.masked:
        return
    under_masks = config.evaluate.eps_low is not None
    try:
        config.mask.refuse_without_masks(config.train.method, attacked_under_masks=under_masks)
    except ValueError as error:
        raise UserError(f"{error}.") from None


def _validation_images(config: Config, data: Splits) -> ImageSet:
    """The images that are validated on, none of them with ``data.validation 0``.

    Raises:
        UserError: there are none, and something is to be chosen by them.
    """
    images, count = data.validation, config.train.validation_n
    if len(images) == 0:
        if config.train.masked and config.mask.eps_low == "auto":
            raise UserError(
                "mask.eps_low auto chooses by validation images, and there are none: give a number."
            )
        if count is not None:
            raise UserError(f"train.validation_n {count}: there are no validation images. Leave it out.")
    return images if count is None else balanced_subset(images, count, seed=0)


def _part_quality(
    config: Config, images: ImageSet, device: torch.device
) -> Callable[[nn.Module], Mapping[str, float]] | None:
    """What measures how well parts are found after each epoch: {part: IoU} on the validation images that have masks.

    None where no parts are learned, or there are no such images.
    """
    if config.c_seg == 0 or images.parts is None or len(images.annotated()) == 0:
        return None

    def measure(model: nn.Module) -> Mapping[str, float]:
        counts = count_parts(
            model, model, images, attack=None, budget_of=lambda _: build.build_training_budget(config),
            batch_size=VALIDATION_BATCH, device=device, seed=config.seed,
        )  # fmt: skip
        return part_ious(counts)

    return measure


def _new_model(config: Config, about: Mapping[str, Any]) -> nn.Module:
    """The network of a configuration, with the weights that training starts from."""
    settings = config.model
    from_file = settings.init is not None or settings.encoder_init is not None
    model = build.build_model(about, config.seed, pretrained=settings.pretrained and not from_file)
    if settings.init is not None:
        weights, source = weights_of(settings.init)
        if settings.segments and not any(module in name for module in PART_WEIGHTS for name in weights):
            raise UserError(
                f"{source} holds no part model: --model.encoder-init starts the encoder alone from its weights."
            )
        start_from(model, weights, source, settings.name)
    if settings.encoder_init is not None:
        from ..models.encoder_weights import start_encoder_from  # timm takes long to import

        assert isinstance(model, ImageClassifier)
        weights, source = weights_of(settings.encoder_init)
        say([start_encoder_from(model, weights, source, settings.encoder)])
    return model


def _check_answers(model: nn.Module, data: Splits, device: torch.device) -> None:
    """Refuse, before anything is written, a user's network that does not answer with the data's classes."""
    if isinstance(model, ImageClassifier):
        return
    first = as_floats(data.train.read(torch.arange(1)).to(device))
    try:
        answers = logits_of(model, first).shape[1]
    except Exception as error:  # the user's own code may raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        shape = "x".join(map(str, data.train.shape))
        raise UserError(f"the network does not answer for an image of {shape}: {reason}") from error
    if answers != len(data.train.classes):
        raise UserError(
            f"the network answers with {answers} classes, and {data.train.name} has {len(data.train.classes)}: "
            "give a network with one logit for each class."
        )


def _identity(config: Mapping[str, Any], run: RunDir) -> dict[str, Any]:
    """The settings that may not differ between two starts of a run.

    A setting that is younger than the run counts as its default there.
    """
    return identity(plain(resolve(config, source=str(run.config_file))))


def train_seeds(config: Config, seeds: Sequence[int]) -> list[Trained]:
    """The runs of one configuration from several seeds, which are trained into ``<name>/seed-<k>``.

    This prints the mean and the standard deviation of the best weights' validation accuracies, and keeps them
    as records of the group folder ``<name>``. ``train.stop_after`` counts from here on, for all seeds
    together.
    """
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seeds {', '.join(map(str, seeds))} name a seed twice: give each seed once.")
    group, deadline = config.name or "run", _deadline(config)
    trained = []
    for seed in seeds:
        of_seed = config.model_copy(update={"seed": seed, "name": f"{group}/seed-{seed}"})
        trained.append(train(of_seed, deadline))
        if not trained[-1].finished:  # there is no time left: the next seed would only start and stop
            return trained
    if distributed.is_main():
        tables = [best_validation(t.run) for t in trained]
        if tables[0]:
            aggregate(RunDir(config.runs / group), tables, seeds)
    return trained


def _deadline(config: Config) -> float | None:
    after = config.train.stop_after
    return None if after is None else time.monotonic() + after


def _say_what_is_shared(data: Splits) -> None:
    """Warn of validation and test images that the model is about to learn from."""
    if distributed.is_main():
        for judged in (data.validation, data.test):
            for doubt in data_doubts(judged, data.train):
                _log.warning("%s: %s", doubt.name, doubt.text)


def _check_targets(config: Config, classes: int) -> None:
    """Refuse, before anything is written, more targets than there are wrong classes."""
    if config.attack.generation == "minimum-margin" and config.attack.targets >= classes:
        raise UserError(
            f"attack.targets {config.attack.targets} of {classes - 1} wrong classes: {config.data.name} has {classes}. "
            f"Use --attack.targets {classes - 1}."
        )


def _check_saliency(
    config: Config, model: nn.Module, images: ImageSet, device: torch.device, form: Form
) -> None:
    """Refuse, before anything is written, a model that maps cannot be drawn from."""
    if not config.train.masked:
        return
    channels, rule, facts = images.shape[0], config.mask.rule, config.mask.entry.facts
    if facts.channels not in (None, channels):
        raise UserError(
            f"mask.rule {rule} colours red, green and blue, but the images have {channels} channel"
            f"{'s' if channels > 1 else ''}. Use another rule, such as paper."
        )
    if facts.parts == "annotated" and images.parts is None:
        raise UserError(
            f"mask.rule {rule}: {images.name} has no annotated parts. Use another rule or data set."
        )
    if not build.mask_needs_map(config):
        return
    first = as_floats(images.read(torch.arange(min(2, len(images)))).to(device))
    view = InferenceView(model, form=form, **build.choose_view_options(config))
    if view.probe(first).features is None and not config.mask.attention:
        maps = "--mask.map attention-rollout or attention-gradient, " if view.attends else ""
        raise UserError(
            f"{config.model.name} shows no feature map before its head, so method {config.train.method} cannot "
            f"draw a class activation map there. Use {maps}an inner layer with --mask.layer, --mask.rule centre or "
            "--train.method at."
        )


def _validator(config: Config, images: ImageSet, device: torch.device) -> Validate:
    full = build.build_training_budget(config)

    def validate(model: nn.Module, view: InferenceView, rule: Rule | None = None, /) -> tuple[float, ...]:
        if len(images) == 0:
            return ()
        quick = partial(
            validation.quick,
            model,
            view,
            images,
            attack=partial(pgd, steps=config.train.validation_steps),
            batch_size=VALIDATION_BATCH,
            device=device,
            seed=config.seed,
            finish=view.precision != "float32",
        )
        clean, robust = quick(budget_of=lambda _: full)
        if rule is None:
            return clean, robust

        def drawn(batch: Batch) -> Budget:
            keys = Keys(config.seed, "validation mask", batch.index)
            return rule(view.probe(batch.images), batch, keys, full)

        return clean, robust, quick(budget_of=drawn)[1]

    return validate


def best_validation(run: RunDir) -> list[Record]:
    """The records of what a run's best weights reached on the validation images; none where there were none."""
    epoch = checkpoint.read(run.checkpoint("best"))[1]["epoch"]
    row = next(r for r in run.records() if r.kind == "epoch" and r.details["epoch"] == epoch)
    details = {"split": "validation", "weights": "best", "fingerprint": row.details["fingerprint"]}
    names = [name for name in (*VALIDATED[:2], VALIDATED_PARTS) if name in row.details]
    return [Record("metric", name, row.details[name], seed=row.seed, details=details) for name in names]
