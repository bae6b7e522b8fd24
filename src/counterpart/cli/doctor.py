"""Say what is installed, what this machine can do, which data sets are there, and what is missing."""

import argparse
import importlib
import importlib.metadata
import platform
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..terminal import show

SETTINGS: Collection[str] = ()

# Packages whose module has another name than theirs with "_" for "-".
MODULES = {"scikit-learn": "sklearn", "pillow": "PIL", "pyyaml": "yaml"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--data.root",
        dest="root",
        metavar="DIR",
        type=Path,
        help="The folder in which to look for data sets.",
    )
    parser.add_argument(
        "--runs",
        metavar="DIR",
        type=Path,
        default=Path("runs"),
        help="The folder of runs, in which locks are tried (default: runs).",
    )


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Print the findings, and return 1 if something essential is missing, else 0."""
    _row("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    problems = []
    for requirement in _requirements():
        name, finding, fits = check(requirement)
        _row(name, finding)
        if not fits:
            problems.append(f'{name} {finding}. Mend it with: python -m pip install "{requirement}"')
    if not problems:
        _machine()
        _locks(arguments.runs.expanduser())
        _data(arguments.root)
    for problem in problems:
        show(f"missing: {problem}")
    show("Something essential is missing." if problems else "Everything that is needed is there.")
    return 1 if problems else 0


def _requirements() -> list[str]:
    """This package and what it always needs."""
    try:
        needed = importlib.metadata.requires("counterpart") or []
    except importlib.metadata.PackageNotFoundError:
        needed = []
    return ["counterpart", *(requirement for requirement in needed if "extra ==" not in requirement)]


def check(requirement: str) -> tuple[str, str, bool]:
    """Check a requirement such as ``torch>=2.9,<2.16``: return its name, what is installed, and whether that fits."""
    name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
    try:
        version = importlib.metadata.version(name)
        importlib.import_module(MODULES.get(name, name.replace("-", "_")))
    except importlib.metadata.PackageNotFoundError:
        return name, "is not installed", False
    except Exception as error:  # a broken installation raises nearly anything, and doctor is there to say so
        return name, f"cannot be imported ({type(error).__name__}: {' '.join(str(error).split())})", False
    for sign, bound in re.findall(r"(>=|<)\s*([\d.]+)", requirement):
        if (_numbers(version) >= _numbers(bound)) != (sign == ">="):
            return name, f"{version} does not fit {requirement}", False
    return name, version, True


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version: (2, 15, 0) of 2.15.0+cu130."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _machine() -> None:
    import torch

    from .. import devices, records

    device = devices.resolve("auto")
    _row("hardware", records.hardware())
    _row("device", f"{device.type}, {torch.get_num_threads()} CPU threads")
    if device.type == "cpu":
        units = {
            "AMX tiles": torch.cpu._is_amx_tile_supported(),
            "avx512_bf16": torch.cpu._is_avx512_bf16_supported(),
        }
        built_in = ", ".join(name for name, there in units.items() if there)
    else:
        built_in = f"compute capability {'.'.join(map(str, torch.cuda.get_device_capability(device)))}"
    yes = f"yes ({built_in}); train.precision auto uses it"
    _row("bf16", yes if devices.has_bf16(device) else "no; train.precision auto means float32")
    if torch.backends.mps.is_available():
        _row("mps", "there; use it with --device mps")


def _locks(runs: Path) -> None:
    """Say whether two processes can be kept from writing the same run, which some network file systems cannot."""
    from ..locks import why_not_in

    there = next(folder for folder in (runs.absolute(), *runs.absolute().parents) if folder.is_dir())
    why = why_not_in(there)
    if why is None:
        _row("locks", f"work in {there}")
    else:
        _row("locks", f"do not work in {there}: {why}. Start no two processes on one run there")


def _data(root: Path | None) -> None:
    from ..catalogue import DATA_SETS
    from ..data import say_whether_there

    for name, entry in DATA_SETS.items():
        line = say_whether_there(name, root)
        _row(f"data {name}", line.removeprefix(f"{name}: "))
        if entry.facts.downloads and root is not None and " lacks " in line:
            _row("", f"fetch it with: counterpart train {name}/at --data.root {root} --data.download true")


def _row(name: str, finding: str) -> None:
    show(f"{name:20} {finding}")
