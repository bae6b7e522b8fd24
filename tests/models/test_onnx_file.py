"""Answers of an ONNX file, by a stand-in for onnxruntime, which is no dependency."""

import copy
import hashlib
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from counterpart import Linf, pgd, square
from counterpart.errors import UserError
from counterpart.models.inference import InferenceView
from counterpart.models.onnx_file import OnnxModel


@pytest.fixture
def weight():
    return np.random.default_rng(0).normal(size=(12, 5)).astype("float32")


@pytest.fixture
def runtime(monkeypatch, weight):
    """What the module offers that is used here: a session of one linear layer; its file says how many images fit."""

    class InferenceSession:
        def __init__(self, content, providers):
            if content == b"damaged":
                raise RuntimeError("no protobuf\nsecond line")
            self.size, self.kind = content.decode().split()
            self.size = int(self.size) if self.size.isdigit() else self.size
            self.sizes = []

        def get_inputs(self):
            return [SimpleNamespace(name="pixels", shape=[self.size, 3, 2, 2], type=f"tensor({self.kind})")]

        def run(self, outputs, given):
            images = given["pixels"]
            assert outputs is None
            assert images.dtype == {"float": np.float32, "float16": np.float16}[self.kind]
            assert self.size == "batch" or len(images) == self.size
            self.sizes.append(len(images))
            return [images.reshape(len(images), -1).astype(images.dtype) @ weight.astype(images.dtype)]

    module = ModuleType("onnxruntime")
    module.InferenceSession = InferenceSession
    monkeypatch.setitem(sys.modules, "onnxruntime", module)


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
