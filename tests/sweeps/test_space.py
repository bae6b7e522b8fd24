"""What a space file may hold, and what is refused before anything is trained."""

import pytest

from counterpart import recipes, sweeps
from counterpart.cli import main
from counterpart.config import resolve
from counterpart.errors import UserError
from counterpart.papers.parts_figures import FIGURE_9
from counterpart.papers.parts_tables import BETAS, RATES, TABLE_17
from counterpart.papers.pixel_tables import FIGURE_1, FIGURE_4
from counterpart.sweeps.space import _FOLDER, apply

# Ready-made space -> a recipe that it fits.
RECIPES = {
    "part-eps-low": "cifar10/part",
    "part-eps-low-12": "cifar10/part",
    "part-models-beta": "part-imagenet/downsampled-trades",
    "part-models-c-seg": "part-imagenet/downsampled",
    "part-models-pool": "part-imagenet/downsampled",
    "part-models-rate": "part-imagenet/downsampled",
    "part-quadrant": "cifar10/part-quadrant",
    "part-refresh": "cifar10/part",
    "rate-and-decay": "cifar10/at",
    "trades-beta": "cifar10/trades",
}


# What is given beside a space, where it needs something.
GIVEN = {"part-eps-low-12": {"attack": {"eps": "12/255"}}}


def read(space, recipe="digits/at"):
    given = GIVEN.get(space, {}) if isinstance(space, str) else {}
    return sweeps.read_space(space, resolve(recipes.load(recipe), given))


def values(space, name):
    return [
        value
        for dimension in space.dimensions
        if dimension.name == name
        for value in dimension.choices.values()
    ]


def test_every_space_that_ships_fits_a_recipe_and_says_what_it_is():
    assert sweeps.names() == sorted(RECIPES)
    for name, recipe in RECIPES.items():
        assert read(name, recipe).name == name
        assert (_FOLDER / f"{name}.yaml").read_text().startswith("# ")


