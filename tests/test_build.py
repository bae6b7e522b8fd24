"""Every setting of a run reaches the part that it is meant for."""

import inspect
import re
from functools import partial

import pytest
import torch
from torch import nn

from counterpart import build, devices, jobs
from counterpart.batch import Batch
from counterpart.budget import L2, Linf
from counterpart.build.attacks import Victim, _name_attack
from counterpart.catalogue import CONTROLS, MASK_RULES
from counterpart.config import plain, resolve
from counterpart.contracts import PartOutput, Probe
from counterpart.data.image_sets import ImageSet
from counterpart.data.parts import Parts
from counterpart.errors import UserError
from counterpart.importance import controls, rules
from counterpart.jobs import training
from counterpart.losses.classification import margin
from counterpart.losses.segmentation import PART_LOSSES
from counterpart.models import create
from counterpart.objectives.standard import cross_entropy_loss
from counterpart.recipes import load
from counterpart.seeding import Keys

CPU = torch.device("cpu")
PART = {"train": {"method": "part"}, "attack": {"eps": 0.03, "steps": 7, "step_size": 0.004}}


def test_settings_of_part_reach_its_rule_and_objective():
    changes = {"eps_low": 0.01, "control": "uniform", "map_class": "predicted", "drawn_from": "clean"}
    changes |= {"rule": "quantile", "quantile": 0.3, "map": "layer-cam"}
    config = resolve(PART, {"mask": changes})
    wanted = {
        "eps_low": 0.01,
        "mask": rules.Quantile(0.3, rules.MapSource("layer-cam", "predicted")),
        "control": controls.uniform,
    }
    assert build.build_rule(config).keywords == wanted
    burn_in, main = build.build_phases(config)
    given = main.objective.perturb.keywords
    assert given["rule"].keywords == wanted
    crafting = given["crafting"]
    assert (crafting.steps, crafting.step_size, crafting.drawn_from) == (7, 0.004, "clean")
    assert given["budget"] == Linf(0.03)
    assert (main.refresh_epochs, main.map_class, main.map_kind) == (None, "predicted", "layer-cam")
    corner = resolve(PART, {"mask": {"rule": "quadrant", "quadrant": "lower-left"}})
    assert build.build_rule(corner).keywords["mask"] == rules.Quadrant("lower-left")
    assert build.build_phases(resolve(PART, {"mask": {"refresh_epochs": 4}}))[1].refresh_epochs == 4
    with pytest.raises(UserError, match=r"drawn_from clean has no effect"):
        resolve(PART, {"mask": {"refresh_epochs": 4, "drawn_from": "clean"}})
    assert (burn_in.refresh_epochs, burn_in.objective.perturb.keywords["crafting"].drawn_from) == (
        None,
        "start",
    )
    assert build.build_rule(resolve(PART)).keywords["mask"] == rules.Standardised()
    assert build.build_phases(resolve(PART))[1].objective.perturb.keywords["crafting"].drawn_from == "start"
    multiplied = resolve(PART, {"mask": {"projection": "multiply"}})
    assert build.build_rule(multiplied).keywords["multiply"] is True
    assert "multiply" not in build.build_rule(resolve(PART)).keywords


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"rule": "jet"}, "mask.rule = jet: no mask rule is called 'jet'. Known: annotated-parts, centre"),
        ({"control": "half"}, "mask.control = half: no control is called 'half'. Known: inverse, none"),
        ({"map": "cam"}, "mask.map = cam: no map is called 'cam'. Did you mean 'grad-cam'?"),
        ({"map_class": "wrong"}, "mask.map_class = wrong: input should be 'true', 'predicted' or 'margin'"),
        ({"rule": "quantile", "quantile": 0}, "mask.quantile = 0: input should be greater than 0"),
        ({"rule": "quantile", "quantile": 1}, "mask.quantile = 1: input should be less than 1"),
        ({"rule": "quadrant", "quadrant": "middle"}, "mask.quadrant = middle: input should be 'upper-left'"),
        ({"quantile": 0.5}, "mask.quantile 0.5 has no effect with mask.rule paper"),
        (
            {"rule": "soft", "quadrant": "lower-left"},
            "mask.quadrant lower-left has no effect with mask.rule soft",
        ),
        ({"rule": "centre", "map": "layer-cam"}, "mask.map layer-cam has no effect with mask.rule centre"),
        ({"rule": "centre", "layer": "layer3"}, "mask.layer layer3 has no effect with mask.rule centre"),
        (
            {"map": "attention-gradient", "layer": "blocks.1"},
            "mask.layer blocks.1 has no effect with mask.map attention-gradient",
        ),
        (
            {"map": "attention-rollout", "map_class": "predicted"},
            "mask.map_class predicted has no effect with mask.map attention-rollout",
        ),
        ({"rule": "centre", "map_class": "margin"}, "mask.map_class margin has no effect"),
        (
            {"rule": "quadrant", "refresh_epochs": 3},
            "mask.refresh_epochs 3 has no effect with mask.rule quadrant",
        ),
        ({"rule": "quadrant", "drawn_from": "clean"}, "mask.drawn_from clean has no effect"),
        ({"rule": "file"}, "mask.rule file needs the folder of your masks: mask.files DIR"),
        ({"files": "DIR"}, "mask.files DIR has no effect with mask.rule paper"),
        ({"rule": "file", "files": "DIR", "refresh_epochs": 3}, "mask.refresh_epochs 3 has no effect"),
        ({"rule": "centre", "control": "shuffled"}, "all images share one plane under mask.rule centre"),
        ({"rule": "mean-preserving", "eps_low": 0, "quantile": 0.01}, "a radius of 3, outside [0, 1]"),
        (
            {"rule": "mean-preserving", "eps_low": 0, "control": "inverse"},
            "a radius of -0.06, outside [0, 1]: use a larger mask.quantile or a mask.eps_low nearer to attack.eps",
        ),
    ],
)
def test_masks_that_cannot_be_are_refused(part, message):
    with pytest.raises(UserError, match=re.escape(message)):
        resolve(PART, {"mask": part})


