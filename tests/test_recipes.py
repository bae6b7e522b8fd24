"""Recipes: every one resolves, says what it is, and survives being shown and read again."""

import re

import pytest

from counterpart import recipes
from counterpart.config import plain, resolve, settings
from counterpart.errors import UserError
from counterpart.parsing import parse_yaml

NAMES = recipes.names()


TABLE_1 = {"at", "trades", "mart"} | {f"part{m}{s}" for m in ("", "-t", "-m") for s in ("", "-every-10")}
PAPER = ("cifar10", "svhn", "tiny-imagenet")
ON = ("part-imagenet", "cityscapes", "pascal-part", "ade-parts", "synthetic-parts", "parts")
COMPARED = ("baseline", "auxiliary", "downsampled", "bounding-box")
PART_MODELS = {f"{m}{s}" for m in COMPARED for s in ("", "-trades", "-clean")} | {
    "two-headed", "pixel", "segmenter", "segmenter-resnet101", "part-budget", "part-budget-annotated",
    "bounding-box-no-part-labels", "bounding-box-centroids",
    *(f"downsampled-{s}" for s in ("no-part-labels", "boxes", "objects", "tenth", "no-background", "see-image")),
    *(f"{m}-{s}" for m in ("baseline", "downsampled") for s in ("efficientnet-b4", "resnext50")),
    *(f"downsampled-pool-{pool}" for pool in (1, 2, 8, 32, 128)),
    *(
        f"{m}-c-seg-{c}"
        for m in ("downsampled-objects", "two-headed", "pixel", "downsampled-see-image")
        for c in (0.1, 0.3, 0.7, 0.9)
    ),
}  # fmt: skip


def test_the_built_in_recipes():
    expected = {f"digits/{name}" for name in ("clean", "at", "part", "part-uniform")}
    expected |= {f"{data}/{name}" for data in PAPER for name in TABLE_1 | {"clean", "part-uniform"}}
    more = ("clean-map", "quadrant", "shuffled", "random", "inverse", "mean-preserving", "published-code")
    expected |= {f"cifar10/part-{name}" for name in more} | {
        "cifar10/at-mma",
        "cifar10/part-mma",
        "cifar10/part-layer-3",
        "cifar10/part-vit",
    }
    expected |= {f"{data}/{name}" for data in ON for name in PART_MODELS}
    expected |= {"mnist/at", "fashion-mnist/at", "cifar100/at", "cifar100/part"}
    assert set(NAMES) == expected | {"folder/finetune"}


# Two files each say nothing but which data they are for: one model is enough.
SAME = ("cityscapes/", "pascal-part/")
SWEPT = re.compile(r"/.*-(c-seg|pool)-")  # one number each, seen by tests/papers: one data set is enough
RESOLVED = [
    n for n in NAMES
    if (not n.startswith(SAME) or n.endswith("/baseline")) and (n.startswith("part-im") or not SWEPT.search(n))
]  # fmt: skip


@pytest.mark.parametrize("name", RESOLVED)
def test_every_recipe_resolves_and_says_what_it_is(name):
    config = resolve(recipes.load(name))
    assert config.name == name.replace("/", "-")
    data = name.split("/")[0]
    assert config.data.name == ("parts" if data in ON[:4] else data)
    assert re.fullmatch(r"([A-Z]|cifar10/|svhn/|tiny-imagenet/).{20,}\.", recipes.headline(name))


# Each model on some data, and each data under some model: the two files meet in no other way.
SHOWN = [n for n in RESOLVED if n.split("/")[0] not in ON[:4]] + [f"{data}/baseline" for data in ON[:4]]


