"""Answers of an ONNX file, by a stand-in for onnxruntime; hostile files by itself."""

import copy
import hashlib
import importlib
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from counterpart import Linf, pgd, square
from counterpart.errors import UserError
from counterpart.models import onnx_file, onnx_trial
from counterpart.models.inference import InferenceView
from counterpart.models.onnx_file import OnnxModel

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
needs_the_real_one = pytest.mark.skipif(
    find_spec("onnxruntime") is None, reason="onnxruntime is not installed"
)


@pytest.fixture
def files(monkeypatch):
    """Small files of each kind, as benchmarks/fuzz_onnx.py makes them."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("fuzz_onnx")


@pytest.fixture
def weight():
    return np.random.default_rng(0).normal(size=(12, 5)).astype("float32")


@pytest.fixture
def runtime(monkeypatch, weight):
    """What the module offers that is used here: a session of one linear layer; its file says how many images fit."""

    class InferenceSession:
        def __init__(self, content, options, providers, enable_fallback):
            assert options.log_severity_level == 4
            if content == b"damaged":
                raise RuntimeError("no protobuf\nsecond line")
            self.size, self.kind = content.decode().split()
            self.size = int(self.size) if self.size.isdigit() else self.size
            self.sizes = []
            self.answer = None

        def get_inputs(self):
            return [SimpleNamespace(name="pixels", shape=[self.size, 3, 2, 2], type=f"tensor({self.kind})")]

        def run(self, outputs, given):
            images = given["pixels"]
            assert outputs is None
            if self.answer is not None:
                return [self.answer]
            assert images.dtype == {"float": np.float32, "float16": np.float16}[self.kind]
            assert self.size == "batch" or len(images) == self.size
            self.sizes.append(len(images))
            return [images.reshape(len(images), -1).astype(images.dtype) @ weight.astype(images.dtype)]

    class SessionOptions:
        def add_session_config_entry(self, name, folder):
            assert name == "session.model_external_initializers_file_folder_path"
            assert list(Path(folder).iterdir()) == []

    module = ModuleType("onnxruntime")
    module.__spec__ = ModuleSpec("onnxruntime", None)
    module.InferenceSession, module.SessionOptions = InferenceSession, SessionOptions
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    monkeypatch.setattr(onnx_file, "try_apart", lambda content: None)  # whose process has the real one


@pytest.fixture
def images(generator):
    return torch.rand(7, 3, 2, 2, generator=generator)


def written(folder, content):
    path = folder / "net.onnx"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "sizes"),
    [(b"batch float", [7]), (b"3 float", [3, 3, 3]), (b"1 float", [1] * 7), (b"batch float16", [7])],
)
def test_it_answers_as_the_file_does(content, sizes, runtime, weight, images, tmp_path):
    model = OnnxModel(written(tmp_path, content)).eval()
    answers = model(images)
    assert answers.dtype == torch.float32
    assert torch.allclose(
        answers, images.flatten(1) @ torch.from_numpy(weight), atol=1e-2 if b"16" in content else 1e-6
    )
    assert model.session.sizes == sizes


def test_its_bytes_are_its_identity_and_its_view_asks_the_same_session(runtime, images, tmp_path):
    model = OnnxModel(written(tmp_path, b"batch float")).eval()
    assert bytes(model.state_dict()["digest"].tolist()) == hashlib.sha256(b"batch float").digest()
    assert copy.deepcopy(model) is model
    assert torch.equal(InferenceView(model)(images), model(images))


def test_attacks_without_gradients_run_and_others_refuse(runtime, images, tmp_path):
    model = OnnxModel(written(tmp_path, b"batch float")).eval()
    labels = model(images).argmax(dim=1)
    attacked = square(model, images, labels, budget=Linf(0.5), queries=50)
    assert (model(attacked.images).argmax(dim=1) != labels).any()
    with pytest.raises(ValueError, match="no gradient"):
        pgd(model, images, labels, budget=Linf(0.5))


def test_what_cannot_be_read_is_one_line(runtime, tmp_path):
    with pytest.raises(UserError, match=r"net.onnx is no network .* can read: no protobuf$"):
        OnnxModel(written(tmp_path, b"damaged"))


def test_without_onnxruntime_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # an import of it fails
    with pytest.raises(UserError, match="needs onnxruntime, which is not installed: pip install onnxruntime"):
        OnnxModel(written(tmp_path, b"batch float"))


@pytest.mark.parametrize("answer", [np.zeros((), np.float32), np.zeros((2, 5), np.float32)])
def test_an_answer_without_a_row_for_each_image_is_refused(answer, runtime, images, tmp_path):
    model = OnnxModel(written(tmp_path, b"batch float")).eval()
    model.session.answer = answer
    with pytest.raises(UserError, match=r"answers 7 images with .* expected a row for each"):
        model(images)


@needs_the_real_one
def test_a_file_is_read_and_asked(files, tmp_path):
    model = OnnxModel(written(tmp_path, files.linear()))
    expected = torch.ones(2, 4) @ (0.1 * torch.arange(12.0)).view(4, 3) + 0.1 * torch.arange(3.0)
    assert torch.allclose(model(torch.ones(2, 1, 2, 2)), expected)
    with pytest.raises(UserError, match=r"no answer to images of shape \(1, 3, 3\): .*exported for"):
        model(torch.ones(2, 1, 3, 3))


@needs_the_real_one
@pytest.mark.parametrize("place", ["w.bin", "../folder/w.bin", "/etc/passwd"])
def test_a_file_that_names_another_as_its_weights_is_refused(files, place, tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    np.arange(12, dtype=np.float32).tofile(folder / "w.bin")
    monkeypatch.chdir(folder)
    nodes = [files.node("Flatten", ["x"], "f"), files.node("Gemm", ["f", "w"], "y")]
    content = files.network(nodes, [files.elsewhere("w", (4, 3), place)], ("b", 1, 2, 2))
    with pytest.raises(ValueError, match="keeps its weights in other files"):
        onnx_trial.open_session(content)


@needs_the_real_one
@pytest.mark.parametrize(
    ("kind", "limit"), [pytest.param("endless", "SECONDS", marks=pytest.mark.slow), ("enlarged", "BYTES")]
)
def test_a_file_that_never_ends_or_takes_all_memory_is_refused_by_its_limit(
    files, kind, limit, tmp_path, monkeypatch
):
    content = files.endless() if kind == "endless" else files.enlarged(10_000)
    monkeypatch.setenv("COUNTERPART_MOST_ONNX_SECONDS", "2")
    monkeypatch.setenv("COUNTERPART_MOST_ONNX_BYTES", str(2**29))
    with pytest.raises(UserError, match=f"was ended.*COUNTERPART_MOST_ONNX_{limit}"):
        OnnxModel(written(tmp_path, content))
