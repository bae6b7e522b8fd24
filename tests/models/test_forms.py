"""A view never becomes another model: where the fast copy would, it is of a plainer form, and says why."""

import contextlib
import importlib.util
import logging
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from counterpart.attacks import pgd
from counterpart.budget import Linf
from counterpart.models import create, forms
from counterpart.models.borrowed import borrowed
from counterpart.models.forms import SAME_GRADIENTS, difference, is_own
from counterpart.models.inference import InferenceView, decide_form
from counterpart.models.normalize import ImageClassifier
from counterpart.seeding import Keys, seeded

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FALLBACKS = {
    "LeNet by view": ("contiguous", "the fast copy fails: view size is not compatible"),
    "branching": ("contiguous", "the fast copy fails: view size is not compatible"),
    "noise of one shape": ("unfolded", "the fast copy answers otherwise"),
    "hook on the images": ("original", "the fast copy answers otherwise"),
    "hook on the logits": ("original", "the fast copy answers otherwise"),
    "hook on gradients": ("original", "the fast copy has other gradients"),
    "pruned": ("original", "hooks of 3 make its weight anew in every pass"),
    "weight norm by hooks": ("original", "hooks of 3 make its weight anew in every pass"),
    "spectral norm by hooks": ("original", "hooks of 3 make its weight anew in every pass"),
    "TorchScript": ("original", "TorchScript cannot be copied"),
    "TorchScript by tracing": ("original", "TorchScript cannot be copied"),
}


def load_tutorials():
    spec = importlib.util.spec_from_file_location("tutorials", BENCHMARKS / "tutorial_networks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.NETWORKS


NETWORKS = load_tutorials()


def tutorial(name):
    """A network whose batch norms have seen something."""
    with seeded(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = NETWORKS[name]()
        if not isinstance(model, torch.jit.ScriptModule) and name != "quantised":
            with torch.no_grad():
                model.train()(torch.rand(16, 3, 32, 32))
    return model.eval()


def gradient_of(ask, images):
    leaf = images.clone().requires_grad_()
    with seeded(0):
        logits = ask(leaf)
    (gradient,) = torch.autograd.grad(
        F.cross_entropy(logits, torch.arange(len(images)), reduction="sum"), leaf
    )
    return logits.detach(), gradient


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "quantised"])
def test_every_way_to_write_a_network_has_the_right_numbers_and_a_stated_form(name, images, caplog):
    model = tutorial(name)
    form, reason = decide_form(model, images)
    expected, why = FALLBACKS.get(name, ("fast", None))
    assert form == expected
    assert (reason is None) == (why is None)
    if why is not None:
        assert reason.startswith("Attacks search on ")
        assert reason.endswith(".")
        assert why in reason

    with caplog.at_level(logging.WARNING):
        view = InferenceView(model)
        ours, our_gradient = gradient_of(view, images)
    assert view.form == form
    assert (f"{type(model).__name__}: {reason}" in caplog.text) == (why is not None)
    logits, gradient = gradient_of(model, images)
    torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-5)
    assert (our_gradient - gradient).norm() < 1e-3 * gradient.norm()


@pytest.mark.parametrize("name", ["LeNet by view", "hook on the logits", "pruned", "weight norm by hooks"])
def test_an_attack_on_the_fallback_is_the_attack_on_the_model(name, images):
    model = tutorial(name)
    labels = torch.arange(len(images))
    options = {"budget": Linf(0.1), "keys": Keys(0, "pgd", labels), "steps": 5}
    on_view = pgd(InferenceView(model), images, labels, **options)
    on_model = pgd(model, images, labels, **options)
    assert torch.equal(on_view.images, on_model.images)
    assert not torch.equal(on_view.images, images)


