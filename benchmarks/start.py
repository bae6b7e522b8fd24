"""What a person waits for before anything happens, and ``counterpart.evaluate`` beside the command on equal rows.

    python benchmarks/start.py

Start: seconds of the processor of processes of their own, whose Python files are compiled as those of an installed
package are; "beyond torch" leaves out ``import torch``. Evaluation: a ResNet-18 of width 8 that has seen the digits for
a few epochs, judged by the command and by the function in turn, in one process; imports are done before.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import median

import torch
from timing import arguments, keep, ratio

import counterpart
from counterpart import jobs
from counterpart.cli import main as command_line
from counterpart.errors import UserError
from counterpart.evaluation.ledger import LedgerRow
from counterpart.records import Record

SPENT = "used = resource.getrusage(resource.RUSAGE_SELF); print(json.dumps(used.ru_utime + used.ru_stime - before))"
BEFORE = "import json, resource, sys, time\nbefore = time.process_time()\n"
IMPORT = f"{BEFORE}import counterpart\n{SPENT}"
FIRST_EVALUATION = f"""import torch
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
images, labels = torch.rand(8, 3, 4, 4), torch.arange(8) % 3
{BEFORE}import counterpart
counterpart.evaluate(model, (images, labels), attacks="pgd")
{SPENT}"""
EPS, ATTACKS = "8/255", "pgd,apgd"


def main() -> None:
    """Measure both and keep them."""
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=6)
    parser.set_defaults(width=8, repeats=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure_starts(given.repeats)
    with tempfile.TemporaryDirectory() as folder:
        rows += compare_evaluations(Path(folder), given.width, given.epochs, given.images, given.repeats)
    keep("start.jsonl", rows)


def measure_starts(repeats: int) -> list[Record]:
    """Seconds until the help is there, the package imported, and a first evaluation finished."""
    rows = []
    with tempfile.TemporaryDirectory() as compiled:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled, "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        starts: dict[str, Callable[[], float]] = {
            "counterpart --help": lambda: time_help(environment),
            "import counterpart": lambda: time_program(IMPORT, environment),
            "first counterpart.evaluate, beyond torch": lambda: time_program(FIRST_EVALUATION, environment),
        }
        targets = {"counterpart --help": "<= 0.28", "first counterpart.evaluate, beyond torch": "<= 0.8"}
        taken: dict[str, list[float]] = {name: [] for name in starts}
        for turn in range(1 + repeats):
            for name, start in starts.items():
                seconds = start()
                if turn:  # the first turn compiles
                    taken[name].append(seconds)
    for name, values in taken.items():
        told = {"unit": "s", "clock": "processor", **({"target": targets[name]} if name in targets else {})}
        interval = (min(values), max(values))
        rows.append(Record("timing", f"start/{name}", median(values), len(values), interval, details=told))
    return rows


def time_help(environment: Mapping[str, str]) -> float:
    """Seconds of the processor that the help of the commands takes, the start of Python included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [sys.executable, "-m", "counterpart", "--help"]
    subprocess.run(words, env=dict(environment), capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def time_program(program: str, environment: Mapping[str, str]) -> float:
    """The seconds that a program prints last."""
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, env=dict(environment), capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def compare_evaluations(folder: Path, width: int, epochs: int, images: int, repeats: int) -> list[Record]:
    """Seconds of the command and of the function on the same model, images and attacks."""
    learnt = {"model.width": width, "train.epochs": epochs, "threads": 1}
    run = counterpart.train("digits/clean", folder=folder / "digits", changes=learnt)
    taken: dict[str, list[float]] = {"counterpart evaluate": [], "counterpart.evaluate": []}
    for turn in range(1 + repeats):
        # Another batch size each time: an evaluation that is finished is not made again.
        changes = {"evaluate.attacks": ATTACKS, "evaluate.eps": EPS, "evaluate.n": images}
        changes["evaluate.batch_size"] = images + turn
        started = time.process_time()
        answers = judge_by_command(run.path, changes)
        taken["counterpart evaluate"].append(time.process_time() - started)
        started = time.process_time()
        judgement = counterpart.evaluate(run.model, "digits", changes=changes)
        taken["counterpart.evaluate"].append(time.process_time() - started)
        if list(judgement.rows) != answers():
            raise UserError("the command and the function came to different rows.")
    setting = {"model": "resnet18", "width": width, "images": images, "data": "digits", "attacks": ATTACKS}
    setting |= {"eps": EPS, "device": "cpu", "threads": 1, "rows": "equal"}
    taken = {name: values[1:] for name, values in taken.items()}  # the first turn warms up
    rows = [
        Record(
            "timing", f"start/{name}", median(values), len(values), (min(values), max(values)),
            details={"unit": "s", "clock": "processor", **setting},
        )
        for name, values in taken.items()
    ]  # fmt: skip
    factor = median(taken["counterpart.evaluate"]) / median(taken["counterpart evaluate"])
    return [
        *rows,
        ratio("start/the function's seconds over the command's", factor, repeats, "<= 1", **setting),
    ]


def judge_by_command(run: Path, changes: Mapping[str, object]) -> Callable[[], list[LedgerRow]]:
    """Run the command, and return what reads the rows that it left in the run's folder."""
    words = [word for name, value in changes.items() for word in (f"--{name}", str(value))]
    with redirect_stdout(StringIO()):
        if command_line(["evaluate", str(run), *words]):
            raise UserError("the command failed.")

    def read() -> list[LedgerRow]:
        [judged] = jobs.evaluate(str(run), changes_nested(changes))
        return list(judged.rows)

    return read


def changes_nested(changes: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """{"evaluate.n": 3} -> {"evaluate": {"n": 3}}."""
    nested: dict[str, dict[str, object]] = {}
    for name, value in changes.items():
        section, _, key = name.partition(".")
        nested.setdefault(section, {})[key] = value
    return nested


if __name__ == "__main__":
    main()