def test_a_recipe_of_part_takes_a_mask_without_a_map():
    for part in ({"rule": "centre"}, {"rule": "file", "files": "DIR"}):
        assert resolve(load("cifar10/part"), {"mask": part}).mask.rule == part["rule"]


MARGIN = {"attack": {"generation": "minimum-margin", "targets": 2}}


@pytest.mark.parametrize("method", ["at", "part"])
def test_minimum_margin_generation_reaches_both_phases(method):
    """Masks are drawn on the clean pass that it makes anyway, unless another is asked for."""
    config = resolve({"train": {"method": method}}, MARGIN)
    given = [phase.objective.perturb.keywords["crafting"] for phase in build.build_phases(config)]
    assert [(g.targets, g.loss, g.drawn_from) for g in given] == [(2, margin, "clean")] * len(given)
    started = build.build_phases(resolve(PART, MARGIN, {"mask": {"drawn_from": "start"}}))[1]
    assert started.objective.perturb.keywords["crafting"].drawn_from == "start"
    assert build.build_phases(resolve(PART))[1].objective.perturb.keywords["crafting"].targets is None


def test_more_targets_than_wrong_classes_are_refused_before_anything_is_written(tmp_path):
    changes = {"name": "n", "runs": str(tmp_path), "attack": {"generation": "minimum-margin", "targets": 10}}
    with pytest.raises(
        UserError, match=r"attack.targets 10 of 9 wrong classes: digits has 10\. Use .*targets 9"
    ):
        jobs.train(resolve(changes))
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize("method", ["clean", "at", "trades", "mart", "part", "part-t", "part-m"])
def test_smoothing_reaches_the_loss_of_every_phase(method):
    config = resolve({"train": {"method": method, "label_smoothing": 0.1}})
    assert {phase.objective.loss.keywords["label_smoothing"] for phase in build.build_phases(config)} == {0.1}


def test_options_are_part_of_a_methods_name():
    options = {"label_smoothing": 0.1, "awp": "5e-3", "ema": 0.995}
    name = "PART, minimum margin, label smoothing 0.1, AWP, EMA"
    assert build.name_method(resolve(PART, MARGIN, {"train": options})) == name
    assert build.name_method(resolve({"train": {"method": "clean", "awp": 0.01}})) == "clean, AWP"
    single = {"train": {"method": "at"}, "attack": {"generation": "n-fgsm"}}
    for noise, words in ((2, "AT, N-FGSM"), (0, "AT, FGSM"), (1, "AT, N-FGSM noise 1")):
        assert build.name_method(resolve(single, {"attack": {"noise": noise}})) == words


def test_methods_are_named_by_mask_map_and_control():
    assert build.name_method(resolve(PART)) == "PART"
    assert build.name_method(resolve(PART, {"mask": {"control": "shuffled"}})) == "PART, shuffled control"
    changes = {"rule": "soft", "map": "layer-cam", "layer": "layer3", "control": "inverse"}
    name = "PART, soft mask, layer-cam map, layer layer3, inverse control"
    assert build.name_method(resolve(PART, {"mask": changes})) == name
    assert build.name_method(resolve({"mask": {"control": "shuffled"}})) == "AT"
    assert build.name_method(resolve(PART, {"mask": {"projection": "multiply"}})) == "PART, multiplied"