def test_the_gradients_are_those_of_the_hooked_model(images):
    """Logits 2 W x, so that the gradient of the cross-entropy is 2 W' (softmax(2 W x) - y)."""
    with seeded(0):
        linear = nn.Linear(3 * 32 * 32, 4, bias=False)
    model = nn.Sequential(nn.Flatten(), linear)
    model.register_forward_hook(lambda _, __, logits: 2 * logits)
    _, gradient = gradient_of(InferenceView(model.eval()), images)
    slopes = (2 * images.flatten(1) @ linear.weight.T).softmax(dim=1) - torch.eye(4)
    torch.testing.assert_close(gradient.flatten(1), 2 * slopes @ linear.weight.detach())


@pytest.mark.filterwarnings("ignore")  # of torch, that quantised tensors will go
def test_a_quantised_model_is_answered_without_gradients(images):
    model = tutorial("quantised")
    assert decide_form(model, images) == ("fast", None)
    torch.testing.assert_close(InferenceView(model)(images), model(images), rtol=1e-4, atol=1e-4)


FOLLOWED = ["pruned", "weight norm by hooks", "weight norm", "hook on the images", "pruned at the end"]


@pytest.mark.parametrize("change", FOLLOWED)
def test_every_form_follows_the_model(change, images):
    """After a step of training, too, which changes what the hooks make the weights from."""
    model = tutorial("small VGG" if change == "pruned at the end" else change)
    if change == "pruned at the end":  # where no batch norm asks for the weight by its name
        prune.l1_unstructured(model.get_submodule("16"), "weight", 0.3)
    with torch.no_grad():
        model(images)  # leaves weights behind that a copy could take for good
    view = InferenceView(model)
    before = view(images)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.2)
    view.refresh()
    after = view(images)
    assert not torch.allclose(after, before, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(after, model(images), rtol=1e-4, atol=1e-4)


def test_a_named_form_is_not_questioned(images):
    model = tutorial("hook on the logits")
    assert InferenceView(model, form="fast").form == "fast"
    bare = InferenceView(model, form="fast")(images)
    torch.testing.assert_close(model(images), 2 * bare + torch.eye(10)[0], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"TorchScript cannot be copied into a view \(form='original'"):
        InferenceView(tutorial("TorchScript"), form="fast")
    with pytest.raises(ValueError, match="hooks of 3 make its weight anew"):
        InferenceView(tutorial("pruned"), form="unfolded")
    with pytest.raises(Exception, match="slow"):  # by the type's checker, or else by the view's own words
        InferenceView(model, form="slow")


@pytest.mark.parametrize("form", forms.FORMS)
def test_each_form_is_what_it_says(make, images, form):
    model = make("resnet18", width=8)
    view = InferenceView(model, form=form)
    assert view.form == form
    assert view.folded == (form in ("fast", "contiguous"))
    torch.testing.assert_close(view(images), model(images), rtol=1e-4, atol=1e-4)
    weight = view._copy.backbone.layer1.get_submodule("0").conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == (form == "fast")
    assert (view._copy is model) == (form == "original")
    probe = view.probe(images)
    torch.testing.assert_close(probe.features, model.forward_features(images), rtol=1e-3, atol=1e-3)
    assert torch.equal(probe.weights, model.get_classifier().weight)
    half = InferenceView(model, form=form, precision="bf16")(images)
    assert half.dtype == torch.float32
    assert 0 < (half - model(images)).abs().max() < 0.05 * model(images).abs().max()


def test_the_model_itself_is_put_back_as_it_was(images):
    model = tutorial("hook on the images").train()
    model.get_submodule("1").eval()  # modes need not agree, nor what is frozen
    model.get_submodule("0").weight.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    needs = [parameter.requires_grad for parameter in model.parameters()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def same():
        assert modes == [module.training for module in model.modules()]
        assert needs == [parameter.requires_grad for parameter in model.parameters()]
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())

    view = InferenceView(model)
    probe = view.probe(images)
    assert view.form == "original"
    same()
    probe.logits.sum().backward()
    view(images).sum()
    assert probe.images.grad.abs().sum() > 0
    assert [parameter.grad for parameter in model.parameters()] == [None] * len(needs)
    same()
    with pytest.raises(RuntimeError):
        view(torch.rand(2, 5, 32, 32))
    same()
    assert model.get_submodule("3")._forward_hooks == {}


def test_probes_of_the_model_itself(make, images):
    model = make("resnet18", width=8)
    model.backbone.layer1.register_forward_hook(lambda _, __, output: 1.5 * output)
    view = InferenceView(model)
    probe = view.probe(images)
    assert view.form == "original"
    torch.testing.assert_close(probe.logits, model(images))
    torch.testing.assert_close(probe.features, model.forward_features(images))
    inner = InferenceView(model, layer="layer2").probe(images)
    assert inner.features.shape == (4, 16, 16, 16)
    assert torch.autograd.grad(inner.logits.sum(), inner.features)[0].abs().sum() > 0
    assert len(model.backbone.layer2._forward_hooks) == 0  # what showed the layer is gone
    model.register_forward_hook(lambda _, __, logits: logits * 2)  # now it is more than its two halves
    view = InferenceView(model)
    probe = view.probe(images)
    torch.testing.assert_close(probe.logits, model(images))
    assert probe.features is None


def test_attention_of_the_model_itself(images):
    with seeded(0):
        model = create("timm/vit_tiny_patch16_224", 10, image_size=32).eval()
    fused = [block.attn.fused_attn for block in model.backbone.blocks]
    for block in model.backbone.blocks:
        block.attn.fused_attn = False
    model.backbone.blocks[0].register_forward_hook(lambda _, __, output: output * 1.5)
    view = InferenceView(model, attention=True)
    probe = view.probe(images)
    assert view.form == "original"
    torch.testing.assert_close(probe.logits, model(images), rtol=1e-4, atol=1e-4)
    assert len(probe.attention.blocks) == len(fused)
    assert not any(block.attn.fused_attn for block in model.backbone.blocks)


def test_own_networks_are_known_until_somebody_changes_them(make, images, monkeypatch):
    monkeypatch.setattr(forms, "difference", None)  # own networks are not looked at
    plain = make("wrn-10-1")
    assert is_own(plain)
    assert decide_form(plain, images) == ("fast", None)
    InferenceView(plain)(images)

    def changed(change):
        model = make("wrn-10-1")
        change(model)
        return model

    changes = [
        lambda model: model.register_forward_hook(lambda *_: None),
        lambda model: model.backbone.conv1.register_full_backward_hook(lambda *_: None),
        lambda model: prune.l1_unstructured(model.backbone.conv1, "weight", 0.5),
        lambda model: parametrizations.weight_norm(model.backbone.conv1),
        lambda model: setattr(model, "forward", lambda images: images.flatten(1)),
        lambda model: setattr(model.backbone, "fc", NETWORKS["LeNet by view"]()),
    ]
    assert not any(is_own(changed(change)) for change in changes)
    assert not is_own(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)))
    assert not is_own(make("timm/resnet10t"))