@pytest.mark.parametrize("name", SHOWN)
def test_a_shown_recipe_is_the_recipe(name, tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text(recipes.show(name))
    assert set(_dotted(parse_yaml(file.read_text()))) == {key for key, info in settings() if not info.exclude}
    shown, built_in = plain(resolve(recipes.load(str(file)))), plain(resolve(recipes.load(name)))
    assert shown.pop("name") == "my"  # a run of its own
    built_in.pop("name")
    assert shown == built_in
    assert recipes.show(str(file)).splitlines()[1:] == recipes.show(name).splitlines()[1:]


def test_a_shown_recipe_keeps_fractions_and_explains_itself():
    text = recipes.show("cifar10/part")
    assert "  eps: 8/255\n" in text
    assert "  eps_low: 7/255\n" in text
    assert (
        "  # The share of the epochs at the start in which every pixel has the full radius.\n  burn_in: 0.25\n"
        in text
    )
    assert text.startswith("# PART on CIFAR-10")


def test_cifar_recipes_have_the_papers_values():
    config = resolve(recipes.load("cifar10/part"))
    o, t = config.optimizer, config.train
    assert (o.lr, o.momentum, o.weight_decay, o.gamma) == (0.01, 0.9, 2e-4, 0.1)
    assert (t.epochs, t.batch_size, t.method) == (80, 128, "part")
    assert (config.attack.eps, config.attack.steps, config.attack.step_size) == (8 / 255, 10, 2 / 255)
    assert (config.mask.eps_low, config.mask.rule, config.mask.drawn_from) == (7 / 255, "paper", "start")
    assert [m * t.epochs for m in o.milestones] == [60]
    assert config.mask.burn_in * t.epochs == 20
    assert (config.data.padding, config.data.flip) == (4, True)


@pytest.mark.parametrize(
    ("data", "model", "lr", "batch", "decay", "step", "crops"),
    [
        ("cifar10", "resnet18", 0.01, 128, 2e-4, 2 / 255, (4, True)),
        ("svhn", "resnet18", 0.01, 128, 3.5e-3, 1 / 255, (0, False)),
        ("tiny-imagenet", "wrn-34-10", 0.02, 512, 5e-4, 2 / 255, (4, True)),
    ],
)
def test_rows_of_table_1_have_the_papers_values(data, model, lr, batch, decay, step, crops):
    layer = "block3" if model.startswith("wrn") else None  # where the authors' code draws its maps
    for name in TABLE_1:
        config = resolve(recipes.load(f"{data}/{name}"))
        o, t = config.optimizer, config.train
        assert (config.model.name, config.data.padding, config.data.flip) == (model, *crops)
        assert (o.lr, o.momentum, o.weight_decay, o.schedule, o.gamma) == (lr, 0.9, decay, "piecewise", 0.1)
        assert (t.epochs, t.batch_size, [m * t.epochs for m in o.milestones]) == (80, batch, [60])
        assert (config.attack.norm, config.attack.eps, config.attack.steps) == ("linf", 8 / 255, 10)
        assert config.attack.step_size == step
        assert t.method == name.removesuffix("-every-10")
        if t.method not in ("at", "part"):
            assert t.beta == 6
        if t.masked:
            mask = config.mask
            assert (mask.eps_low, mask.rule, mask.control, mask.map_class) == (
                7 / 255,
                "paper",
                "none",
                "true",
            )
            assert (mask.layer, mask.projection) == (layer, "clamp")
            assert mask.burn_in * t.epochs == 20
            assert mask.refresh_epochs == (10 if name.endswith("-every-10") else None)


def test_part_models_have_the_papers_values():
    config = resolve(recipes.load("part-imagenet/bounding-box-trades"))
    o, t, a = config.optimizer, config.train, config.attack
    assert (o.lr, o.momentum, o.weight_decay, o.schedule, o.no_decay) == (
        0.1, 0.9, 5e-4, "cosine", ("bias", "bn", "ln"),
    )  # fmt: skip
    assert (t.method, t.beta, config.c_seg, t.batch_size) == ("trades", 0.1, 0.5, 128)
    assert (t.clean_epochs, t.epochs) == (50, 50)
    assert (a.norm, a.eps, a.steps, a.step_size) == ("linf", 8 / 255, 10, 2 / 255)
    model, data = config.model, config.data
    assert (model.name, model.encoder, model.decoder) == ("parts/bounding-box", "resnet50", "deeplabv3plus")
    assert (model.resolution, model.pretrained) == ("full", True)
    assert (data.size, data.crop, data.flip) == (224, "resized", True)
    assert resolve(recipes.load("pascal-part/baseline-trades")).train.beta == 0.1
    assert resolve(recipes.load("cityscapes/downsampled-trades")).train.beta == 0.05
    assert resolve(recipes.load("cityscapes/baseline")).c_seg == 0


def test_the_segmenter_of_pseudo_labels_is_the_papers():
    config = resolve(recipes.load("part-imagenet/segmenter-resnet101"))
    assert (config.model.encoder, config.c_seg, config.train.method) == ("resnet101", 1, "clean")
    assert (config.train.epochs, config.data.labelled, config.optimizer.lr) == (150, 0.1, 0.1)
    assert (config.data.crop, config.data.padding, config.data.flip) == ("padded", 0, True)


def test_figure_1_trains_and_is_judged_at_radii_of_its_own():
    config = resolve(recipes.load("cifar10/part-quadrant"))
    assert (config.attack.eps, config.mask.eps_low, config.evaluate.eps) == (12 / 255, 6 / 255, 8 / 255)


def test_part_models_differ_by_the_model_alone():
    """All that two data sets share is the model's file, and nothing of it is lost on either."""
    for name in ("baseline", "downsampled-boxes", "part-budget", "segmenter"):
        drawn, real = (resolve(recipes.load(f"{data}/{name}")) for data in ("synthetic-parts", "ade-parts"))
        assert (drawn.model, drawn.train.method, drawn.c_seg) == (real.model, real.train.method, real.c_seg)
        assert (drawn.data.labels, drawn.data.labelled) == (real.data.labels, real.data.labelled)


@pytest.mark.parametrize("data", ["digits", *PAPER])
def test_methods_differ_by_nothing_but_the_method(data):
    def rest(name):
        values = plain(resolve(recipes.load(f"{data}/{name}")))
        values["train"].pop("method")
        return {key: value for key, value in values.items() if key not in ("name", "mask")}

    assert rest("at") == rest("part") == rest("part-uniform") == rest("clean")
    part, uniform = (plain(resolve(recipes.load(f"{data}/{n}")))["mask"] for n in ("part", "part-uniform"))
    assert {key for key in part if part[key] != uniform[key]} == {"control"}


def test_recipes_of_controls_differ_by_the_control():
    part = plain(resolve(recipes.load("cifar10/part")))
    for name in ("shuffled", "random", "inverse"):
        control = plain(resolve(recipes.load(f"cifar10/part-{name}")))
        assert control["mask"].pop("control") == name
        assert {**control, "name": "", "mask": {"control": "none", **control["mask"]}} == {**part, "name": ""}


@pytest.mark.parametrize("method", ["at", "part"])
def test_recipes_of_minimum_margin_differ_by_how_examples_are_made(method):
    pgd, mma = (plain(resolve(recipes.load(f"cifar10/{name}"))) for name in (method, f"{method}-mma"))
    assert (mma["attack"].pop("generation"), mma["attack"]["targets"]) == ("minimum-margin", 3)
    assert pgd["attack"].pop("generation") == "pgd"
    assert mma["mask"].pop("drawn_from") is None
    pgd["mask"].pop("drawn_from")
    assert {**mma, "name": ""} == {**pgd, "name": ""}


def test_unknown_recipes_are_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"no recipe is called 'cifar10/prt'. Did you mean 'cifar10/part'\?"):
        recipes.load("cifar10/prt")
    with pytest.raises(UserError, match=r"Cannot read .*none\.yaml"):
        recipes.load("none.yaml")
    with pytest.raises(UserError, match=r"The built-in recipe is called digits/at, without \.yaml"):
        recipes.load("digits/at.yaml")


