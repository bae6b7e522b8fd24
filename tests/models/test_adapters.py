"""Whatever classifies images, as a classifier: each adapter, its note, and what is refused."""

import copy
from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from counterpart import Linf, pgd
from counterpart.attacks import pgd as inner_pgd
from counterpart.attacks.front_door import front_door
from counterpart.contracts import Attacked
from counterpart.models import create
from counterpart.models.adapters import Adapted, as_classifier, bounds
from counterpart.models.inference import InferenceView
from counterpart.seeding import Keys


class Around(nn.Module):
    """A function around a network."""

    def __init__(self, network, after=lambda z: z):
        super().__init__()
        self.network, self.after = network, after

    def forward(self, images):
        return self.after(self.network(images))


class ModelOutput(OrderedDict):
    """As the library of transformers returns it: a dictionary whose values are attributes as well."""

    def __getattr__(self, name):
        return self[name]


def network(outputs=5):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, outputs)
    ).eval()


@pytest.fixture
def images(generator):
    return torch.rand(12, 3, 4, 4, generator=generator)


def test_a_classifier_stays_the_module_that_it_is(images):
    for model in (network(), create("resnet18", 4, width=4)):
        classifier, notes = as_classifier(model, images)
        assert classifier is model
        assert notes == ()


Pair = namedtuple("Pair", ["logits", "features"])


@pytest.mark.parametrize(
    ("wrap", "place"),
    [
        (lambda z: (z, z[:, :2]), "tuple of (12, 5), (12, 2): output[0] is"),
        (lambda z: [z[:, :, None], z], "list of (12, 5, 1), (12, 5): output[1] is"),
        (lambda z: (z.argmax(dim=1), z[:, 0], z), "tuple of (12,), (12,), (12, 5): output[2] is"),
        (lambda z: {"features": z[:, :3], "logits": z}, "dict of (12, 3), (12, 5): output['logits'] is"),
        (lambda z: {"loss": z.sum(), "scores": z}, "dict of (), (12, 5): output['scores'] is"),
        (lambda z: SimpleNamespace(loss=None, logits=z), "SimpleNamespace of (12, 5): output.logits is"),
        (
            lambda z: ModelOutput(hidden=z[:, :4], logits=z),
            "ModelOutput of (12, 4), (12, 5): output['logits'] is",
        ),
        (lambda z: Pair(z, z), "Pair of (12, 5), (12, 5): output[0] is"),
        (lambda z: {"heads": (z[:, None], z)}, "dict of (12, 1, 5), (12, 5): output['heads'][1] is"),
    ],
)
def test_outputs_that_hold_logits(wrap, place, images):
    classifier, notes = as_classifier(Around(network(), wrap), images)
    assert notes == (f"the model returns {place} taken as its logits.",)
    assert torch.equal(classifier(images), network()(images))
    assert torch.allclose(InferenceView(classifier)(images), network()(images), atol=1e-5)


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (
            lambda z: z[:, :, None, None],
            r"a tensor float32 of shape \(12, 5, 1, 1\); expected logits \(12, K\)",
        ),
        (lambda z: z.argmax(dim=1), r"a tensor int64 of shape \(12,\); expected logits"),
        (lambda z: z.mean(), r"a tensor float32 of shape \(\); expected"),
        (lambda z: {"boxes": z[:4]}, r"dict of \(4, 5\); expected"),
        (lambda z: "cat", "str of no tensors; expected"),
    ],
)
def test_outputs_without_logits_are_refused_with_what_there_is(wrap, said, images):
    with pytest.raises(ValueError, match=said):
        as_classifier(Around(network(), wrap), images)


def test_no_module_is_refused(images):
    with pytest.raises(
        ValueError, match=r"a model is a torch\.nn\.Module, got function: put it into the forward"
    ):
        as_classifier.__wrapped__(lambda x: x, images)


def test_a_normalisation_before_the_model(images):
    classifier, notes = as_classifier(network(), images, mean=[0.5, 0.4, 0.3], std=(0.2, 0.25, 0.5))
    shift, scale = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.5, 0.4, 0.3), (0.2, 0.25, 0.5)))
    assert torch.allclose(classifier(images), network()((images - shift) / scale), atol=1e-6)
    assert notes == ("images are normalised with mean 0.5, 0.4, 0.3 and std 0.2, 0.25, 0.5.",)
    alone, _ = as_classifier(network(), images, std=[0.5] * 3)
    assert torch.allclose(alone(images), network()(2 * images), atol=1e-6)
    ours, _ = as_classifier(create("resnet18", 4, width=4), images, mean=[0.5] * 3)
    assert isinstance(ours, Adapted)
    assert {"normalise.mean", "normalise.std"} <= set(
        classifier.state_dict()
    )  # they are part of what is judged


@pytest.mark.parametrize("given", [{"mean": [0.5]}, {"std": [1.0, 1.0, 0.0]}, {"std": [0.1] * 4}])
def test_a_normalisation_that_does_not_fit_is_refused(given, images):
    with pytest.raises(ValueError, match="needs a number for each of 3 channels"):
        as_classifier(network(), images, **given)


