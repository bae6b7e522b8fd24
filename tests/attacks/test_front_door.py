"""What the exported attacks see to for a loop of one's own, and what they refuse in one sentence."""

import copy
import inspect

import pytest
import torch
from torch import nn

import counterpart as cp
from counterpart.attacks import pgd as inner_pgd
from counterpart.attacks.front_door import front_door
from counterpart.catalogue.attacks import ATTACKS
from counterpart.contracts import Attacked, NamedAttack
from counterpart.errors import NotFinite
from counterpart.losses.classification import kl_divergence, margin
from counterpart.models.adapters import as_classifier
from counterpart.models.modes import eval_mode

EXPORTED = [
    name for name in cp.__all__ if name != "__version__" and cp._HOMES.get(name, "attacks") == "attacks"
]
MORE = {
    "transfer": {"surrogate": nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), "attack": cp.fgsm},
    "worst_case": {"attacks": [NamedAttack("one", cp.fgsm, "one")]},
    "square": {"queries": 5},
    "rays": {"queries": 5},
    "random_search": {"draws": 3},
    "apgd": {"steps": 3},
    "fab": {"steps": 3},
    "minimum_margin": {"steps": 2, "targets": 2},
    "pgd": {"steps": 3},
    "patch": {"steps": 3},
    "sparse_pgd": {"steps": 3},
    "deepfool": {"steps": 3},
    "ddn": {"steps": 3},
    "fmn": {"steps": 3},
    "carlini_wagner": {"steps": 3, "search_steps": 2},
    "auto_attack": {"version": "few-classes"},
}


def network():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 5))
    with torch.no_grad():
        model[2].weight.copy_(torch.randn(5, 12, generator=generator))
    return model


@pytest.fixture
def problem(generator):
    """A network in eval mode, six images that it gets right, and their labels."""
    model = network().eval()
    images = torch.rand(6, 3, 2, 2, generator=generator)
    return model, images, model(images).argmax(dim=1)


def allowed(name, eps):
    """A budget that the attack serves; AutoAttack's is wide enough for its first attack to be its last."""
    if name == "auto_attack":
        return cp.Linf(0.5)
    if name == "patch":
        return cp.Patch(1)
    if name == "sparse_pgd":
        return cp.L0(1)
    return cp.L2(3 * eps) if name in ("ddn", "carlini_wagner") else cp.Linf(eps)


def attack(name, model, images, labels, budget=None, **options):
    budget = budget if budget is not None else allowed(name, 0.3)
    return getattr(cp, name)(model, images, labels, budget=budget, **MORE.get(name, {}), **options)


def test_every_exported_attack_has_the_door_and_the_table_has_the_functions_behind_it():
    assert len(EXPORTED) == 17
    for name in EXPORTED:
        parameters = inspect.signature(getattr(cp, name)).parameters
        assert parameters["keys"].default is None
        assert parameters["seed"].default == 0
        assert getattr(cp, name).__doc__.strip()
    assert all("seed" not in inspect.signature(entry.load()).parameters for entry in ATTACKS.values())
    assert cp.pgd is cp.pgd
    assert cp.pgd.__wrapped__ is inner_pgd


@pytest.mark.parametrize("name", EXPORTED)
def test_keys_may_be_left_out_and_are_then_the_positions_and_a_seed(name, problem):
    left_out = attack(name, *problem)
    for keys in (cp.Keys(0, name, torch.arange(6)), cp.Keys(0, name, torch.arange(6, dtype=torch.int32))):
        given = attack(name, *problem, keys=keys)
        assert torch.equal(left_out.images, given.images)
        assert torch.equal(left_out.forwards, given.forwards)


def test_another_seed_draws_otherwise(problem):
    first, second, again = (attack("pgd", *problem, step_size=0.0, seed=seed).images for seed in (1, 2, 1))
    assert not torch.equal(first, second)
    assert torch.equal(first, again)
    with pytest.raises(ValueError, match="not both"):
        attack("pgd", *problem, keys=cp.Keys(0, "pgd", torch.arange(6)), seed=1)


