"""What a CUDA machine shall answer, part by part: facts, parity with the CPU, rates, two trainings, AutoAttack.

    python benchmarks/gpu.py --data FOLDER_OR_NPZ                    (all parts in turn, in a process each)
    python benchmarks/gpu.py --data FOLDER_OR_NPZ --part train-at    (one part, of nine minutes at most)
    python benchmarks/gpu.py --list

Needs no network. FOLDER holds CIFAR-10 as published; for an NPZ see ``cifar_from_jpeg.py``. Runs lie under --runs, and
a training that its slot ended goes on with the same command. A part writes its records into results/gpu.jsonl, and into
the file of the benchmark that it calls, as soon as it is done. It is passed over where this machine has records of it;
--again repeats it.
"""

import argparse
import importlib.util
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
FILE = "gpu.jsonl"
MINUTES = 9  # the longest that a part may take
# In the order in which answers are wanted where a slot ends early.
NAMES = (
    "facts", "parity", "train-at", "train-part", "steps-128", "steps-128-compiled", "steps-512", "steps-512-compiled",
    "autoattack", "part-model", "memory",
)  # fmt: skip
MODULES = {  # packages that are imported under another name
    "scikit-learn": "sklearn", "pillow": "PIL", "pyyaml": "yaml",
    "segmentation-models-pytorch": "segmentation_models_pytorch",
}  # fmt: skip


def main() -> int:
    """Run one part, or all parts that this machine has no records of."""
    given = arguments().parse_args()
    lacking = missing_packages()
    for requirement in lacking:
        print(f"missing: {requirement}")
    if lacking:
        print("Nothing was run: install what is missing first.")
        return 1
    if given.list:
        print("\n".join(NAMES))
        return 0
    if given.part is not None:
        return run(given.part, given)
    for name in NAMES:
        try:
            subprocess.run([sys.executable, *sys.argv, "--part", name], timeout=60 * MINUTES, check=False)
        except subprocess.TimeoutExpired:
            print(f"{name}: ended after {MINUTES} minutes without a record.")
    return 0


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="CIFAR-10: its folder, or an NPZ of JPEG files")
    parser.add_argument("--runs", type=Path, default=Path("runs/gpu"), help="the folder of trainings")
    parser.add_argument("--part", choices=NAMES)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--width", type=int, default=64, help="of ResNet-18; 64 is full width")
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--images", type=int, default=1000, help="of AutoAttack")
    parser.add_argument("--eager", action="store_true", help="train without torch.compile")
    parser.add_argument("--again", action="store_true", help="repeat what has records")
    parser.add_argument("--list", action="store_true", help="name the parts")
    return parser


def missing_packages() -> list[str]:
    """The requirements of this project that are not installed, asked before any of them is imported."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    return [requirement for requirement in project["dependencies"] if not _is_there(requirement)]


def _is_there(requirement: str) -> bool:
    name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
    return importlib.util.find_spec(MODULES.get(name, name.replace("-", "_"))) is not None


def run(name: str, given: argparse.Namespace) -> int:
    """Run a part and keep its records, unless there are some of this machine at this size."""
    from gpu_parts import PARTS
    from timing import RESULTS, keep

    from counterpart import records
    from counterpart.errors import UserError

    setting = {"part": name, "machine": machine(given.device), "width": given.width, "epochs": given.epochs}
    if not given.again and any(
        setting.items() <= row.details.items() for row in records.read(RESULTS / FILE)
    ):
        print(f"{name}: results/{FILE} has records of {setting['machine']}.")
        return 0
    started = time.perf_counter()
    try:
        rows = PARTS[name](given)
    except UserError as error:
        print(f"{name}: {error}")
        return 1
    if rows is None:
        print(f"{name}: not finished. The same command goes on.")
        return 0
    whole = records.Record("timing", f"gpu/{name}", time.perf_counter() - started, 1, details={"unit": "s"})
    for row in [*rows, whole]:
        row.details.update(setting)
    keep(FILE, [*rows, whole])
    return 0


def machine(device: str) -> str:
    """What the hardware calls itself."""
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else device


if __name__ == "__main__":
    sys.exit(main())
