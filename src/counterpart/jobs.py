"""What the commands do: train, evaluate and use the models of run folders."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from . import build, devices, distributed
from .aggregate import over_seeds
from .attacks import pgd
from .config import Config, identity, plain, resolve
from .data.class_map import mapped
from .data.decoding import decode
from .data.image_sets import ImageSet, balanced_subset
from .data.transforms import as_floats
from .errors import UserError
from .evaluation import accuracy
from .evaluation.panel import write_panel
from .importance.rules import constant
from .models.backbones import outputs, preprocessing
from .models.hub import classes_in, load_weights, read_weights, start_from
from .models.inference import InferenceView
from .models.normalize import ImageClassifier
from .records import Record, fingerprint
from .rundir import RunDir, members
from .training import checkpoint
from .training.loop import fit
from .training.optimizers import sgd

VALIDATION_BATCH = 256
JUDGING = (
    "evaluate",
    "data",
    "device",
    "threads",
    "seed",
)  # settings that may change when a trained run is evaluated


@dataclass(frozen=True)
class Trained:
    """A run, and whether it reached its last epoch (False: ``train.stop_after`` ended it)."""

    run: RunDir
    finished: bool


def train(config: Config, deadline: float | None = None) -> Trained:
    """Train, or continue, the run of a configuration; the folder is ``config.runs / config.name``.

    Args:
        config: the run.
        deadline: of ``time.monotonic``; by default ``train.stop_after`` from now.

    Raises:
        UserError: what the user can mend. Nothing is written before data and model are known to be good.
        KeyboardInterrupt: after Ctrl-C or SIGTERM; a checkpoint has been written.
    """
    deadline = _deadline(config) if deadline is None else deadline
    distributed.start()
    device = devices.resolve(config.device, config.threads)
    run = RunDir(config.runs / (config.name or "run"))
    if config.data.class_map is not None:
        raise UserError(
            "data.class_map is for evaluating a model on other classes; training gives it the data's own."
        )
    data = build.splits(config, device)
    about_model = build.about_model(config, data)
    model = build.model(about_model, config.seed, pretrained=config.model.pretrained)
    if config.model.init is not None:
        weights, source = _weights(config.model.init)
        start_from(model, weights, source)
    model.to(device)
    _check_saliency(config, model, data.train, device)
    if distributed.is_main():
        run.create(plain(config), identity)
        run.sweep()
    distributed.barrier()

    validation = data.validation
    if config.train.validation_n is not None:
        validation = balanced_subset(validation, config.train.validation_n, seed=0)
    about = {
        "model": about_model,
        "classes": list(data.train.classes),
        "data": data.train.name,
        "fingerprint": data.train.fingerprint,
        "config": build.config_hash(config),
    }
    o = config.optimizer
    finished = fit(
        model,
        build.phases(config),
        data.train,
        run=run,
        optimizer=sgd(
            model,
            lr=o.lr,
            momentum=o.momentum,
            nesterov=o.nesterov,
            weight_decay=o.weight_decay,
            decay_norm=o.decay_norm,
        ),
        rate=build.rate(config),
        validate=_validator(config, validation, device),
        settings=build.settings(config, device, deadline),
        about=about,
    )
    return Trained(run, finished)


def train_seeds(config: Config, seeds: Sequence[int]) -> list[Trained]:
    """Train one configuration from several seeds, into ``<name>/seed-<k>``, and aggregate.

    Prints mean and standard deviation of the best weights' validation accuracies and keeps them as records of
    the group folder ``<name>``. ``train.stop_after`` counts from here on, for all seeds together.
    """
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seeds {', '.join(map(str, seeds))} name one twice.")
    group, deadline = config.name or "run", _deadline(config)
    trained = []
    for seed in seeds:
        one = config.model_copy(update={"seed": seed, "name": f"{group}/seed-{seed}"})
        trained.append(train(one, deadline))
        if not trained[-1].finished:  # out of time: the next seed would only start and stop
            return trained
    if distributed.is_main():
        _aggregate(RunDir(config.runs / group), [_best_validation(t.run) for t in trained], seeds)
    return trained


def evaluate(target: str, changes: Mapping[str, Any]) -> list[RunDir]:
    """Evaluate a run folder, a group of ``seed-*`` runs, or ``timm/NAME``, and print the accuracies.

    Args:
        target: what to evaluate.
        changes: nested settings that differ from the run's own, such as {"evaluate": {"n": 100}}.
    """
    distributed.start()
    if target.startswith("timm/"):
        run = _timm_run(target, changes)
        return [run]
    runs = members(Path(target))
    tables = [_evaluate_run(run, changes) for run in runs]
    if len(runs) > 1 and distributed.is_main():
        _aggregate(RunDir(Path(target)), tables, [int(run.config()["seed"]) for run in runs])
    return runs


@dataclass(frozen=True)
class Prediction:
    """What a model sees in an image file."""

    file: Path
    label: str
    probability: float


def predict(target: str, images: Sequence[Path], device: str = "auto") -> list[Prediction]:
    """The most probable class of each image file, by the best weights of a run.

    Images are resized and cropped to the size that the model was trained at.
    """
    run, place = RunDir(Path(target)), devices.resolve(device)
    model, about = _load(run, "best")
    model.to(place).eval()
    files = [f for path in images for f in (sorted(path.iterdir()) if path.is_dir() else [path])]
    if not files:
        raise UserError("no images: give image files, or a folder that holds some.")
    answers = []
    for file in files:
        pixels = _fit_channels(decode(file, about["model"]["image_size"]), about["model"]["in_channels"])
        with torch.no_grad():
            probabilities = model(as_floats(pixels[None].to(place))).softmax(dim=1)[0]
        best = int(probabilities.argmax())
        answers.append(Prediction(file, about["classes"][best], float(probabilities[best])))
    return answers


def _deadline(config: Config) -> float | None:
    after = config.train.stop_after
    return None if after is None else time.monotonic() + after


def _weights(source: str) -> tuple[dict[str, Tensor], str]:
    """Weights of a run folder or a file."""
    path = Path(source).expanduser()
    if path.is_dir():
        path = RunDir(path).checkpoint("best")
    return read_weights(path)[0], str(path)


def _load(run: RunDir, which: str) -> tuple[ImageClassifier, dict[str, Any]]:
    """A run's model, rebuilt from its checkpoint's header."""
    run.config()  # says that the folder is no run, before a checkpoint is missed
    path = run.checkpoint(which)
    if not path.exists():
        raise UserError(
            f"{path} is missing: {run.path} has not finished an epoch yet. Continue its training first."
        )
    tensors, about = checkpoint.read(path)
    if which == "last":
        prefix = "ema.module." if "ema.n_averaged" in tensors else "model."
        tensors = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    model = build.model(about["model"], seed=0)
    load_weights(model, tensors, str(path))
    return model, about


def _check_saliency(config: Config, model: nn.Module, images: ImageSet, device: torch.device) -> None:
    """Refuse, before anything is written, a model that maps cannot be drawn from."""
    if config.train.method != "part":
        return
    first = as_floats(images.read(torch.arange(min(2, len(images)))).to(device))
    probe = InferenceView(model).probe(first)
    if probe.features is None:
        raise UserError(
            f"{config.model.name} shows no feature map before its head, so method part cannot draw a class "
            "activation map of it. Use --train.method at, or a convolutional network."
        )


def _validator(
    config: Config, images: ImageSet, device: torch.device
) -> Callable[[nn.Module, InferenceView], tuple[float, float]]:
    full = build.training_budget(config)

    def validate(model: nn.Module, view: InferenceView) -> tuple[float, float]:
        return accuracy.quick(
            model,
            view,
            images,
            budget_of=lambda _: full,
            attack=partial(pgd, steps=config.train.validation_steps),
            batch_size=VALIDATION_BATCH,
            device=device,
            seed=config.seed,
        )

    return validate


def _best_validation(run: RunDir) -> list[Record]:
    """Clean and robust validation accuracy of a run's best weights."""
    epoch = checkpoint.read(run.checkpoint("best"))[1]["epoch"]
    row = next(r for r in run.records() if r.kind == "epoch" and r.details["epoch"] == epoch)
    details = {"split": "validation", "weights": "best", "fingerprint": row.details["fingerprint"]}
    names = ("validation_clean", "validation_robust")
    return [Record("metric", name, row.details[name], seed=row.seed, details=details) for name in names]