@pytest.mark.parametrize("name", EXPORTED)
def test_with_keys_the_images_are_those_of_the_function_behind_the_door(name, problem):
    keys = cp.Keys(3, "mine", torch.arange(10, 16))
    options = {**MORE.get(name, {}), "budget": allowed(name, 0.05), "keys": keys}
    behind = getattr(cp, name).__wrapped__(*problem, **options)
    assert torch.equal(getattr(cp, name)(*problem, **options).images, behind.images)


def test_keys_labels_start_and_target_are_moved_to_where_the_images_are():
    seen = {}

    def spy(model, images, labels, *, budget, keys, start, target, loss):
        seen["devices"] = {place.device.type for place in (labels, keys.index, start, target)}
        return Attacked(images, labels, labels)

    images, labels = torch.rand(2, 3, 2, 2), torch.tensor([0, 1])
    front_door(spy)(
        nn.Identity(),
        images.to("meta"),  # a place without numbers, where nothing may be computed
        labels,
        budget=cp.Linf(0.1),
        keys=cp.Keys(0, "x", torch.arange(2)),
        start=images,
        target=torch.rand(2, 5),
        loss=kl_divergence,
    )
    assert seen["devices"] == {"meta"}


@pytest.mark.parametrize("name", EXPORTED)
def test_a_model_in_training_mode_is_attacked_in_eval_mode_and_left_as_it_was(name, problem):
    model, images, labels = problem
    judged = attack(name, model, images, labels)
    model.train()
    model[2].eval()
    model[2].bias.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    attacked = attack(name, model, images, labels)
    assert torch.equal(attacked.images, judged.images)
    assert [module.training for module in model] == [True, True, False]
    assert [parameter.requires_grad for parameter in model.parameters()] == [True, True, True, False]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_modes_are_put_back_after_an_error_and_the_surrogates_too(problem):
    model, images, labels = problem
    surrogate = network().train()
    model.train()
    cp.transfer(model, images, labels, budget=cp.Linf(0.1), surrogate=surrogate, attack=inner_pgd)
    assert surrogate[0].num_batches_tracked == 0
    with pytest.raises(ValueError, match="label 7"):
        attack("pgd", model, images, torch.full((6,), 7))
    assert model.training
    assert surrogate.training
    with eval_mode(model, None, print):
        assert not model.training