def test_views_show_what_the_map_is_drawn_from():
    layer = {"mask": {"layer": "layer3"}}
    assert build.choose_view_options(resolve(PART, layer)) == {"layer": "layer3", "attention": False}
    assert build.build_loop_options(resolve(PART, layer), CPU).view == {"layer": "layer3", "attention": False}
    gradient = {"mask": {"map": "attention-gradient"}}
    assert build.choose_view_options(resolve(PART, gradient)) == {"layer": None, "attention": True}
    mapless = {"mask": {"rule": "centre"}}
    for unmapped in (
        resolve(layer),
        resolve(PART, mapless),
        resolve({"evaluate": {"eps_low": 0.01}}, mapless),
    ):
        assert build.choose_view_options(unmapped) == {}
    attacked = resolve(layer, {"evaluate": {"eps_low": 0.01}})  # AT, under a mask-aware attack
    assert build.choose_view_options(attacked) == {"layer": "layer3", "attention": False}
    assert build.build_loop_options(attacked, CPU).view == {}


def test_every_mask_and_control_of_the_schema_makes_a_budget():
    maps = {"features": torch.rand(4, 5, 4, 4), "part_logits": torch.randn(4, 3, 4, 4)}
    probe = Probe(torch.rand(4, 3, 8, 8), torch.rand(4, 2), weights=torch.rand(2, 5), **maps)
    batch = Batch(probe.images, torch.tensor([0, 1, 0, 1]), torch.arange(4), torch.randint(0, 3, (4, 8, 8)))
    for mask, entry in MASK_RULES.items():
        for control in CONTROLS:
            if entry.facts.same_for_all and control == "shuffled":
                continue
            own = {"files": "DIR"} if mask == "file" else {}
            model = {"model": {"name": "parts/pixel"}} if entry.facts.parts else {}
            given = {"rule": mask, "control": control, "eps_low": 0.025, **own}
            rule = build.build_rule(resolve(PART, model, {"mask": given}))
            budget = rule(probe, batch, Keys(0, "all", batch.index), Linf(8 / 255))
            assert budget.contains(batch.images, batch.images).all(), (mask, control)


def test_part_refuses_models_and_images_that_a_mask_cannot_use(tmp_path):
    changes = {"name": "n", "runs": str(tmp_path), "data": {"limit": 100}, "train": {"epochs": 1}}
    with pytest.raises(
        UserError, match="published-code colours red, green and blue, but the images have 1 channel"
    ):
        jobs.train(resolve(PART, changes, {"mask": {"rule": "published-code"}}))
    assert not (tmp_path / "n").exists()


def test_settings_of_training_reach_the_loop():
    changes = {
        "seed": 5,
        "train": {
            "batch_size": 40,
            "precision": "bf16",
            "compile": True,
            "ema": 0.99,
            "awp": "5e-3",
            "awp_warmup": 4,
            "checkpoint_every": "2m",
        },
        "optimizer": {"clip_norm": 2.0},
        "data": {"padding": 3, "flip": False},
    }
    settings = build.build_loop_options(resolve(changes), CPU, deadline=3600.0)
    assert (settings.seed, settings.batch_size, settings.precision, settings.compile) == (5, 40, "bf16", True)
    assert (settings.awp, settings.awp_warmup) == (0.005, 4)
    assert (settings.ema, settings.clip_norm, settings.best_by_robust) == (0.99, 2.0, True)
    assert (settings.checkpoint_every, settings.deadline) == (120, 3600)
    assert (settings.augmentation.padding, settings.augmentation.flip) == (3, False)
    none = build.build_loop_options(
        resolve({"data": {"padding": 0, "flip": False}, "train": {"method": "clean"}}), CPU
    )
    assert none.augmentation is None
    assert not none.best_by_robust


def test_settings_of_the_optimiser_reach_it(monkeypatch, tmp_path):
    given = {}

    def fit(model, phases, images, **options):
        given.update(options, images=images)
        return True

    monkeypatch.setattr("counterpart.jobs.training.fit", fit)
    optimizer = {"lr": 0.3, "momentum": 0.8, "nesterov": True, "weight_decay": 0.02, "decay_norm": False}
    schedule = {"schedule": "piecewise", "milestones": [0.5], "gamma": 0.2, "warmup_epochs": 2}
    changes = {
        "name": "n",
        "runs": str(tmp_path),
        "model": {"name": "wrn-10-1", "width": 4},
        "data": {"limit": 100},
        "train": {"epochs": 8},
        "optimizer": {**optimizer, **schedule},
    }
    jobs.train(resolve(changes))
    groups = given["optimizer"].param_groups
    assert [g["weight_decay"] for g in groups] == [0.02, 0.0]
    assert all((g["nesterov"], g["momentum"], g["lr"]) == (True, 0.8, 0.3) for g in groups)
    rate = given["rate"]
    assert rate(1) == pytest.approx(0.15, rel=1e-2)
    assert (rate(3), rate(4)) == pytest.approx((0.3, 0.06))
    assert len(given["images"]) == 100


