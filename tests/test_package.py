"""What ``pip install counterpart`` would install: both archives, and the demo from the wheel alone."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import counterpart

ROOT = Path(__file__).parents[1]
SHORT = [
    "--train.epochs",
    "1",
    "--data.limit",
    "100",
    "--model.width",
    "2",
    "--attack.steps",
    "1",
    "--train.validation-n",
    "10",
    "--evaluate.attacks",
    "fgsm",
    "--evaluate.n",
    "20",
    "--threads",
    "1",
]


@pytest.mark.slow
def test_the_archives_hold_the_package_with_its_data_and_nothing_else(dist):
    (wheel,), (archive,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    assert counterpart.__version__ in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    packed = {name for name in names if name.startswith("counterpart/")}
    here = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "counterpart").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == here
    assert all(name.startswith(("counterpart/", "counterpart-")) for name in names)
    with tarfile.open(archive) as opened:
        inside = {name.partition("/")[2] for name in opened.getnames()}
    assert inside >= {"README.md", "LICENSE"}


@pytest.mark.slow
def test_the_demo_runs_from_the_wheel(dist, tmp_path):
    (wheel,) = dist.glob("*.whl")
    place, empty = tmp_path / "place", tmp_path / "empty"
    empty.mkdir()
    zipfile.ZipFile(wheel).extractall(place)
    environment = {**os.environ, "PYTHONPATH": str(place)}
    asked = [sys.executable, "-c", "import counterpart; print(counterpart.__file__)"]
    where = subprocess.run(
        asked, cwd=empty, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert where.startswith(str(place))
    demo = [sys.executable, "-m", "counterpart", "demo", *SHORT]
    done = subprocess.run(demo, cwd=empty, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(empty.rglob("*.html"))