class Doubled(ImageClassifier):
    """A user's own: not what its two halves are."""

    def forward(self, images):
        return 2 * super().forward(images)


def test_a_classifier_with_a_forward_of_its_own_is_asked_as_a_whole(make, images):
    model = Doubled(make("resnet18", width=8).backbone, 10).eval()
    assert decide_form(model, images)[0] == "original"
    torch.testing.assert_close(InferenceView(model)(images), model(images))


def test_what_a_difference_says(images):
    with seeded(0):
        linear = nn.Linear(3 * 32 * 32, 4)
    model = nn.Sequential(nn.Flatten(), linear).eval()
    same = difference(model, model, images)
    assert (same.logits, same.gradients) == (0.0, 0.0)
    assert same.kinks < 1e-6  # a linear model has none
    shifted = difference(model, lambda x: model(x) + torch.tensor([0.01, 0, 0, 0]), images)
    assert shifted.gradients == 0
    logits = model.requires_grad_(False)(0.95 * images + 0.025)  # about the range that it is a share of
    assert shifted.logits == pytest.approx(0.01 / float(logits.max() - logits.min()), rel=0.2)
    assert shifted.reason.startswith("answers otherwise (logits differ by ")
    steeper = difference(model, lambda x: model(x) + 0.03 * (model(x) - model(x).detach()), images)
    assert steeper.logits == 0
    assert steeper.gradients == pytest.approx(0.03, rel=1e-3)
    assert steeper.reason == "has other gradients (they differ by 3.00%)"
    for broken in (lambda x: model(x) * torch.nan, lambda x: model(x)[:, :3], lambda x: model(x).detach()):
        assert difference(model, broken, images).reason is not None
    with torch.no_grad():
        constant = nn.Sequential(nn.Flatten(), nn.Linear(3072, 4)).eval()
        constant[1].weight.zero_()
    assert difference(constant, constant, images).reason is None