def test_a_file_may_name_its_run(tmp_path):
    (tmp_path / "a.yaml").write_text("name: other\n")
    assert recipes.load(str(tmp_path / "a.yaml"))["name"] == "other"


def test_a_file_may_hold_only_what_differs_from_a_built_in_recipe(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("base: svhn/part-uniform\nmask: {eps_low: 6/255}\ntrain: {epochs: 3}\n")
    mine, theirs = plain(resolve(recipes.load(str(file)))), plain(resolve(recipes.load("svhn/part-uniform")))
    assert mine.pop("name") == "mine"
    assert (mine["mask"].pop("eps_low"), mine["train"].pop("epochs")) == (6 / 255, 3)
    theirs["mask"].pop("eps_low"), theirs["train"].pop("epochs"), theirs.pop("name")
    assert mine == theirs
    assert "control: uniform" in recipes.show(str(file))
    for wrong, hint in (("svnh/part", "Did you mean 'svhn/part'"), ("[1]", "is no built-in recipe")):
        file.write_text(f"base: {wrong}\n")
        with pytest.raises(UserError, match=hint):
            recipes.load(str(file))


def _dotted(nested):
    return [
        f"{key}.{leaf}" if isinstance(value, dict) else key
        for key, value in nested.items()
        for leaf in (value if isinstance(value, dict) else [None])
    ]


def test_recipes_of_grey_and_of_a_hundred_classes():
    mnist, fashion = (resolve(recipes.load(f"{name}/at")) for name in ("mnist", "fashion-mnist"))
    assert (mnist.attack.eps, mnist.attack.steps, mnist.attack.step_size) == (0.3, 40, 0.01)
    assert (fashion.attack.eps, fashion.attack.steps, fashion.model.name) == (0.1, 20, "small-cnn")
    assert not mnist.data.flip
    assert not mnist.data.padding
    for name in ("at", "part"):
        ten, hundred = (resolve(recipes.load(f"{data}/{name}")) for data in ("cifar10", "cifar100"))
        assert hundred.model_copy(update={"data": ten.data, "name": ten.name}) == ten