@pytest.fixture
def optimizer_of():
    """The optimiser of a small network, or of a given one, under these settings."""

    def build_it(model=None, **given):
        network = create("wrn-10-1", 3, width=4) if model is None else model
        return build.build_optimizer(resolve({"optimizer": given}), network)

    return build_it


def test_adamw_takes_its_settings(optimizer_of):
    optimizer = optimizer_of(name="adamw", lr=0.3, weight_decay=0.02, decay_norm=False, encoder_scale=0.2)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [(g["scale"], g["weight_decay"]) for g in optimizer.param_groups] == [
        (0.2, 0.02), (0.2, 0.0), (1.0, 0.02), (1.0, 0.0),
    ]  # fmt: skip
    assert isinstance(optimizer_of(), torch.optim.SGD)


def test_a_network_without_an_encoder_has_no_rate_for_it(optimizer_of):
    for model in (nn.Sequential(nn.Linear(2, 2)), nn.Flatten()):
        with pytest.raises(
            UserError, match=r"^optimizer.encoder_scale 0.2: \w+ has no encoder beside a head\."
        ):
            optimizer_of(model, encoder_scale=0.2)


def test_a_network_may_say_what_its_encoder_is(optimizer_of):
    model = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 3)])
    model.encoder_parameters = lambda: list(model[0].parameters())
    slow, usual = optimizer_of(model, encoder_scale=0.5).param_groups
    assert (slow["scale"], [p.numel() for p in slow["params"]]) == (0.5, [4, 2])
    assert (usual["scale"], [p.numel() for p in usual["params"]]) == (1.0, [6, 3])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"name": "adamw", "momentum": 0.5},
            "optimizer.momentum 0.5 has no effect with optimizer.name adamw",
        ),
        (
            {"name": "adamw", "nesterov": True},
            "optimizer.nesterov true has no effect with optimizer.name adamw",
        ),
        (
            {"warmup_epochs": 1, "warmup_steps": 5},
            "optimizer.warmup_epochs 1 and optimizer.warmup_steps 5 say the same thing: give only one of them",
        ),
        ({"encoder_scale": 0}, "optimizer.encoder_scale = 0"),
    ],
)
def test_settings_of_the_optimiser_that_do_not_agree_are_refused(given, message):
    with pytest.raises(UserError) as caught:
        resolve({"optimizer": given})
    assert message in str(caught.value)


def test_a_warm_up_in_steps_comes_before_both_schedules():
    given = {"lr": 1, "schedule": "constant", "warmup_steps": 3}
    config = resolve({"train": {"clean_epochs": 1, "epochs": 2, "batch_size": 10}, "optimizer": given})
    rate = build.build_schedule(config, 60)  # six steps in an epoch
    wanted = [0.25, 0.5, 0.75, 1, 1, 1]
    assert [rate(step / 6) for step in range(12)] == [*wanted, *wanted]
    with pytest.raises(UserError, match=r"warmup_steps 3 leaves none of the 2 steps of train.clean_epochs"):
        build.build_schedule(config, 20)
    alone = resolve({"train": {"epochs": 2, "batch_size": 10}, "optimizer": given})
    with pytest.raises(UserError, match=r"warmup_steps 3 leaves none of the 2 steps of train.epochs"):
        build.build_schedule(alone, 10)


def test_weights_of_a_file_are_never_looked_for_on_the_hub(monkeypatch):
    asked = []
    monkeypatch.setattr(
        build, "build_model", lambda about, seed, pretrained: asked.append(pretrained) or nn.Identity()
    )
    monkeypatch.setattr("counterpart.jobs.training.weights_of", lambda source: ({}, source))
    monkeypatch.setattr("counterpart.jobs.training.start_from", lambda *_: None)
    for init in (None, "weights.safetensors"):
        model = {"name": "timm/resnet18", "pretrained": True, "init": init}
        training._new_model(resolve({"model": model}), {})
    assert asked == [True, False]