def _evaluate_run(run: RunDir, changes: Mapping[str, Any]) -> list[Record]:
    for section in changes:
        if section not in JUDGING:
            raise UserError(
                f"{section} is a setting of training, and {run.path} has been trained. evaluate takes "
                f"{', '.join(JUDGING)}; another radius is --evaluate.eps, another norm --evaluate.norm."
            )
    # data.limit is for training images.
    config = resolve(run.config(), {"data": {"limit": None}}, changes, source=str(run.path))
    device = devices.resolve(config.device, config.threads)
    model, about = _load(run, config.evaluate.weights)
    data = build.splits(config, device)
    images = data.test if config.evaluate.split == "test" else data.validation
    images = mapped(images, config.data.class_map, about["classes"])
    if images.fingerprint != about["fingerprint"]:
        Console(stderr=True).print(
            f"Note: the data ({images.fingerprint}) is not what the model was trained on ({about['fingerprint']}).",
            highlight=False,
        )
    method, weights = build.method_name(config), config.evaluate.weights
    who = {"config": about["config"], "weights": weights, "method": method}
    return _judge(run, config, model.to(device), images, device, who)


def _judge(
    run: RunDir,
    config: Config,
    model: ImageClassifier,
    images: ImageSet,
    device: torch.device,
    who: Mapping[str, Any],
) -> list[Record]:
    """Evaluate a model on images, into a folder named after everything that decides the result."""
    model.eval()
    if config.evaluate.n is not None:
        images = balanced_subset(images, config.evaluate.n, seed=0)  # the same images for every run
    attacks = build.evaluation_attacks(config.evaluate)
    norm = config.evaluate.norm or config.attack.norm
    if norm != config.attack.norm and config.evaluate.eps is None:
        raise UserError(
            f"evaluate.norm {norm} differs from training's {config.attack.norm}: give its radius with --evaluate.eps."
        )
    eps = config.attack.eps if config.evaluate.eps is None else config.evaluate.eps
    full = build.budget(norm, eps)
    state = {name: value.double().sum().item() for name, value in model.state_dict().items()}
    key = fingerprint(
        {
            **who,
            "state": state,
            "attacks": [a.name for a in attacks],
            "budget": [norm, eps],
            "images": [images.fingerprint, images.split, images.index.tolist()],
            "seed": config.seed,
            "batch": config.evaluate.batch_size,
        }
    )
    folder, view = run.path / "evaluations" / key, InferenceView(model)
    rows = accuracy.evaluate(
        model,
        view,
        images,
        attacks,
        budget_of=lambda _: full,
        folder=folder,
        batch_size=config.evaluate.batch_size,
        device=device,
        seed=config.seed,
        save_images=config.evaluate.save_images,
        title=f"evaluating {run.name}",
    )
    names = [a.name for a in attacks]
    details = {
        "model": config.model.name,
        "data": images.name,
        "split": images.split,
        "fingerprint": images.fingerprint,
        "norm": norm,
        "eps": eps,
        "precision": "float32",
        "evaluation": key,
        **{k: v for k, v in who.items() if k != "config"},
    }
    made = [
        replace(record, seed=config.seed, config=who["config"])
        for record in accuracy.metrics(rows, images.classes, names, details, accuracy.seconds_spent(folder))
    ]
    if distributed.is_main():
        if not any(r.details.get("evaluation") == key for r in run.records()):
            table, panel = folder / "images.csv", folder / "panel.safetensors"
            accuracy.write_table(table, rows, images.classes, names)
            rule = build.rule(config) if config.train.method == "part" else partial(constant, budget=full)
            write_panel(
                panel,
                model,
                view,
                images,
                rows,
                attacks[-1:],
                budget=full,
                rule=rule,
                device=device,
                seed=config.seed,
            )
            artifacts = [
                run.artifact(table, "images", f"Per-image results of {run.name}."),
                run.artifact(
                    panel, "panel", f"Images of {run.name} under {names[-1]}." if names else "Images."
                ),
            ]
            artifacts = [
                replace(a, details={**a.details, "evaluation": key, "fingerprint": images.fingerprint})
                for a in artifacts
            ]
            run.add([*made, *artifacts])
        _print_accuracies(run, made)
    distributed.barrier()
    return made


