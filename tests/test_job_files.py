"""The job files of docs/jobs can be submitted: shells and YAML read them, and their commands are understood."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from counterpart.cli import _parser, train
from counterpart.cli.settings import from_arguments
from counterpart.config import resolve
from counterpart.recipes import load

JOBS = Path(__file__).parents[1] / "docs" / "jobs"
PAGE = (JOBS.parent / "scaling.md").read_text(encoding="utf-8")


def script_of(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".sbatch":
        return text
    service, job = yaml.safe_load_all(text)
    [container] = job["spec"]["template"]["spec"]["containers"]
    mounted = {volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == mounted
    name = service["metadata"]["name"]
    assert f"--master-addr {name}-0.{name} " in container["args"][0]
    assert job["spec"]["template"]["spec"]["subdomain"] == job["metadata"]["name"] == name
    assert service["spec"]["selector"] == {"job-name": name}
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 2
    return container["args"][0]


@pytest.mark.parametrize("path", sorted(JOBS.iterdir()), ids=lambda path: path.name)
def test_a_job_file_is_read_and_its_commands_are_understood(path):
    script = script_of(path)
    shell = shutil.which("bash")
    if shell is not None:
        done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    [command] = re.findall(r"-m counterpart (train [^']*)", script.replace("\\\n", " "))
    words = shlex.split(command)
    settings, others = from_arguments(words, train.SETTINGS)
    parsed, rest = _parser().parse_known_args(others)
    assert rest == []
    config = resolve(load(parsed.recipe), settings)
    [processes] = re.findall(r"--nproc-per-node (\d+)", script)
    assert config.train.batch_size % (2 * int(processes)) == 0
    assert f"jobs/{path.name}" in PAGE


def test_slurm_is_asked_for_as_many_gpus_as_processes():
    script = (JOBS / "train.sbatch").read_text(encoding="utf-8")
    assert re.findall(r"--gpus-per-node=(\d+)", script) == re.findall(r"--nproc-per-node (\d+)", script)
    assert "#SBATCH --ntasks-per-node=1" in script