@pytest.mark.parametrize("shape", ["(B, 1)", "(B,)", "in a tuple"])
def test_one_logit_is_two_classes(shape, images):
    wrap = {"(B, 1)": lambda z: z, "(B,)": lambda z: z[:, 0], "in a tuple": lambda z: (z,)}[shape]
    classifier, notes = as_classifier(Around(network(1), wrap), images)
    z = network(1)(images)
    assert torch.equal(classifier(images), torch.cat([torch.zeros_like(z), z], dim=1))
    assert "one logit z" in notes[-1]
    assert "(0, z)" in notes[-1]


def test_one_probability_is_the_two_classes_of_its_logit(images):
    def sharp(z):
        return (8 * z[:, 0]).sigmoid()

    classifier, notes = as_classifier(Around(network(1), sharp), images)
    z = 8 * network(1)(images)
    assert torch.allclose(classifier(images), torch.cat([torch.zeros_like(z), z], dim=1), atol=1e-3)
    assert "one probability" in notes[-1]
    # The logit undoes the sigmoid in the gradient as well, so that an attack finds what it finds without both.
    labels, budget = (z[:, 0] > 0).long(), Linf(0.05)
    plain, _ = as_classifier(Around(network(1), lambda z: 8 * z), images)
    keys = Keys(0, "test", torch.arange(12))
    with_it, without = (
        inner_pgd(m, images, labels, budget=budget, keys=keys, steps=5).images for m in (classifier, plain)
    )
    assert (with_it - without).abs().max() < 1e-6


def test_a_probability_of_exactly_0_and_1_has_finite_logits(images):
    step = Around(network(1), lambda z: (z[:, 0] > z.median()).float() + 0 * z[:, 0])
    classifier, notes = as_classifier(step, images)
    assert "one probability" in notes[-1]
    assert classifier(images).isfinite().all()
    assert (classifier(images).argmax(dim=1) == step(images).long()).all()


def test_one_small_logit_is_no_probability(images):
    classifier, notes = as_classifier(Around(network(1), lambda z: 0.5 + 0.01 * z), images)
    assert "one logit" in notes[-1]
    assert (classifier(images).argmax(dim=1) == 1).all()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_models_of_another_floating_type(kind, images):
    model = network().to(kind)
    classifier, notes = as_classifier(model, images)
    assert notes == (
        f"the model computes in {str(kind)[6:]}: images are cast to it, and its answers to float32.",
    )
    answers = classifier(images)
    assert answers.dtype == torch.float32
    assert torch.equal(answers, model(images.to(kind)).float())
    view = InferenceView(classifier)  # which makes another type of the same network
    assert torch.allclose(view(images), answers, atol=0.1 if kind == torch.bfloat16 else 1e-2)
    labels = answers.argmax(dim=1)
    attacked = pgd(classifier, images, labels, budget=Linf(0.3), steps=5).images
    assert (classifier(attacked).argmax(dim=1) != labels).float().mean() > 0.5


def test_a_normalisation_stays_in_float32_before_a_model_in_half_precision(images):
    model = network().bfloat16()
    classifier, notes = as_classifier(model, images, mean=[0.5] * 3, std=[0.25] * 3)
    assert len(notes) == 2
    expected = model(((images - 0.5) / 0.25).bfloat16()).float()
    assert torch.equal(classifier(images), expected)

    def spy(model, images, labels, *, budget, keys):
        assert torch.equal(model(images), expected)  # through the door as well
        return Attacked(images, labels, labels)

    front_door(spy)(classifier, images, expected.argmax(dim=1), budget=Linf(0.1))


def test_the_model_is_asked_in_eval_mode_and_left_as_it_was(images):
    model = network().train()
    before = copy.deepcopy(model.state_dict())
    classifier, _ = as_classifier(Around(model, lambda z: (z,)), images)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(classifier.eval()(images), network()(images))


@pytest.mark.parametrize(
    ("after", "limits"),
    [
        (torch.sigmoid, "[0, 1]"),
        (torch.tanh, "[-1, 1]"),
        (lambda z: z.softmax(dim=1), "[0, 1]"),
        (lambda z: z, None),
        (lambda z: z / 1000, None),
        (lambda z: z.log_softmax(dim=1), None),
        (lambda z: 10 * z.tanh(), None),
        (lambda z: z / z.norm(dim=1, keepdim=True) / 2, None),  # bounded, and far from its bound
    ],
)
def test_bounds_that_answers_reach_and_never_leave(after, limits, images):
    assert bounds(Around(network(), after), images) == limits


def test_a_model_that_refuses_images_out_of_range_is_judged_on_real_ones(images):
    def strict(x):
        assert x.max() <= 1
        return (30 * network()(x)).sigmoid()

    assert bounds(strict, images) == "[0, 1]"
