"""An empty environment: this package from its wheel, an empty home, an empty folder, and nothing else of ours."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("site-packages", "dist-packages")


@pytest.fixture(scope="session")
def environment(dist, tmp_path_factory):
    """A new virtual environment into which the wheel is installed.

    What the package depends on is read from where the tests have it, because nothing may be fetched. An editable
    installation of the package there is not followed: its ``.pth`` files are not read.
    """
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, symlinks=True)
    (wheel,) = dist.glob("*.whl")
    python = str(place / "bin" / "python")
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-index",
        "--no-deps",
        str(wheel),
    ]
    subprocess.run(install, capture_output=True, check=True)
    (packages,) = place.glob("lib/python*/site-packages")
    others = [path for path in sys.path if Path(path).name in PACKAGES]
    (packages / "dependencies.pth").write_text("".join(f"{path}\n" for path in others), encoding="utf-8")
    return place


@pytest.fixture
def real():
    """The folder of real data beside the checkout; None where it is absent, and then journeys go on what is drawn."""
    place = ROOT / ".." / "shared"
    return place.resolve() if (place / "data").is_dir() else None


@pytest.fixture
def walk(environment, tmp_path):
    """Runs the journey of a user in ``tmp_path``, which is the home as well, and holds what she has beforehand."""

    def walk_through(user):
        shutil.copytree(ROOT / "tests" / "journeys" / user, tmp_path, dirs_exist_ok=True)
        variables = {
            "PATH": f"{environment / 'bin'}{os.pathsep}/usr/local/bin{os.pathsep}/usr/bin{os.pathsep}/bin",
            "HOME": str(tmp_path), "LANG": "C.UTF-8", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        command = ["bash", "-euo", "pipefail", "journey.sh"]
        done = subprocess.run(
            command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    return walk_through