def _timm_run(target: str, changes: Mapping[str, Any]) -> RunDir:
    """Evaluate one of timm's networks on an image folder, with its own resize, crop and normalisation."""
    name = target.replace("/", "-")
    own = {
        "name": name,
        "data": {"name": "folder"},
        "model": {"name": target, "pretrained": True},
        "train": {"method": "clean"},
    }
    config = resolve(own, changes, source=target)
    if config.data.name != "folder":
        raise UserError(f"{target} is evaluated on a folder of images, not on {config.data.name}.")
    device, way = devices.resolve(config.device, config.threads), preprocessing(target)
    about: dict[str, Any] = {"name": target, "num_classes": outputs(target), "image_size": way.crop}
    weights, source = None, "pretrained"
    if config.model.init is not None:
        weights, source = _weights(config.model.init)
        about["num_classes"] = classes_in(build.model(about, seed=0), weights)
    data = build.splits(config, device, size=way.crop, prepare=way.apply)
    images = data.test if config.evaluate.split == "test" else data.validation
    images = mapped(images, config.data.class_map, [f"output {i}" for i in range(about["num_classes"])])
    model = build.model(about, seed=0, pretrained=weights is None)
    if weights is not None:
        start_from(model, weights, source)
    run = RunDir(config.runs / (config.name or name))
    if distributed.is_main():
        run.create(plain(config), identity)
    who = {"config": build.config_hash(config), "weights": source, "method": target}
    _judge(run, config, model.to(device), images, device, who)
    return run


