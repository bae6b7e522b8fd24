"""What a program waits for before its first result: packages are imported by what needs them, and not before."""

import json
import subprocess
import sys

HEAVY = {
    "jinja2", "matplotlib", "pandas", "scipy", "segmentation_models_pytorch", "sklearn", "timm",
    "torchvision",
}  # fmt: skip
OTHER_JOBS = {
    f"counterpart.jobs.{job}"
    for job in ("corruptions", "prediction", "pseudo_labels", "training", "verification")
}

FIRST_EVALUATION = """
import json, sys
import torch
import counterpart

model = torch.nn.Sequential(
    torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 3)
)
images, labels = torch.rand(6, 3, 8, 8), torch.arange(6) % 3
result = counterpart.evaluate(model.eval(), (images, labels), attacks="pgd", eps="1/255", n=6, seed=0)
print(json.dumps({"rows": len(result.rows), "modules": sorted(sys.modules)}))
"""


def run(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_the_first_evaluation_of_tensors_imports_nothing_that_it_does_not_need():
    told = run(FIRST_EVALUATION)
    assert told["rows"] == 6
    assert {name.partition(".")[0] for name in told["modules"]} & HEAVY == set()
    assert set(told["modules"]) & OTHER_JOBS == set()


def test_the_help_of_the_commands_imports_no_torch():
    modules = run(
        "import contextlib, io, json, sys\n"
        "from counterpart.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main(['--help'])\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    loaded = {name.partition(".")[0] for name in modules}
    assert "pydantic" in loaded  # the commands are there
    assert loaded & (HEAVY | {"torch", "numpy", "PIL"}) == set()
