"""How many images an evaluation meets and saves at once, where the user leaves that open."""

import json

import pytest
import torch
from torch import nn

from counterpart import devices
from counterpart.config import EvaluateSettings
from counterpart.data.digits import load_digits
from counterpart.jobs import sizes
from counterpart.jobs.sizes import ON_A_CPU, ON_A_GPU, Sizes, largest_power_of_two, settle_sizes
from counterpart.records import fingerprint

CPU = torch.device("cpu")
IDENTITY = {"model": "abc", "eps": 0.1, "shape": (1, 8, 8)}


def settled(folder=None, *, device=CPU, identity=IDENTITY, **wanted):
    images = load_digits().test
    return settle_sizes(folder, identity, EvaluateSettings(**wanted), nn.Flatten(), images, device)


def keep(folder, **identity):
    """An evaluation that began earlier."""
    home = folder / fingerprint(identity)
    home.mkdir(parents=True)
    (home / "identity.json").write_text(json.dumps(identity), encoding="utf-8")


@pytest.fixture
def gpu(monkeypatch):
    """The sizes on a GPU of which each image needs so many bytes."""

    def with_memory(free, of_one):
        monkeypatch.setattr(sizes, "_bytes_of_one_image", lambda model, images, device: of_one)
        monkeypatch.setattr(devices, "free_memory", lambda device: free)
        return torch.device("cuda", 0)

    return with_memory


def test_what_is_asked_for_is_taken():
    assert settled(batch_size=7, chunk_size=70) == Sizes(7, 70)
    assert settled(batch_size=7) == Sizes(7, ON_A_CPU.chunk_size)
    assert settled() == ON_A_CPU == Sizes(256, 500)


def test_a_gpu_takes_what_its_memory_holds(gpu):
    assert settled(device=gpu(free=2**37, of_one=2**20)) == ON_A_GPU == Sizes(2048, 10_000)
    # Half of 1 GiB holds 512 images of 1 MiB, and half of 1000 MiB holds 500 of them: the power of two below.
    assert settled(device=gpu(free=2**30, of_one=2**20)).batch_size == 512
    assert settled(device=gpu(free=1000 * 2**20, of_one=2**20)).batch_size == 256
    assert settled(device=gpu(free=2**20, of_one=2**20)).batch_size == 1
    assert settled(device=gpu(free=2**30, of_one=2**20), batch_size=3000) == Sizes(3000, 10_000)


def test_several_gpus_share_the_chunks(gpu, monkeypatch):
    device = gpu(free=2**37, of_one=2**20)
    monkeypatch.setattr(sizes.distributed, "world_size", lambda: 3)
    monkeypatch.setattr(sizes.distributed, "gather", lambda thing: [thing])
    assert settled(device=device) == Sizes(2048, 34)  # 400 images in 12 chunks


@pytest.mark.parametrize(("most", "expected"), [(0, 1), (0.5, 1), (1, 1), (3.9, 2), (4, 4), (2048, 2048)])
def test_largest_power_of_two(most, expected):
    assert largest_power_of_two(most) == expected


def test_an_evaluation_goes_on_with_the_sizes_that_it_began_with(tmp_path, gpu):
    device = gpu(free=2**37, of_one=2**20)
    keep(tmp_path, **IDENTITY, batch_size=256, chunk_size=500)
    assert settled(tmp_path, device=device) == Sizes(256, 500)
    assert settled(tmp_path, device=device, identity={**IDENTITY, "eps": 0.2}) == ON_A_GPU


def test_the_form_of_the_view_does_not_matter(tmp_path):
    keep(tmp_path, **IDENTITY, batch_size=64, chunk_size=500, view="original")
    assert settled(tmp_path).batch_size == 64


def test_what_is_asked_for_has_to_fit(tmp_path):
    keep(tmp_path, **IDENTITY, batch_size=64, chunk_size=128)
    assert settled(tmp_path, batch_size=64) == Sizes(64, 128)
    assert settled(tmp_path, batch_size=32) == Sizes(32, ON_A_CPU.chunk_size)


def test_a_damaged_identity_is_passed_over(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "identity.json").write_text("{", encoding="utf-8")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "identity.json").write_text("[]", encoding="utf-8")
    keep(tmp_path, **IDENTITY, batch_size=64, chunk_size=128)
    assert settled(tmp_path) == Sizes(64, 128)


def test_a_count_of_corruptions_has_batches_alone(tmp_path):
    keep(tmp_path, **IDENTITY, batch_size=64)
    images = load_digits().test
    model, wanted = nn.Flatten(), EvaluateSettings()
    assert (
        settle_sizes(tmp_path, IDENTITY, wanted, model, images, CPU, entries=["batch_size"]).batch_size == 64
    )


class WithoutGradients(nn.Module):
    """As an ONNX file answers."""

    def forward(self, images):
        return images.flatten(1).detach()


@pytest.mark.parametrize("model", [nn.Flatten(), WithoutGradients()])
def test_passes_are_measured_with_gradients_or_without(model, monkeypatch):
    measured = []
    monkeypatch.setattr(devices, "memory_of", lambda work, device: measured.append(work()) or 16 * 2**20)
    assert sizes._bytes_of_one_image(model, load_digits().test, CPU) == 2**20
    assert len(measured) == 1


def test_nothing_is_measured_where_earlier_sizes_decide(tmp_path, monkeypatch):
    def measure(model, images, device):
        raise AssertionError("measured")

    monkeypatch.setattr(sizes, "_bytes_of_one_image", measure)
    keep(tmp_path, **IDENTITY, batch_size=64, chunk_size=128)
    device = torch.device("cuda", 0)
    assert settled(tmp_path, device=device) == Sizes(64, 128)
    assert settled(tmp_path, device=device, batch_size=64) == Sizes(64, 128)
    with pytest.raises(AssertionError, match="measured"):
        settled(tmp_path, device=device, identity={**IDENTITY, "eps": 0.2})


def test_what_is_drawn_while_passes_are_measured_is_nobody_elses(monkeypatch):
    monkeypatch.setattr(devices, "memory_of", lambda work, device: work() or 16)
    before = torch.get_rng_state()
    sizes._bytes_of_one_image(nn.Sequential(nn.Dropout(), nn.Flatten()), load_digits().test, CPU)
    assert torch.equal(torch.get_rng_state(), before)
