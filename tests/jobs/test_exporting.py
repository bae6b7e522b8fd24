"""Exported models: what a file answers without this package, what is checked before it is there, what is refused."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import counterpart as cp
from counterpart import jobs, models
from counterpart.cli import main
from counterpart.errors import UserError
from counterpart.evaluation.verify import MARGINAL
from counterpart.jobs import exporting
from counterpart.jobs.targets import open_single_target

# Whatever is installed, the process that loads a file cannot import this package.
ALONE = "import sys\nsys.modules['counterpart'] = None\n"
ASK = {
    "onnx": "answers = model(images)\n",
    "torch": "with torch.no_grad():\n    answers = model(torch.from_numpy(images)).numpy()\n",
}


def answers_elsewhere(code, images, folder, kind):
    """What a process of its own answers that runs nothing but the code that loads a file."""
    np.save(folder / "images.npy", images.numpy())
    program = f"{ALONE}import numpy\n{code}\nimages = numpy.load('images.npy')\n{ASK[kind]}"
    program += "numpy.save('answers.npy', answers)\n"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return torch.from_numpy(np.load(folder / "answers.npy"))


@pytest.fixture
def pictures(generator):
    return torch.rand(6, 3, 32, 32, generator=generator)


@pytest.fixture
def of_timm():
    """A network of timm with a normalisation of its own, whose statistics of batch norm are not those at the start."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.create("timm/resnet10t", 4, in_channels=3, image_size=32)
        model.described = {"name": "timm/resnet10t", "num_classes": 4, "in_channels": 3, "image_size": 32}
        model.train()(torch.rand(8, 3, 32, 32))
    return model.eval()


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4)).eval()


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("file", ["net.pt", "net.safetensors", "net.pt2", "net.onnx"])
def test_a_network_of_timm_loads_without_this_package(file, of_timm, pictures, tmp_path):
    if file.endswith(".onnx"):
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    place = tmp_path / "a folder's"
    exported = cp.export(
        of_timm, place / file, data=(pictures, [0, 1, 2, 3, 0, 1]), classes=["a", "b", "c", "d"]
    )
    assert "counterpart" not in exported.code
    kind = "onnx" if file.endswith(".onnx") else "torch"
    seen = answers_elsewhere(exported.code, pictures[:5], tmp_path, kind)
    with torch.no_grad():
        expected = of_timm(pictures[:5])
    assert expected.std() > 0.01  # the answers tell images apart
    assert torch.allclose(seen, expected, atol=1e-4, rtol=0)
    about = json.loads(exported.description.read_text())
    assert about["classes"] == ["a", "b", "c", "d"]
    assert about["shape"] == ["batch", 3, 32, 32]
    assert names_in(place) == sorted([file, f"{file}.json"])


def test_a_state_dict_of_timm_is_read_back_by_its_name(of_timm, pictures, tmp_path):
    """Its names are those that evaluate reads as timm/NAME@FILE, with the normalisation that is inside."""
    cp.export(of_timm, tmp_path / "net.pt", data=(pictures, [0, 1, 2, 3, 0, 1]))
    again = cp.load(f"timm/resnet10t@{tmp_path / 'net.pt'}")
    with torch.no_grad():
        assert torch.equal(again(pictures), of_timm(pictures))


def test_a_normalisation_that_is_given_is_inside(net, pictures, tmp_path):
    exported = cp.export(
        net,
        tmp_path / "net.pt2",
        data=(pictures, [0, 1, 2, 3, 0, 1]),
        mean=[0.2, 0.4, 0.6],
        std=[0.5, 0.25, 0.1],
    )
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.2, 0.4, 0.6], [0.5, 0.25, 0.1]))
    graph = torch.export.load(exported.path).module()
    with torch.no_grad():
        for count in (1, 3):  # any number of images
            expected = net((pictures[:count] - mean) / std)
            assert torch.allclose(graph(pictures[:count]), expected, atol=1e-5)
    assert exported.checked.images == 6
    assert exported.checked.attacked == 0


