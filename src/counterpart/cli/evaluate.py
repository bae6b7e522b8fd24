"""Measure the clean and robust accuracy of a model: a run, a checkpoint, timm/NAME, others' weights, or your own code.

Settings are those of the run, except where others are given here. Those of ``evaluate`` may be written without their
section: --attacks autoattack --n 1000. The same command continues an evaluation that was stopped.
"""

import argparse
from collections.abc import Collection, Mapping
from typing import Any

from ..config import settings
from ..errors import UserError
from ..terminal import show

_DATA = (
    "data.name", "data.root", "data.download", "data.size", "data.channels", "data.class_map", "data.split_of",
    "data.fold", "data.crop_to_parts", "data.shift", "corruptions.frost", "corruptions.constants",
)  # fmt: skip
_OUTSIDE = ("runs", "name", "model.init", "model.normalisation")
SETTINGS: Collection[str] = tuple(
    key
    for key, _ in settings()
    if key.startswith("evaluate.")
    or key in ("wait", "seed", "device", "threads", "mask.files", *_DATA, *_OUTSIDE)
)
RANDOM_ANSWERS = ("evaluate.draws", "evaluate.votes", "evaluate.eot", "evaluate.fixed_noise")
SAMPLE = ("evaluate.sampled", "evaluate.dear_attacks", "evaluate.sampled_width", "evaluate.sampled_looks")
SECTIONS = ("evaluate",)  # its settings may be written without it


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="A run folder, a folder of seed-* runs, a checkpoint (.safetensors), timm/NAME, ARCHITECTURE@WEIGHTS.pt, "
        "FILE.onnx, a TorchScript FILE.pt (with --trust), or module:function. The last one runs your code, and "
        "evaluates the model that it returns.",
    )
    parser.add_argument(
        "--trust", action="store_true", help="Run the program of a TorchScript file, which is code."
    )


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Evaluate."""
    refuse_outside_settings(arguments.target, settings)
    from .. import distributed, jobs

    judged = jobs.evaluate(arguments.target, settings, trust=arguments.trust)
    if distributed.is_main():
        show(f"Next: counterpart report {' '.join(str(outcome.run.path) for outcome in judged)}")
    distributed.stop()
    return 0


def settings_without(*others: str) -> tuple[str, ...]:
    """The settings of an evaluation but for these, which a command of its own kind does not take."""
    return tuple(key for key in SETTINGS if key not in others)


def refuse_outside_settings(target: str, settings: Mapping[str, Any]) -> None:
    """Refuse settings that name a new run folder or its weights, where the target is a run folder that exists."""
    from pathlib import Path

    path = Path(target).expanduser()
    named = target.startswith("timm/") or "@" in target or ":" in target
    if not path.is_dir() and (
        named or (path.is_file() and not (path.resolve().parent.parent / "config.yaml").is_file())
    ):
        return
    for key in _OUTSIDE:
        section, _, name = key.partition(".")
        if section in settings and (not name or name in settings[section]):
            raise UserError(f"--{key} has no effect on a run folder: only on a model that has no run yet.")