def test_threads_are_set_on_request_only(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    devices.resolve("cpu")
    devices.resolve("cpu", resolve({"threads": 3}).threads)
    assert asked == [3]


def test_budgets_by_name():
    assert build.build_budget("l2", 0.5) == L2(0.5)
    assert build.build_training_budget(resolve({"attack": {"norm": "l2", "eps": 2}})) == L2(2.0)
    with pytest.raises(UserError, match="Did you mean 8/255"):
        build.build_budget("linf", 8)


def no_other(text):
    raise AssertionError(f"{text} was asked for")


def attacks(given, norm="linf", classes=10, load=no_other, model=None, images=None, **options):
    evaluate = resolve({"evaluate": {"attacks": given, **options}}).evaluate
    pixels = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    dots = ImageSet("dots", "test", ("a", "b"), torch.arange(2), torch.arange(2), "", (3, 8, 8), pixels)
    return build.build_attacks(evaluate, Victim(norm, classes, model or nn.Identity(), images or dots, load))


def test_every_attack_has_a_name_and_its_options():
    names = "pgd,fgsm,apgd,fab,square,mm3,rays,random-search"
    made = attacks(names)
    assert [a.name for a in made] == [
        "PGD-20", "FGSM", "APGD-100", "FAB-100", "Square-5000", "MM3-20", "RayS-10000", "random search-100"
    ]  # fmt: skip
    assert all(a.line == a.name for a in made)
    without_gradients = [a.name for a in made if not a.by_gradient]
    assert without_gradients == ["Square-5000", "RayS-10000", "random search-100"]
    assert [a.name for a in attacks("autoattack") if not a.by_gradient] == ["square"]
    aimed = attacks([{"attack": "apgd", "loss": "dlr", "target": 3, "restarts": 2}])[0]
    assert aimed.name == "APGD-100x2 dlr target 3"
    assert aimed.attack.keywords["target"] == 3
    assert attacks("square")[0].attack.keywords == {"queries": 5000}


def test_minimum_norm_attacks_have_names_and_their_published_options():
    made = attacks("deepfool,ddn,fmn,carlini-wagner", norm="l2")
    assert [a.name for a in made] == ["DeepFool-50", "DDN-100", "FMN-100", "C&W-9x1000"]
    for one in made:  # the defaults of the settings are those of the functions
        parameters = inspect.signature(one.attack.func).parameters
        assert all(parameters[name].default == value for name, value in one.attack.keywords.items())
    changed = attacks(
        [
            {"attack": "deepfool", "overshoot": 0.1, "candidates": 3},
            {"attack": "ddn", "gamma": 0.1, "initial_norm": 0.5},
            {"attack": "fmn", "steps": 30, "step_size": 10},
            {
                "attack": "carlini-wagner",
                "search_steps": 3,
                "steps": 200,
                "learning_rate": 0.1,
                "confidence": 2,
            },
        ],
        norm="l2",
    )
    assert [a.name for a in changed] == [
        "DeepFool-50 overshoot 0.1 candidates 3", "DDN-100 gamma 0.1 from 0.5", "FMN-30 step 10",
        "C&W-3x200 rate 0.1 confidence 2",
    ]  # fmt: skip
    assert changed[3].attack.keywords["learning_rate"] == 0.1
    for name, norm in (("deepfool", "l1"), ("ddn", "linf"), ("carlini-wagner", "l1")):
        with pytest.raises(UserError, match=f"attack {name} has no {norm}"):
            attacks(name, norm=norm)


class Parted(nn.Identity):
    """As far as anybody asks, a part model."""

    part_classes, full_resolution = torch.arange(2), False

    def forward_parts(self, images):
        raise NotImplementedError

    classify_parts = forward_parts


def test_attacks_on_parts_need_parts():
    with pytest.raises(UserError, match="attack two-staged aims at parts, and this model predicts none"):
        attacks([{"attack": "two-staged"}])
    with pytest.raises(
        UserError, match="attack single-staged needs images with annotated parts, and dots has"
    ):
        attacks("single-staged", model=Parted())


def test_guides_that_cannot_be_had_are_refused_before_any_attack():
    class Reader(Parted):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward_parts(self, images):
            return PartOutput(torch.zeros(1, 2), torch.zeros(1, 3, 4, 4))

        def classify_parts(self, part_logits):
            raise UserError("Reader cannot classify from part logits alone: it reads the image as well.")

    masks, there = torch.ones(4, 8, 8, dtype=torch.uint8), torch.ones(4, dtype=torch.bool)
    parts = Parts({"cat": {"head": 1}, "dog": {"head": 2}}, 2, there, masks)
    images = ImageSet(
        "drawn", "test", ("cat", "dog"), torch.tensor([0, 1, 0, 1]), torch.arange(4), "0" * 12, (3, 8, 8),
        torch.zeros(4, 3, 8, 8, dtype=torch.uint8), parts=parts,
    )  # fmt: skip
    ask = partial(attacks, model=Reader(), images=images)
    with pytest.raises(UserError, match=r"strategy sorted: Reader cannot classify .* Use another strategy"):
        ask([{"attack": "two-staged", "strategy": "sorted"}])
    assert len(ask("two-staged")) == 1
    images.parts.there[1::2] = False
    with pytest.raises(UserError, match=r"only cat has masks: evaluate on images with masks of two classes"):
        ask("two-staged")
    assert len(ask([{"attack": "two-staged", "strategy": "untargeted"}])) == 1


def test_the_names_of_staged_attacks_say_how():
    evaluate = resolve({"evaluate": {"attacks": "parts-worst-case"}}).evaluate
    names = [_name_attack(spec) for spec in evaluate.attacks if "staged" in spec.attack]
    assert names == [
        "single-staged-100x5", "two-staged-100x5 untargeted", "two-staged-100x5", "two-staged-100x5 likely",
        "two-staged-100x5 most-confident", "two-staged-100x5 sorted",
    ]  # fmt: skip
    odd = [{"attack": "two-staged", "aimed": False, "published": True}]
    [spec] = resolve({"evaluate": {"attacks": odd}}).evaluate.attacks
    assert _name_attack(spec) == "two-staged-100x5 unaimed published"


def test_autoattack_becomes_its_attacks():
    made = attacks("pgd,autoattack")
    assert list(dict.fromkeys(a.line for a in made)) == ["PGD-20", "apgd-ce", "apgd-t", "fab-t", "square"]
    assert len(made) == 1 + 1 + 9 + 9 + 1


def test_a_surrogate_makes_a_transfer_attack():
    asked = []

    def load(text):
        asked.append(text)
        return torch.sigmoid

    [one] = attacks([{"attack": "apgd", "surrogate": "runs/other"}], load=load)
    assert asked == ["runs/other"]
    assert one.name == "APGD-100 from runs/other"
    assert one.attack.func.__name__ == "transfer"
    assert one.attack.keywords["surrogate"] is torch.sigmoid
    assert not one.by_gradient  # of the attacked model


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ("rays", {"norm": "l2"}, "attack rays has no l2: it has linf"),
        ([{"attack": "apgd", "target": 4}], {"classes": 4}, "target 4 of 3 wrong classes; the model has 4"),
        ("mm9", {"classes": 4}, "targets 9 of 3 wrong classes"),
        ("autoattack,autoattack", {}, "names the same attack twice: apgd-ce"),
        ([{"attack": "square", "steps": 5}], {}, "attack square has no steps. It has: queries"),
        (
            [{"attack": "square", "surrogate": "x"}],
            {},
            "attack square cannot search on a surrogate. These can: pgd, fgsm, apgd, fab",
        ),
        ("pgd,autoatack", {}, "'autoatack' is unknown. Did you mean 'autoattack'?"),
        ("pgd", {"engine": "official"}, "engine official runs autoattack only, not pgd"),
        ("autoattack", {"engine": "official", "precision": "bf16"}, "official searches in float32 only"),
    ],
)
def test_attacks_that_cannot_be_are_refused(given, options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        attacks(given, **options)


def test_attacks_are_named_by_what_they_do():
    specs = [
        {"steps": 20},
        {"steps": 50, "restarts": 5, "loss": "margin"},
        {"steps": 20, "step_size": "2/255"},
    ]
    made = attacks(specs)
    assert [a.name for a in made] == ["PGD-20", "PGD-50x5 margin", "PGD-20 step 2/255"]
    assert made[1].attack.keywords["restarts"] == 5
    assert made[1].attack.keywords["loss"].__name__ == "margin"
    assert made[2].attack.keywords["step_size"] == pytest.approx(2 / 255)


def test_the_seed_decides_the_first_weights_and_nothing_global_moves():
    about = {"name": "wrn-10-1", "num_classes": 3, "width": 4}
    before = torch.random.get_rng_state()
    first, again, other = (build.build_model(about, seed).get_classifier().weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_hash_of_a_configuration_forgets_what_does_not_matter():
    base = resolve(PART)
    same = resolve(
        PART, {"name": "x", "device": "cpu", "runs": "y", "evaluate": {"n": 3}, "data": {"root": "z"}}
    )
    other = resolve(PART, {"optimizer": {"lr": 0.02}})
    assert build.hash_config(base) == build.hash_config(same)
    assert build.hash_config(base) != build.hash_config(other)
    assert build.hash_config(base) != build.hash_config(resolve(PART, {"seed": 1}))


@pytest.mark.parametrize(("method", "base", "drawn_from"), [
    ("trades", "trades", None), ("part-t", "trades", "clean"), ("mart", "mart", None), ("part-m", "mart", "start"),
])  # fmt: skip
def test_part_t_and_part_m_are_trades_and_mart_under_the_rule(method, base, drawn_from):
    config = resolve({"train": {"method": method, "beta": 5, "bn_batches": "joint", "epochs": 8}})
    *before, main = build.build_phases(config)
    assert main.objective.loss.func.__name__ == f"loss_of_{base}"
    assert main.objective.loss.keywords == {"beta": 5, "bn_batches": "joint", "label_smoothing": 0}
    given = main.objective.perturb.keywords
    if drawn_from is None:
        assert before == []
        assert given["rule"] is rules.constant
    else:
        assert (before[0].name, before[0].epochs, main.epochs) == ("burn-in", 2, 6)
        assert given["crafting"].drawn_from == drawn_from
        assert given["rule"].func is rules.draw_budget
    assert build.name_method(config) == method.upper()
    with pytest.raises(UserError, match=r"train.beta 5 has no effect with method at"):
        resolve({"train": {"method": "at", "beta": 5}})


def parted(**train):
    return {"model": {"name": "parts/downsampled"}, "data": {"name": "synthetic-parts"}, "train": train}


def test_settings_of_part_models_reach_model_and_loss():
    given = {"name": "parts/downsampled", "encoder": "timm/test_resnet", "pool": 2, "see_image": True}
    config = resolve(
        {
            "model": given,
            "data": {"name": "synthetic-parts", "size": 16, "limit": 12},
            "train": {"c_seg": 0.3},
        }
    )
    about = build.describe_model(config, build.load_splits(config, CPU))
    parts = about["parts"]
    assert parts.pop("part_classes")[:4] == [0, 0, 0, 1]
    assert parts == {
        "encoder": "timm/test_resnet", "decoder": "deeplabv3plus", "depth": None, "output_stride": None,
        "resolution": "own", "pool": 2, "background": True, "see_image": True,
    }  # fmt: skip
    (phase,) = build.build_phases(config)
    loss = phase.objective.loss.keywords
    assert (loss["c_seg"], loss["part_loss"]) == (0.3, PART_LOSSES["segmentation"])
    for method in ("clean", "at", "trades", "part", "part-t"):
        for phase in build.build_phases(resolve(parted(method=method, background_weight=0.2))):
            weighed = phase.objective.loss.keywords["part_loss"]
            assert weighed.func is PART_LOSSES["segmentation"]
            assert weighed.keywords == {"background_weight": 0.2}
    centroids = resolve(parted(method="trades", part_loss="centroids", beta=2))
    (phase,) = build.build_phases(centroids)
    loss = phase.objective.loss.keywords
    assert (loss["c_seg"], loss["part_loss"]) == (0.5, PART_LOSSES["centroids"])
    assert loss["base"].keywords["beta"] == 2
    assert build.build_phases(resolve(parted(c_seg=0)))[0].objective.loss.func is cross_entropy_loss
    masked = resolve(parted(method="part"), {"mask": {"rule": "predicted-parts"}})
    assert [phase.objective.loss.keywords["c_seg"] for phase in build.build_phases(masked)] == [0.5, 0.5]
    plain = resolve({"model": {"name": "parts/baseline", "encoder": "resnet50"}})
    assert plain.model.part_options() == {"encoder": "resnet50"}
    assert plain.c_seg == 0


def test_a_part_of_several_classes_has_no_class_of_its_own():
    config = resolve({"data": {"name": "synthetic-parts", "size": 16, "limit": 12, "labels": "foreground"}})
    assert build.list_part_classes(build.load_splits(config, CPU).train) == [-1]
    with pytest.raises(UserError, match="centroids needs parts that belong to one class each"):
        build.describe_model(resolve(parted(part_loss="centroids")), build.load_splits(config, CPU))
    digits = resolve({"data": {"limit": 12}})
    assert build.list_part_classes(build.load_splits(digits, CPU).train) == []


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (parted(c_seg=1.5), "train.c_seg = 1.5"),
        (parted(method="mart"), "train.method mart has no loss of parts"),
        (
            parted(c_seg=0, part_loss="centroids"),
            "train.part_loss centroids has no effect without train.c_seg",
        ),
        (
            parted(part_loss="centroids", background_weight=0.2),
            "train.background_weight 0.2 has no effect with train.part_loss centroids",
        ),
        (
            {"train": {"background_weight": 0.2}},
            "train.background_weight 0.2 has no effect without train.c_seg",
        ),
        (parted(background_weight=0), "train.background_weight = 0"),
        ({"train": {"c_seg": 0.5}}, "train.c_seg 0.5 needs a part model, and resnet18 is none"),
        ({"model": {"pool": 2}}, "model.pool 2 has no effect with model.name resnet18"),
        (
            {"model": {"name": "parts/pixel", "background": False}},
            "model.background false has no effect with model.name parts/pixel",
        ),
        (
            {"model": {"name": "parts/baseline", "decoder": "fpn"}},
            "model.decoder fpn has no effect with model.name parts/baseline",
        ),
        ({"model": {"name": "parts/pixel", "output_stride": 12}}, "model.output_stride = 12"),
        (
            {"train": {"method": "part"}, "mask": {"rule": "predicted-parts"}},
            "mask.rule predicted-parts needs a part model, and resnet18 is none",
        ),
        (
            {"mask": {"rule": "annotated-parts", "drawn_from": "clean"}},
            "mask.drawn_from clean has no effect with mask.rule annotated-parts",
        ),
        (
            {**parted(), "data": {"name": "synthetic-parts", "labels": "centroids"}},
            "data.labels centroids leaves one pixel of each part, which is no mask: use train.part_loss centroids",
        ),
    ],
)
def test_what_part_models_cannot_do_is_refused_in_one_line(layer, message):
    with pytest.raises(UserError) as caught:
        resolve(layer)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_clean_epochs_come_first_with_a_schedule_of_their_own():
    given = {"clean_epochs": 4, "epochs": 8, "method": "part"}
    config = resolve(
        {"train": given, "optimizer": {"lr": 1, "schedule": "cosine"}, "mask": {"burn_in": 0.25}}
    )
    phases = build.build_phases(config)
    assert [(phase.name, phase.epochs) for phase in phases] == [("clean", 4), ("burn-in", 2), ("part", 6)]
    assert phases[0].objective.perturb is not phases[1].objective.perturb
    rate = build.build_schedule(config, 256)
    assert [rate(e) for e in (0, 2, 4, 8, 12)] == pytest.approx([1, 0.5, 1, 0.5, 0])
    assert rate(3.999) < 1e-3
    assert config.train.all_epochs == 12
    with pytest.raises(UserError, match=r"train\.clean_epochs 4 has no effect with method clean"):
        resolve({"train": given | {"method": "clean"}})
    with pytest.raises(UserError, match="an empty part of a name"):
        resolve({"optimizer": {"no_decay": "bias,"}})