def test_a_state_dict_of_somebody_elses_network_says_that_its_code_is_needed(net, pictures, tmp_path):
    exported = cp.export(net, tmp_path / "net.pth", data=(pictures, [0, 1, 2, 3, 0, 1]))
    assert "model = ...  # the network from the code that made it" in exported.code
    assert torch.load(exported.path, weights_only=True).keys() == net.state_dict().keys()
    with pytest.raises(UserError, match=r"no net\.pth\.json beside it says of which network"):
        cp.load(exported.path)


def test_a_run_is_exported_and_loaded_again(run, tmp_path, capsys):
    assert main(["evaluate", str(run.path), "--attacks", "pgd", "--n", "60"]) == 0
    target = open_single_target(str(run.path), {})
    successes = len(exporting.first_saved_images(target, 10_000)[0])
    assert successes > 0
    for file in ("net.pt", "net.safetensors"):
        capsys.readouterr()
        assert main(["export", str(run.path), "--to", str(tmp_path / file)]) == 0
        told = capsys.readouterr().out
        assert f"{successes} saved adversarial images fool it as well" in told
        assert f'model = counterpart.load("{tmp_path / file}")' in told
        images = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            assert torch.equal(cp.load(tmp_path / file)(images), cp.load(run.path)(images))
    # An exported safetensors file is a checkpoint: whatever takes a target takes it.
    [target] = jobs.open_targets(str(tmp_path / "net.safetensors"), {})
    assert target.classes == 10
    target = open_single_target(str(run.path), {})
    with torch.no_grad():  # what other weights were fooled by is passed over
        next(target.model.parameters()).add_(0.1)
    assert len(exporting.first_saved_images(target, 100)[0]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("file", ["net.pt2", "net.onnx"])
def test_what_the_command_prints_loads_a_file_that_saved_images_fool(file, run, tmp_path, capsys):
    """The printed lines alone, in a process that cannot import this package."""
    if file.endswith(".onnx"):
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    assert main(["evaluate", str(run.path), "--attacks", "pgd", "--n", "60"]) == 0
    attacked, labels = exporting.first_saved_images(open_single_target(str(run.path), {}), 512)
    model = cp.load(run.path)
    with torch.no_grad():
        expected = model(attacked)
    others = expected.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    margin = others - expected.gather(1, labels[:, None])[:, 0]
    clear = margin > MARGINAL * (expected.amax(dim=1) - expected.amin(dim=1))
    assert clear.any()
    capsys.readouterr()
    assert main(["export", str(run.path), "--to", str(tmp_path / file)]) == 0
    told, _, code = capsys.readouterr().out.partition("This loads it:\n")
    assert f"{int(clear.sum())} saved adversarial images fool it as well" in told
    seen = answers_elsewhere(code, attacked, tmp_path, "onnx" if file.endswith(".onnx") else "torch")
    assert torch.allclose(seen, expected, atol=1e-4, rtol=0)
    assert (seen.argmax(dim=1) != labels)[clear].all()


def test_a_file_that_a_saved_image_does_not_fool_is_not_written(net, pictures, tmp_path, monkeypatch):
    """A file may answer right on all real images, and still be another model."""
    with torch.no_grad():
        wrong = (net(pictures).argmax(1) + 1) % 4
    monkeypatch.setattr(exporting, "first_saved_images", lambda target, most: (pictures, wrong))
    cp.export(net, tmp_path / "sound.pt", data=(pictures, wrong))

    def stubborn(name, model, path):
        asked = []

        def answer(images):
            asked.append(len(images))
            return model(images) if len(asked) == 1 else nn.functional.one_hot(wrong, 4).float()

        return answer

    monkeypatch.setattr(exporting, "reopen", stubborn)
    with pytest.raises(
        UserError, match=r"6 of 6 adversarial images that fool .* do not fool the exported model"
    ):
        cp.export(net, tmp_path / "net.pt", data=(pictures, wrong))
    assert names_in(tmp_path) == ["sound.pt", "sound.pt.json"]


def test_a_file_that_answers_otherwise_is_not_written(net, pictures, tmp_path, monkeypatch):
    data = (pictures, [0, 1, 2, 3, 0, 1])
    (tmp_path / "net.pt").write_bytes(b"an earlier file")
    monkeypatch.setattr(exporting, "reopen", lambda name, model, path: lambda x: model(x) + 3e-4)
    with pytest.raises(UserError, match=r"its logits differ by 0\.0003\. Nothing was written"):
        cp.export(net, tmp_path / "net.pt", data=data)
    assert names_in(tmp_path) == ["net.pt"]
    assert (tmp_path / "net.pt").read_bytes() == b"an earlier file"
    monkeypatch.setattr(exporting, "reopen", lambda name, model, path: lambda x: model(x) + 5e-5)
    assert cp.export(net, tmp_path / "net.pt", data=data).checked.difference == pytest.approx(5e-5, rel=0.05)


def test_ctrl_c_leaves_nothing(net, pictures, tmp_path, monkeypatch):
    real = exporting.write_export

    def interrupted(*given):
        real(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "write_export", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cp.export(net, tmp_path / "net.pt", data=(pictures, [0, 1, 2, 3, 0, 1]))
    assert names_in(tmp_path) == []


def test_a_model_that_draws_is_refused(pictures, tmp_path):
    class Draws(nn.Module):
        def forward(self, images):
            return images.mean((2, 3)) + torch.rand(1)

    with pytest.raises(UserError, match="draws at random"):
        cp.export(Draws(), tmp_path / "net.pt2", data=(pictures, [0, 1, 2, 0, 1, 2]))


def test_a_model_without_a_graph_is_refused_in_one_line(pictures, tmp_path):
    class Odd(nn.Module):
        def forward(self, images):
            means = images.mean((2, 3))
            return means if float(means.sum()) > 0 else -means

    with pytest.raises(UserError, match="torch cannot write this model as torch-export") as refusal:
        cp.export(Odd(), tmp_path / "net.pt2", data=(pictures, [0, 1, 2, 0, 1, 2]))
    assert "\n" not in str(refusal.value)
    assert names_in(tmp_path) == []


def test_a_missing_package_is_named(net, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("counterpart.models.exported.NEEDED", ("json", "onnx_of_nobody"))
    with pytest.raises(
        UserError, match=r"needs onnx_of_nobody, which is not installed: pip install 'counterpart\[onnx"
    ):
        cp.export(net, tmp_path / "net.onnx", data=(pictures, [0, 1, 2, 3, 0, 1]))


@pytest.mark.parametrize(
    ("file", "asked", "said"),
    [
        ("net.bin", None, "does not say which format"),
        ("net.pt", "onnx", "is no name for the format onnx: it ends with .onnx"),
        ("net.pt", "onyx", "Did you mean 'onnx'"),
    ],
)
def test_formats_go_by_the_name_of_the_file(file, asked, said, net, pictures, tmp_path):
    with pytest.raises(UserError, match=said):
        cp.export(net, tmp_path / file, format=asked, data=(pictures, [0, 1, 2, 3, 0, 1]))


def test_what_load_refuses(run, tmp_path):
    (tmp_path / "net.pt2").write_bytes(b"PK")
    with pytest.raises(UserError, match="may run code when it is opened"):
        cp.load(tmp_path / "net.pt2")
    cp.export(str(run.path), tmp_path / "net.pt")
    other = tmp_path / "net.pt"
    other.write_bytes(other.read_bytes() + b"\0")
    with pytest.raises(UserError, match=r"is not the file that net\.pt\.json describes"):
        cp.load(other)
    cp.export(str(run.path), tmp_path / "named.pt")
    beside = tmp_path / "named.pt.json"
    about = json.loads(beside.read_text())
    about.pop("checksum")
    beside.write_text(json.dumps({**about, "network": {"name": "os:getcwd", "num_classes": 10}}))
    with pytest.raises(UserError, match="which a file alone may not run"):
        cp.load(tmp_path / "named.pt")
    with pytest.raises(UserError, match="expected hf://OWNER/NAME"):
        cp.load("hf://nobody")