def _fit_channels(pixels: Tensor, channels: int) -> Tensor:
    """(3, H, W) as the model wants it: its mean over channels for a model of grey images."""
    return pixels if channels == 3 else pixels.float().mean(dim=0, keepdim=True).round().to(torch.uint8)


def _aggregate(group: RunDir, tables: Sequence[Sequence[Record]], seeds: Sequence[int]) -> None:
    """Each metric over the seeds, printed and kept once as a record of the group.

    Args:
        group: the folder above the seeds' runs.
        tables: the metrics of each seed.
        seeds: in the same order.
    """
    records, table = [], Table(title=f"{group.name}: {len(seeds)} seeds", title_justify="left")
    for column in ("", "mean", "sd", "95 % interval"):
        table.add_column(column)
    by_name = [{record.name: record for record in one} for one in tables]
    for name in by_name[0]:
        same = [one[name] for one in by_name]
        values = [float(record.value or 0) for record in same]
        intervals = [record.interval for record in same if record.interval is not None]
        centre, spread, interval = over_seeds(values, intervals)
        agreed = {k: v for k, v in same[0].details.items() if all(r.details.get(k) == v for r in same)}
        details = {**agreed, "seeds": list(seeds), "values": values, "sd": spread}
        records.append(
            Record("metric", f"mean over seeds/{name}", centre, len(values), interval, details=details)
        )
        shown = "" if interval is None else f"{interval[0]:.2%} to {interval[1]:.2%}"
        table.add_row(name, f"{centre:.2%}", "" if spread is None else f"{spread:.2%}", shown)
    group.add_once(records)
    Console().print(table)


def _print_accuracies(run: RunDir, made: Sequence[Record]) -> None:
    d = made[0].details
    what = f"{d['method']}, {d['data']} {d['split']}, {d['norm']} {d['eps']:.4g}, n = {made[0].n}"
    title = f"{run.name}: {what}"
    table = Table(title=title, title_justify="left")
    for column in ("", "accuracy", "95 % interval"):
        table.add_column(column)
    for record in made:
        assert record.value is not None
        assert record.interval is not None
        low, high = record.interval
        table.add_row(
            record.name.removeprefix("accuracy/"), f"{record.value:.2%}", f"{low:.2%} to {high:.2%}"
        )
    Console().print(table)
