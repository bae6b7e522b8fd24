"""Passes of models that draw: seeded, put back, frozen by no copy, and the same for each image where noise is fixed."""

import random

import numpy
import pytest
import torch
from torch import nn
from torch.nn import functional

from counterpart.models.fixed_noise import FixedNoise
from counterpart.models.inference import InferenceView, decide_form
from counterpart.models.random_passes import seeded_passes

CPU = torch.device("cpu")


class TestTimeDropout(nn.Dropout):
    """Dropout that eval() does not switch off."""

    __test__ = False

    def train(self, mode=True):
        return super().train(True)


class Drawing(nn.Module):
    """A small network that draws in one of several ways."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.convolution = nn.Conv2d(1, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.heads = nn.ModuleList([nn.Linear(6 * 36, 5), nn.Linear(6 * 36, 5)])
        self.dropout = TestTimeDropout(0.3)
        if how == "generator":
            self.generator = torch.Generator()

    def forward(self, images):
        features = self.norm(self.convolution(self._noisy(images))).relu().flatten(1)
        head = self.heads[int(self.how == "one of two networks" and float(torch.rand(())) < 0.5)]
        return head(self.dropout(features) if self.how == "dropout module" else features)

    def _noisy(self, images):
        match self.how:
            case "noise of constant shape":
                return images + 0.1 * torch.randn(1, 8, 8)
            case "noise of the images' shape":
                return images + 0.1 * torch.randn_like(images)
            case "dropout function":
                return functional.dropout(images, 0.3, training=True)
            case "numpy":
                return images + 0.1 * torch.from_numpy(numpy.random.randn(*images.shape)).float()  # noqa: NPY002
            case "generator":
                return images + 0.1 * torch.randn(images.shape, generator=self.generator)
        return images


WAYS = [
    "noise of constant shape", "noise of the images' shape", "dropout function", "dropout module", "numpy", "generator",
    "one of two networks",
]  # fmt: skip


@pytest.fixture
def images():
    return torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def built(how):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Drawing(how).eval()


@pytest.mark.parametrize("how", WAYS)
def test_a_view_draws_what_its_model_draws(how, images):
    model = built(how)
    form, _ = decide_form(model, images)
    view = InferenceView(model, form=form)
    answers = []
    for seed in range(12):
        with seeded_passes(model, seed, CPU), torch.no_grad():
            answers.append(view(images))
        with seeded_passes(model, seed, CPU), torch.no_grad():
            torch.testing.assert_close(answers[-1], model(images), rtol=1e-4, atol=1e-5)
    assert any(not torch.allclose(answers[0], other, atol=1e-3) for other in answers)


def test_a_copy_that_froze_a_choice_is_refused(images):
    form, reason = decide_form(built("one of two networks"), images)
    assert form == "unfolded"
    assert "does not draw at random what the model draws" in reason
    assert decide_form(built("generator"), images)[0] == "original"
    assert decide_form(built("nothing"), images) == ("fast", None)


@pytest.mark.parametrize("how", WAYS)
def test_passes_are_seeded_and_generators_put_back(how, images):
    model = built(how)
    torch.manual_seed(1)
    numpy.random.seed(1)  # noqa: NPY002
    random.seed(1)
    expected = torch.rand(3), numpy.random.rand(), random.random()  # noqa: NPY002
    torch.manual_seed(1)
    numpy.random.seed(1)  # noqa: NPY002
    random.seed(1)
    state = model.generator.get_state() if how == "generator" else None
    passes = []
    for seed in (3, 3, 4, 5, 6, 7, 8):
        with seeded_passes(model, seed, CPU):
            passes.append(model(images))
    assert torch.equal(passes[0], passes[1])
    assert any(not torch.equal(passes[0], other) for other in passes[2:])
    assert torch.equal(torch.rand(3), expected[0])
    assert (numpy.random.rand(), random.random()) == expected[1:]  # noqa: NPY002
    assert state is None or torch.equal(model.generator.get_state(), state)


@pytest.mark.parametrize("how", WAYS)
def test_with_fixed_noise_an_answer_hangs_on_the_image_alone(how, images):
    model = built(how)
    fixed = FixedNoise(model, 3)
    answers = fixed(images)
    assert torch.equal(answers, fixed(images))
    torch.testing.assert_close(fixed(images[4:9]), answers[4:9])
    torch.testing.assert_close(fixed(images.flip(0)), answers.flip(0))
    for image, answer in zip(images, answers, strict=True):
        with seeded_passes(model, 3, CPU):
            torch.testing.assert_close(model(image[None])[0], answer, rtol=1e-4, atol=1e-5)
    assert fixed.at_once
    others = [FixedNoise(model, seed)(images) for seed in range(8)]
    assert any(not torch.allclose(answers, other) for other in others)


def test_a_model_that_vmap_does_not_understand_answers_image_by_image(images):
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = built("noise of the images' shape")

        def forward(self, images):
            return self.inner(images) if float(images.detach().mean()) > 0.1 else self.inner(1 - images)

    model = Branching().eval()
    fixed = FixedNoise(model, 3)
    leaf = images.clone().requires_grad_()
    answers = fixed(leaf)
    assert fixed.at_once is False
    torch.testing.assert_close(answers, FixedNoise(model.inner, 3)(images))
    (gradient,) = torch.autograd.grad(answers.sum(), leaf)
    assert gradient.flatten(1).norm(dim=1).min() > 0