@pytest.mark.parametrize("kind", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8])
def test_labels_and_targets_of_any_integer_type(kind, problem):
    model, images, labels = problem
    assert torch.equal(attack("pgd", model, images, labels.to(kind)).images, attack("pgd", *problem).images)
    target = (labels + 1) % 5
    assert torch.equal(
        attack("apgd", *problem, target=target.to(kind)).images,
        attack("apgd", *problem, target=target).images,
    )
    assert torch.equal(attack("pgd", model, images, labels.tolist()).images, attack("pgd", *problem).images)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda y: nn.functional.one_hot(y, 5),
            r"shape \(6, 5\), expected \(6,\): pass labels.argmax\(dim=1\)",
        ),
        (lambda y: y[:, None], r"shape \(6, 1\), expected \(6,\): pass labels\[:, 0\]"),
        (lambda y: y[:4], r"shape \(4,\) for 6 images"),
        (lambda y: y.float(), r"labels are torch.float32, expected whole numbers"),
        (lambda y: y > 1, r"labels are torch.bool, expected whole numbers"),
        (lambda y: torch.ones(6, 5), "several classes: multi-label models .* not supported"),
        (lambda y: y + 10, r"label \d+ is outside 0\.\.4"),
    ],
)
def test_other_labels_are_refused_in_one_sentence(change, sentence, problem):
    model, images, labels = problem
    with pytest.raises(ValueError, match=sentence) as caught:
        attack("pgd", model, images, change(labels))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"steps": 0}, "steps=0: an attack needs at least 1"),
        ({"restarts": 0}, "restarts=0"),
        ({"target": torch.zeros(6).long() + 9}, r"target 9 is outside 0\.\.4"),
        ({"target": torch.zeros(4).long()}, r"target have shape \(4,\) for 6 images"),
        ({"loss": "cros_entropy"}, "no loss is called 'cros_entropy'. Did you mean 'cross_entropy'"),
        ({"start": torch.rand(6, 3, 4, 4)}, "start has shape"),
        ({"start": "noise"}, "start must be images or a Probe of them, got str"),
        ({"keys": cp.Keys(0, "x", torch.arange(9))}, "keys are of 9 images, got 6 images"),
        ({"budget": 8 / 255}, r"a budget such as Linf\(8/255\), got float"),
        ({"budget": cp.Linf(torch.rand(5))}, r"the budget \(eps \(5,\)\) does not fit images of shape \(6, 3, 2, 2\)"),
        ({"budget": cp.L2(torch.rand(5))}, r"the budget \(eps \(5,\)\) does not fit"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_meant_are_refused_in_one_sentence(options, sentence, problem):
    options = {"budget": cp.Linf(0.1), "steps": 2, **options}
    with pytest.raises(ValueError, match=sentence):
        cp.pgd(*problem, **options)


def test_a_target_that_is_the_label_is_refused_with_how_many(problem):
    labels = problem[2]
    target = (labels + 1) % 5
    target[2] = labels[2]
    for name in ("pgd", "apgd", "fab", "fgsm"):
        with pytest.raises(ValueError, match="target is the label of 1 of 6 images"):
            attack(name, *problem, target=target)
    attack("pgd", *problem, target=1)  # a rank of wrong classes never is


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x: (255 * x).to(torch.uint8), "divide 8-bit images by 255"),
        (lambda x: 255 * x, "Divide 8-bit images by 255"),
        (lambda x: x[0], r"a single image is images\[None\]"),
    ],
)
def test_other_images_are_refused(change, sentence, problem):
    model, images, labels = problem
    with pytest.raises(ValueError, match=sentence):
        attack("pgd", model, change(images), labels)


@pytest.mark.parametrize("name", EXPORTED)
def test_no_images_are_no_work(name, problem):
    model, images, labels = problem
    attacked = attack(name, model, images[:0], labels[:0])
    assert attacked.images.shape == (0, 3, 2, 2)
    assert attacked.forwards.tolist() == []


@pytest.mark.parametrize("name", EXPORTED)
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_images_in_half_precision_are_computed_in_float32(name, kind, problem):
    model, images, labels = problem
    images = images.to(kind)
    attacked = attack(name, model, images, labels, budget=allowed(name, 0.02))
    assert attacked.images.dtype == torch.float32
    assert torch.equal(
        attacked.images, attack(name, model, images.float(), labels, budget=allowed(name, 0.02)).images
    )
    assert allowed(name, 0.02).contains(attacked.images, images.float()).all()


@pytest.mark.parametrize("name", [name for name in EXPORTED if name != "square"])
def test_double_stays_double(name, problem):
    model, images, labels = problem
    attacked = attack(name, model.double(), images.double(), labels, budget=allowed(name, 0.02))
    assert attacked.images.dtype == torch.float64
    assert allowed(name, 0.02).contains(attacked.images, images.double()).all()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_of_another_type_is_attacked_as_it_is(kind, problem):
    model, images, labels = problem
    plain = attack("pgd", model, images, labels).images
    attacked = attack("pgd", copy.deepcopy(model).to(kind), images, labels).images
    assert attacked.dtype == torch.float32
    assert (attacked - plain).abs().max() < 0.31
    fooled = copy.deepcopy(model).to(kind)(attacked.to(kind)).argmax(dim=1) != labels
    assert fooled.all()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("of_images", [torch.float32, torch.float64])