def test_the_radius_of_training_grows_and_everything_with_it():
    attack = {"eps": 0.2, "step_size": 0.1, "eps_warmup": 4}
    given = {"method": "part", "clean_epochs": 2, "epochs": 8}
    config = resolve({"attack": attack, "train": given, "mask": {"eps_low": 0.1, "burn_in": 0.25}})
    clean, burn_in, main = build.build_phases(config)
    assert clean.at(0) is clean

    def drawn(phase, moment):
        words = phase.at(moment).objective.perturb.keywords
        return words["budget"].eps, words["crafting"].step_size, words["rule"].keywords["eps_low"]

    words = burn_in.at(3).objective.perturb.keywords
    assert (words["budget"], words["crafting"].step_size) == (Linf(0.05), 0.025)
    assert words["rule"] is rules.constant
    assert burn_in.at(2).objective.perturb.keywords["budget"] == Linf(0.0)
    assert drawn(main, 3) == pytest.approx((0.05, 0.025, 0.05))  # eps_low is never more than the radius
    assert drawn(main, 4.5) == pytest.approx((0.125, 0.0625, 0.1))
    assert drawn(main, 6) == drawn(main, 9.9) == (0.2, 0.1, 0.1)
    assert main.at(6).objective is main.at(9.9).objective is main.objective  # which may be compiled
    assert main.at(6).objective.perturb.keywords["rule"].keywords == build.build_rule(config).keywords
    assert build.name_method(config) == "PART, eps warm-up 4"
    [phase] = build.build_phases(resolve({"attack": {"eps_warmup": 4}, "train": {"epochs": 8}}))
    assert phase.at(1).objective.perturb.keywords["crafting"].step_size is None
    assert build.build_phases(resolve({}))[0].growing is None


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            {"train": {"method": "clean"}},
            "attack.eps_warmup 2 has no effect with train.method clean: it has no attack",
        ),
        (
            {"train": {"epochs": 1}},
            "attack.eps_warmup 2 exceeds train.epochs 1: the radius would never reach attack.eps",
        ),
        (
            {"train": {"method": "part"}, "mask": {"eps_low": "auto"}},
            "attack.eps_warmup 2 goes with a number for mask.eps_low",
        ),
        ({"attack": {"eps_warmup": -1}}, "attack.eps_warmup = -1"),
    ],
)
def test_a_radius_that_cannot_grow_is_refused(layer, message):
    with pytest.raises(UserError) as caught:
        resolve({"attack": {"eps_warmup": 2}}, layer)
    assert message in str(caught.value)


def test_hashes_of_runs_that_are_older_than_a_setting_stay():
    """As they were before data.channels and data.split_of; --data.channels 1 is another run."""
    folder = {"data": {"name": "folder", "root": "x"}}
    assert build.hash_config(resolve({})) == "8819bcf15c93"
    assert build.hash_config(resolve(folder)) == "4587e4006295"
    grey = resolve(folder, {"data": {"channels": 1}})
    assert plain(grey)["data"]["channels"] == 1
    assert build.hash_config(grey) != build.hash_config(resolve(folder))
