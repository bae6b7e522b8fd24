"""Make the stored folders of an old form again: tests/stored/make.py COMMIT FOLDER.

Runs the commands of commands.yaml with the code of COMMIT, in an empty FOLDER, which then holds ``runs/`` and
``ends/``. No path of the machine gets into them: every command runs inside FOLDER, by relative paths.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
COMMANDS = yaml.safe_load((HERE / "commands.yaml").read_text())
UNITS_BEFORE_KILL = 4  # of 8
LOOKS_BEFORE_STOP = 2 * 21 + 7  # at the clock: after each of 20 steps and at the end of each epoch

# Out of time in step 7 of epoch 3, whatever the machine.
STOPPED = f"""
import sys
from counterpart.cli import main
from counterpart.training import loop
looks = []
loop._is_past = lambda deadline: deadline is not None and looks.append(1) is None and len(looks) >= {LOOKS_BEFORE_STOP}
sys.argv[0] = "counterpart"
sys.exit(main())
"""

# Stands in for kill -9 after the given number of units.
KILLED = f"""
import os, sys
from counterpart.cli import main
from counterpart.evaluation.ledger import Ledger
commit, done = Ledger.commit, []
def killed(self, *given):
    commit(self, *given)
    done.append(given)
    if len(done) == {UNITS_BEFORE_KILL}:
        os._exit(9)
Ledger.commit = killed
sys.argv[0] = "counterpart"
main()
"""


def words(*lines: str) -> list[str]:
    """A line of commands.yaml as words."""
    text = " ".join(lines)
    for name in ("SMALL", "TINY"):
        text = text.replace(name, COMMANDS[name])
    return shlex.split(text)


def main(commit: str, folder: Path) -> None:
    """Make everything."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("usernets.py", "masks"):
        copy = shutil.copytree if (HERE / name).is_dir() else shutil.copy
        copy(HERE / name, folder / name)
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary) / "tree"
        git = ["git", "-C", str(HERE), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
        try:
            _make(tree / "src", folder)
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def _make(source: Path, folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}

    def run(*given: str, code: int = 0, program: tuple[str, ...] = ("-m", "counterpart")) -> None:
        print("counterpart", *given, flush=True)
        done = subprocess.run([sys.executable, *program, *given], cwd=folder, env=environment, check=False)
        if done.returncode != code:
            sys.exit(f"ended with {done.returncode}, not with {code}")

    for name, line in COMMANDS["train"].items():
        if name == "stopped":
            continue
        run("train", *words(line))
    ends = folder / "ends"
    ends.mkdir()
    # The half-finished training: first whole, for its end; then stopped in the middle of the masks.
    stopped = words(COMMANDS["train"]["stopped"])
    for name, line in (("stopped", stopped), ("anew", words(COMMANDS["anew"]))):
        run("train", *line)
        whole = load_file(folder / "runs" / name / "checkpoints" / "last.safetensors")
        weights = {name: value for name, value in whole.items() if name.startswith("model.")}
        save_file(weights, ends / f"{name}.safetensors")
        shutil.rmtree(folder / "runs" / name)
    run("train", *stopped, "--train.stop-after", "1h", program=("-c", STOPPED))
    for name, line in COMMANDS["evaluate"].items():
        if name == "at half-judged":
            # Whole in a copy, for what it comes to; then killed.
            shutil.copytree(folder / "runs" / "at", folder / "whole")
            run("evaluate", *words(line.replace("runs/at", "whole")))
            [identity] = [
                file
                for file in (folder / "whole" / "evaluations").glob("*/identity.json")
                if not (folder / "runs" / "at" / "evaluations" / file.parent.name).exists()
            ]
            shutil.copytree(identity.parent / "units", ends / "half-judged")
            shutil.rmtree(folder / "whole")
            run("evaluate", *words(line), code=9, program=("-c", KILLED))
        else:
            run("evaluate", *words(line))
    for name in ("papers", "papers-of-parts"):
        run("papers", "run", *words(COMMANDS[name]))
    # Its pictures are large; what is stored of it are its records.
    [run_of_parts] = (folder / "runs" / "papers" / "smoke").glob("synthetic-parts-*/")
    shutil.rmtree(run_of_parts)
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