def test_an_attack_sees_logits_of_the_images_type_whatever_the_model_s(kind, of_images, problem):
    seen = []

    def spy(model, images, labels, *, budget, keys):
        seen.append(model(images).dtype)
        return Attacked(images, labels, labels)

    model, images, labels = problem
    front_door(spy)(copy.deepcopy(model).to(kind), images.to(of_images), labels, budget=cp.Linf(0.1))
    assert seen == [of_images]


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", EXPORTED)
def test_what_stands_around_the_call_does_not_matter(name, around, problem):
    model, images, labels = problem
    plain = attack(name, *problem)
    with around():
        images, labels, start = images.clone(), labels.clone(), images.clone()
        budget = allowed(name, torch.full((6,), 0.3))
        attacked = attack(name, model, images, labels, budget=budget)
        if name in ("pgd", "apgd"):
            attack(name, model, images, labels, start=start, target=(labels + 1) % 5)
    assert torch.equal(attacked.images, plain.images)
    assert not attacked.images.is_inference()


def test_images_that_require_grad_are_left_alone(problem):
    model, images, labels = problem
    images.requires_grad_()
    attacked = attack("pgd", model, images, labels)
    assert not attacked.images.requires_grad
    assert images.grad is None


def test_answers_that_are_not_finite_are_an_error_early_and_late(problem):
    model, images, labels = problem
    for name in EXPORTED:
        if name != "transfer":  # which never asks the model
            with pytest.raises(NotFinite, match="not finite"):
                attack(name, lambda x: model(x) * torch.nan, images, labels)

    def sour(x):  # fine on the clean images alone
        return torch.where((x == images[: len(x)]).all(), model(x), torch.nan)

    with pytest.raises(NotFinite, match="not finite"):
        cp.pgd(sour, images, labels, budget=cp.Linf(1e-3), steps=3, random_start=False)


def test_answers_without_gradient_are_an_error_where_gradients_are_asked_for(problem):
    model, images, labels = problem
    for name in ("pgd", "fgsm", "apgd", "fab"):
        with pytest.raises(ValueError, match=r"no gradient .*counterpart\.straight_through"):
            attack(name, lambda x: model(x).detach(), images, labels)
    attack("square", lambda x: model(x).detach(), images, labels)


@pytest.mark.parametrize(
    "wrap",
    [lambda z: (z, z[:, :2]), lambda z: {"hidden": z[:, None], "logits": z}, lambda z: [z[:, None, None], z]],
)
def test_outputs_that_hold_logits_are_understood(wrap, problem):
    model, images, labels = problem
    attacked = attack("apgd", lambda x: wrap(model(x)), images, labels)
    assert torch.equal(attacked.images, attack("apgd", *problem).images)


def test_one_answer_an_image_has_a_way_out(problem, generator):
    _, images, _ = problem
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 1, bias=False)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(1, 12, generator=generator))
    with pytest.raises(ValueError, match=r"counterpart\.as_classifier"):
        attack("pgd", model, images, torch.zeros(6).long())
    classifier, _ = as_classifier(model, images)
    labels = (model(images)[:, 0] > 0).long()
    assert (
        classifier(attack("pgd", classifier, images, labels, cp.Linf(1.0)).images).argmax(dim=1) != labels
    ).all()


def test_losses_have_names(problem):
    assert torch.equal(
        attack("pgd", *problem, loss="margin").images, attack("pgd", *problem, loss=margin).images
    )


def test_it_is_stepped_over_while_compiling(problem, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    seen = []

    def spy(model, images, labels, *, budget, keys):
        seen.append((model, labels, keys.index.tolist()))
        return Attacked(images, labels, labels)

    model, images, labels = problem
    front_door(spy)(model, images, labels, budget=cp.Linf(0.1))
    assert seen == [(model, labels, [0, 1, 2, 3, 4, 5])]


def test_what_an_attack_returns_says_where_its_images_are(problem):
    attacked = attack("pgd", *problem)
    with pytest.raises(AttributeError, match=r"no 'shape': its images are \.images"):
        _ = attacked.shape
    with pytest.raises(TypeError, match=r"cannot be unpacked: its images are \.images"):
        _images, _ = attacked
    for use in (lambda: torch.relu(attacked), lambda: nn.Conv2d(3, 1, 1)(attacked)):
        with pytest.raises(TypeError, match=r"no tensor: its images are \.images"):
            use()
    assert torch.equal(copy.deepcopy(attacked).images, attacked.images)