def test_the_help_names_every_space_that_ships(capsys):
    with pytest.raises(SystemExit):
        main(["sweep", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert "rate-and-decay" in words
    for name in sweeps.names():
        assert name in words.replace("- ", "-")


def test_the_grids_of_the_papers_are_those_of_their_experiments():
    weights = [row.changes["train"]["c_seg"] for row in FIGURE_9.rows if row.recipe == "downsampled"]
    assert values(read("part-models-c-seg", "part-imagenet/downsampled"), "train.c_seg") == weights
    assert values(read("part-models-beta", "part-imagenet/downsampled-trades"), "train.beta") == list(BETAS)
    points = read("part-models-rate", "part-imagenet/downsampled").points
    pairs = {(float(p["optimizer.lr"]), float(p["optimizer.weight_decay"])) for p in points}
    assert pairs == set(RATES)
    for name, eps in (("part-eps-low", "8/255"), ("part-eps-low-12", "12/255")):
        lows = {
            row.changes["mask"]["eps_low"] for row in FIGURE_4.rows if row.changes["attack"]["eps"] == eps
        }
        config = resolve(recipes.load("cifar10/part"), {"attack": {"eps": eps}})
        radii = {apply(config, {"mask.eps_low": low}, "a test").mask.eps_low for low in lows}
        assert set(values(read(name, "cifar10/part"), "mask.eps_low")) == radii
    grids = [row.changes["model"]["pool"] for row in TABLE_17.rows]
    assert values(read("part-models-pool", "part-imagenet/downsampled"), "model.pool") == grids
    quadrants = [row.changes["mask"]["quadrant"] for row in FIGURE_1.rows]
    assert values(read("part-quadrant", "cifar10/part-quadrant"), "mask.quadrant") == quadrants
    fresh, stored = (resolve(recipes.load(f"cifar10/{name}")).mask for name in ("part", "part-every-10"))
    every = values(read("part-refresh", "cifar10/part"), "mask.refresh_epochs")
    assert every == [fresh.refresh_epochs, stored.refresh_epochs]


def test_values_are_read_as_the_schema_reads_them_and_written_as_people_do():
    space = read(
        {
            "optimizer.lr": ["1/255", "5e-2"],
            "data.flip": [True, "no"],
            "optimizer.milestones": ["0.5,0.75", [0.5]],
            "train.ema": [None, 0.9],
        },
        "cifar10/at",
    )
    texts = {dimension.name: dict(dimension.choices) for dimension in space.dimensions}
    assert texts["optimizer.lr"] == {"1/255": 1 / 255, "0.05": 0.05}
    assert texts["data.flip"] == {"true": True, "false": False}
    assert texts["optimizer.milestones"] == {"0.5,0.75": [0.5, 0.75], "0.5": [0.5]}
    assert texts["train.ema"] == {"null": None, "0.9": 0.9}
    assert len(space.points) == 16
    assert space.points[0] == {name: next(iter(choices)) for name, choices in texts.items()}


def test_a_range_is_whole_where_the_setting_is():
    space = read(
        {
            "train.batch_size": {"low": 16, "high": 64, "log": True},
            "optimizer.lr": {"low": "1/100", "high": 1},
        }
    )
    batch, rate = space.dimensions
    assert (batch.whole, batch.log, batch.ends) == (True, True, (16, 64))
    assert (rate.whole, rate.log, rate.ends) == (False, False, (0.01, 1))
    assert space.points is None
    assert space.describe() == {"train.batch_size": "16 to 64 (log)", "optimizer.lr": "0.01 to 1"}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("optimizer.lrr: [1]", "unknown setting 'optimizer.lrr'. Did you mean 'optimizer.lr'?"),
        ("part.eps_low: [1]", "unknown setting 'part.eps_low'. It is called 'mask.eps_low' now."),
        ("train: {beta: [1]}", "unknown setting 'train'. Write dotted names, such as 'train.method'."),
        ("optimizer.lr: [0.1, -1]", "optimizer.lr = -1: input should be greater than 0"),
        ("optimizer.lr: {low: 0, high: 1}", "optimizer.lr = 0: input should be greater than 0"),
        ("optimizer.momentum: {low: 0.5, high: 1}", "optimizer.momentum = 1: input should be less than 1"),
        ("train.beta: [1, 2]", "train.beta 1 has no effect with method at"),
        ("optimizer.lr: 3", "needs a list such as [1, 3, 6], or a range such as {low: 0.01, high: 0.3, log: true}"),
        ("optimizer.lr: []", "needs a list"),
        ("optimizer.lr: {low: 1, hihg: 2}", "needs a list"),
        ("optimizer.lr: {low: 1, high: 1}", "needs low below high, got 1 and 1"),
        ("optimizer.weight_decay: {low: 0, high: 0.9, log: true}", "weight_decay with log needs low above 0, got 0"),
        ("optimizer.lr: {low: 0.1, high: 1, log: yes please}", "log of optimizer.lr must be true or false"),
        ("train.method: {low: at, high: clean}", "train.method takes no range"),
        ("data.flip: {low: false, high: true}", "data.flip takes no range"),
        ("optimizer.lr: [0.5, 1/2]", "optimizer.lr has a value twice: 0.5, 0.5"),
        ("attack.eps: [0.1, 0.2]", "attack.eps may not vary: validation measures by it"),
        ("train.validation_n: [10, 20]", "train.validation_n may not vary: validation measures by it"),
        ("data.fold: [1/5, 2/5]", "data.fold may not vary: validation measures by it"),
        ("evaluate.n: [10, 20]", "evaluate.n may not vary: it has no effect on what is learned"),
        ("data.root: [a, b]", "data.root may not vary: it has no effect"),
        ("seed: [0, 1]", "seed may not vary: the best of several seeds is luck"),
        ("threads: [1, 2]", "threads may not vary"),
        ("{}", "is empty: write settings that vary"),
        ("[1, 2]", "must hold settings"),
    ],
)  # fmt: skip
def test_what_cannot_vary_is_refused_in_one_line_before_the_first_trial(
    tmp_path, monkeypatch, capsys, line, complaint
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text(line)
    assert main(["sweep", "digits/at", "--space", "space.yaml", "--trials", "2"]) == 2
    [error] = capsys.readouterr().err.splitlines()
    assert error.startswith("counterpart: error: space.yaml")
    assert complaint in error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--space", "trades-bta"], "no space is called 'trades-bta'. Did you mean 'trades-beta'?"),
        (["--space", "none.yaml"], "Cannot read none.yaml: No such file"),
        (["--space", "rate-and-decay"], "the space rate-and-decay holds a range: say how many trials"),
        (["--space", "rate-and-decay", "--trials", "0"], "must be a whole number of at least 1"),
        (["--space", "rate-and-decay", "--trials", "2", "--optimizer.lr", "1"], "optimizer.lr varies in the space"),
        (["--space", "rate-and-decay", "--trials", "2", "--data.validation", "0"], "none: set data.validation"),
        ([], "--space"),
    ],
)  # fmt: skip
def test_what_a_command_lacks_is_said_in_one_line(tmp_path, monkeypatch, capsys, words, complaint):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "digits/at", *words]) == 2
    [error] = capsys.readouterr().err.splitlines()
    assert complaint in error
    assert not (tmp_path / "runs").exists()


def test_values_that_do_not_go_together_are_refused():
    with pytest.raises(UserError, match=r"mask.eps_low 0.2 exceeds attack.eps 0.1"):
        read({"mask.eps_low": {"low": 0, "high": 0.2}}, "digits/part")
    with pytest.raises(UserError, match="has no effect with method at"):
        read({"train.method": ["trades", "at"], "train.beta": [1, 2]})  # 2 with at; each value alone is fine