def test_one_kink_between_model_and_view_is_no_other_model(images):
    """At one of the points gradients may differ, as where a unit is on for the one and off for the other."""
    with seeded(0):
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4)).eval()
    calls = []

    def kinked(x):
        calls.append(x)
        logits = model(x)
        return logits + (logits - logits.detach()) if len(calls) == 1 else logits

    assert difference(model, kinked, images).reason is None
    assert difference(model, lambda x: 2 * model(x) - model(x).detach(), images).reason is not None


def test_gradients_that_no_view_could_meet_are_no_other_model(images):
    """A wave so short that a millionth of a pixel's range turns its slope: sin(1e6 x) / 1e6."""

    class Wave(nn.Module):
        def __init__(self, gain):
            super().__init__()
            self.gain = gain

        def forward(self, x):
            return torch.cat(
                [(x + (self.gain * 1e6 * x.double()).sin() / 1e6).sum((1, 2, 3))[:, None]] * 2, 1
            )

    waves = difference(Wave(1.0), Wave(1.0000001), images)
    assert SAME_GRADIENTS < waves.gradients < waves.kinks
    assert waves.reason is None
    assert difference(Wave(1.0), Wave(-1.0), images).reason.startswith("has other gradients")


def test_deciding_draws_from_no_global_generator_and_leaves_the_model_alone(images):
    model = tutorial("noise").train()
    before, state = torch.random.get_rng_state(), {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert decide_form(model, images.requires_grad_()) == ("fast", None)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert model.training
    assert images.grad is None


def test_a_failed_trace_in_a_copy_prints_nothing(images, capfd):
    decide_form(tutorial("LeNet by view"), images)
    assert capfd.readouterr().err == ""


def test_borrowing_puts_back_after_an_error():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train()
    model[0].bias.requires_grad_(False)
    with borrowed(model):
        assert not model[1].training
        assert not model[0].weight.requires_grad
    with contextlib.suppress(KeyError), borrowed(model):
        raise KeyError
    assert model[1].training
    assert model[0].weight.requires_grad
    assert not model[0].bias.requires_grad


class Pyramid(nn.Module):
    """A backbone that hands two tensors to its head, as some of timm's do."""

    def __init__(self):
        super().__init__()
        self.conv, self.deeper, self.linear = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(8, 10)

    def forward_features(self, images):
        first = self.conv(images).relu()
        return [first, self.deeper(first)]

    def forward_head(self, features):
        return self.linear(torch.cat([maps.mean(dim=(2, 3)) for maps in features], dim=1))

    def get_classifier(self):
        return self.linear


@pytest.mark.parametrize("form", forms.FORMS)
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_trunk_may_hand_several_tensors_to_its_head(images, form, precision):
    with seeded(0):
        model = ImageClassifier(Pyramid(), 10).eval()
    assert decide_form(model, images) == ("fast", None)
    view = InferenceView(model, form=form, precision=precision)
    tolerance = 1e-5 if precision == "float32" else 0.02
    torch.testing.assert_close(view(images), model(images), rtol=tolerance, atol=tolerance)
    probe = view.probe(images)
    assert probe.features is None
    assert torch.autograd.grad(probe.logits.sum(), probe.images)[0].abs().sum() > 0
