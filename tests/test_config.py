"""The schema: what may be set, and what is said when it may not."""

import pytest
import yaml

from counterpart.catalogue import ATTACKS, SUITES
from counterpart.config import identity, plain, read_yaml, readable, resolve, settings
from counterpart.errors import UserError


def refusal(*layers):
    with pytest.raises(UserError) as caught:
        resolve(*layers, source="my.yaml")
    text = str(caught.value)
    assert text.startswith("my.yaml: ")
    assert "\n" not in text
    return text


def test_later_layers_win_and_leave_the_rest():
    config = resolve({"train": {"epochs": 3, "batch_size": 7}, "seed": 1}, {"train": {"epochs": 5}})
    assert (config.train.epochs, config.train.batch_size, config.seed) == (5, 7, 1)


def test_a_layer_is_not_changed_by_the_next():
    first = {"train": {"epochs": 3}}
    resolve(first, {"train": {"epochs": 5}})
    assert first == {"train": {"epochs": 3}}


@pytest.mark.parametrize(
    ("text", "number"),
    [("8/255", 8 / 255), (" 2 / 255 ", 2 / 255), ("0.03", 0.03), (0.5, 0.5), ("1e-2", 0.01)],
)
def test_numbers_are_read_in_every_form(text, number):
    assert resolve({"attack": {"eps": text}}).attack.eps == number


@pytest.mark.parametrize(
    ("text", "seconds"), [("9m", 540), ("90s", 90), ("2h", 7200), ("1.5h", 5400), (45, 45)]
)
def test_durations(text, seconds):
    assert resolve({"train": {"stop_after": text}}).train.stop_after == seconds


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ({"attack": {"eps": 8}}, ["attack.eps 8", "[0, 1]", "Did you mean 8/255?"]),
        ({"attack": {"eps": -0.1}}, ["attack.eps = -0.1", "greater than or equal to 0"]),
        ({"attack": {"eps": float("nan")}}, ["attack.eps", "finite"]),
        ({"attack": {"eps": "8/0"}}, ["attack.eps = 8/0", "valid number"]),
        ({"evaluate": {"eps": 8}}, ["evaluate.eps 8", "Did you mean 8/255?"]),
        ({"attack": {"norm": "l2"}, "evaluate": {"norm": "linf", "eps": 2}}, ["evaluate.eps 2"]),
        ({"attack": {"step_size": 2}}, ["attack.step_size 2", "Did you mean 2/255?"]),
        ({"train": {"epochs": 0}}, ["train.epochs = 0", "greater than or equal to 1"]),
        ({"train": {"epochs": 2.5}}, ["train.epochs = 2.5", "integer"]),
        (
            {"train": {"method": "prat"}},
            ["train.method = prat: no method is called 'prat'.", "Did you mean 'part'?"],
        ),
        ({"train": {"epoch": 3}}, ["unknown setting 'train.epoch'", "Did you mean 'train.epochs'?"]),
        (
            {"data": {"channels": 1}},
            ["data.channels 1 has no effect with data.name digits: it is for folder"],
        ),
        ({"data": {"name": "folder", "channels": 2}}, ["data.channels = 2", "1 or 3"]),
        ({"epochs": 3}, ["unknown setting 'epochs'", "Did you mean 'train.epochs'?"]),
        ({"trian": {"epochs": 3}}, ["unknown setting 'trian'", "Did you mean 'train'?"]),
        ({"train.epochs": 3}, ["unknown setting 'train.epochs'", "Nest it: 'train: {epochs: ...}'"]),
        ({"data": {"validation": 1}}, ["data.validation = 1", "less than 1"]),
        ({"data": {"labels": "boxes"}}, ["data.labels boxes has no effect", "digits, which has no parts"]),
        ({"data": {"labelled": 0.5}}, ["data.labelled 0.5 has no effect"]),
        ({"data": {"name": "parts", "labelled": 0}}, ["data.labelled = 0", "greater than 0"]),
        (
            {"data": {"crop": "resized", "padding": 2}},
            ["data.padding 2 has no effect with data.crop resized"],
        ),
        ({"evaluate": {"attacks": "quik"}}, ["'quik'", "Did you mean 'quick'?"]),
        ({"evaluate": {"attacks": [{"stps": 3}]}}, ["attack pgd has no stps. Did you mean 'steps'?"]),
        ({"optimizer": {"milestones": [0.9, 0.5]}}, ["optimizer.milestones 0.9, 0.5", "rise"]),
        (
            {"optimizer": {"schedule": "cosine", "milestones": [0.5, 0.9]}},
            [
                "optimizer.milestones 0.5,0.9 has no effect with optimizer.schedule cosine: it is for piecewise"
            ],
        ),
        ({"optimizer": {"milestones": [1.5]}}, ["optimizer.milestones 1.5", "(0, 1]"]),
        ({"optimizer": {"nesterov": True, "momentum": 0}}, ["optimizer.momentum > 0"]),
        ({"train": {"label_smoothing": 1}}, ["train.label_smoothing = 1", "less than 1"]),
        (
            {"train": {"label_smoothing": -0.1}},
            ["train.label_smoothing = -0.1", "greater than or equal to 0"],
        ),
        ({"train": {"awp": 5}}, ["train.awp = 5", "less than 1"]),
        ({"train": {"awp_warmup": 3}}, ["train.awp_warmup 3 has no effect without train.awp"]),
        ({"train": {"awp": 0.01, "awp_warmup": 80}}, ["train.awp_warmup 80 leaves none of 80 epochs"]),
        (
            {"attack": {"generation": "mma"}},
            ["attack.generation = mma", "'pgd', 'minimum-margin' or 'n-fgsm'"],
        ),
        ({"attack": {"targets": 2}}, ["attack.targets 2 has no effect with attack.generation pgd"]),
        (
            {"attack": {"generation": "minimum-margin"}, "train": {"method": "part-t"}},
            ["is for methods at and part: part-t comes with an attack of its own"],
        ),
        (
            {"attack": {"generation": "minimum-margin"}, "train": {"method": "clean"}},
            ["is for methods at and part: clean has no attack"],
        ),
        (
            {"attack": {"noise": 1}},
            ["attack.noise 1 has no effect with attack.generation pgd: it is for n-fgsm"],
        ),
        (
            {"attack": {"generation": "n-fgsm", "steps": 3}},
            ["attack.steps 3 has no effect with attack.generation n-fgsm, which takes one step"],
        ),
        ({"attack": {"generation": "n-fgsm", "norm": "l2"}}, ["attack.norm l2", "n-fgsm needs linf"]),
        ({"attack": {"generation": "n-fgsm", "targets": 2}}, ["it is for minimum-margin"]),
        (
            {"attack": {"generation": "n-fgsm"}, "mask": {"projection": "multiply"}},
            ["mask.projection multiply has no effect with attack.generation n-fgsm"],
        ),
    ],
)
def test_what_is_impossible_is_refused_in_one_line(layer, words):
    text = refusal(layer)
    assert [word for word in words if word not in text] == []


def test_part_needs_a_smaller_eps_low():
    part = {"train": {"method": "part"}, "attack": {"eps": "8/255"}}
    assert "mask.eps_low 9/255 exceeds attack.eps 8/255" in refusal(part, {"mask": {"eps_low": "9/255"}})
    assert "Did you mean 7/255?" in refusal(part, {"mask": {"eps_low": 7}})
    resolve(part, {"mask": {"eps_low": "8/255"}})  # equal: the same as AT
    resolve({"attack": {"eps": "4/255"}})  # eps_low says nothing to another method


def test_eps_low_is_a_number_or_auto():
    part = {"train": {"method": "part"}, "attack": {"eps": "8/255"}}
    assert resolve(part, {"mask": {"eps_low": "auto"}}).mask.eps_low == "auto"
    assert resolve(part, {"mask": {"eps_low": "6/255"}}).mask.eps_low == 6 / 255
    for wrong in ("atuo", -1, "nan", "inf", True, None):
        text = refusal(part, {"mask": {"eps_low": wrong}})
        assert f"mask.eps_low = {wrong}: input should be a number of at least 0, or auto" in text
    config = resolve(part, {"mask": {"eps_low": "auto"}})
    assert resolve(yaml.safe_load(yaml.safe_dump(plain(config)))) == config


@pytest.mark.parametrize("mask", ["file", "annotated-parts"])
def test_a_search_needs_masks_of_any_image(mask):
    part = {"eps_low": "auto", "rule": mask, **({"files": "m"} if mask == "file" else {})}
    assert f"mask.eps_low auto draws masks on validation images, and mask.rule {mask}" in refusal(
        {"mask": part}
    )


def test_a_search_must_stay_in_range_as_far_as_it_may_go():
    wide = {"train": {"method": "part"}, "attack": {"eps": 0.5}, "mask": {"rule": "mean-preserving"}}
    resolve(wide, {"mask": {"eps_low": 0.4}})
    assert "radius of 2" in refusal(wide, {"mask": {"eps_low": "auto"}})


def test_part_needs_a_norm_with_a_radius_per_pixel():
    assert "method part needs linf" in refusal({"train": {"method": "part"}, "attack": {"norm": "l2"}})


def test_an_l2_radius_may_exceed_one():
    assert resolve({"attack": {"norm": "l2", "eps": 2}}).attack.eps == 2


def test_every_problem_is_named():
    text = refusal({"train": {"epochs": 0}, "attack": {"stepz": 1}})
    assert "train.epochs" in text
    assert "attack.stepz" in text


def test_suites_are_lists_of_attacks():
    rows = {**{name: [{"attack": name}] for name in ATTACKS}, **SUITES}
    for name, listed in rows.items():
        attacks = resolve({"evaluate": {"attacks": name}}).evaluate.attacks
        assert attacks == resolve({"evaluate": {"attacks": listed}}).evaluate.attacks
    both = resolve({"evaluate": {"attacks": "quick, square"}}).evaluate.attacks
    assert [a.attack for a in both] == ["pgd", "pgd", "square"]
    quick = resolve({"evaluate": {"attacks": "quick"}}).evaluate.attacks
    options = [a.options for a in quick]
    assert [(o["loss"], o["steps"], o["restarts"]) for o in options] == [
        ("cross_entropy", 20, 1),
        ("margin", 50, 5),
    ]


def test_paths_expand_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = resolve({"runs": "~/runs", "data": {"root": "~/data", "class_map": "~/map.json"}})
    assert config.runs == tmp_path / "runs"
    assert config.data.root == tmp_path / "data"
    assert config.data.class_map == tmp_path / "map.json"


def test_a_class_map_is_a_file_or_a_map_of_names():
    assert resolve({"data": {"class_map": {0: 3, "cat": [1, "Cat"]}}}).data.class_map == {
        "0": 3,
        "cat": [1, "Cat"],
    }
    message = r"data.class_map \[1, 2\]: expected {class folder: output}, or a JSON file that holds it.$"
    with pytest.raises(UserError, match=message):
        resolve({"data": {"class_map": [1, 2]}})


def test_plain_values_resolve_to_the_same_configuration():
    config = resolve({"attack": {"eps": "4/255"}, "evaluate": {"attacks": "quick"}, "data": {"root": "x"}})
    assert resolve(yaml.safe_load(yaml.safe_dump(plain(config)))) == config


def test_identity_leaves_out_what_may_change_between_two_starts():
    first = plain(resolve({"data": {"root": "a"}, "train": {"stop_after": 5}, "device": "cpu"}))
    second = plain(resolve({"data": {"root": "b"}, "evaluate": {"n": 3}, "runs": "r", "name": "n"}))
    assert identity(first) == identity(second)
    for other in ({"seed": 1}, {"attack": {"eps": 0.01}}, {"data": {"limit": 5}}, {"train": {"epochs": 5}}):
        assert identity(plain(resolve(other))) != identity(first)
    assert first["data"]["root"] == "a"  # the argument stays as it was


@pytest.mark.parametrize(
    ("number", "text"), [(8 / 255, "8/255"), (2 / 255, "2/255"), (0.1, "0.1"), (0.2, "0.2"), (300.0, "300"),
                         (1.0, "1"), (0.0, "0"), (2e-4, "0.0002"), (0.0875, "0.0875"), (1 / 3, "85/255"),
        (1 / 7, "0.14285714285714285")],
)  # fmt: skip
def test_numbers_are_shown_as_people_write_them(number, text):
    assert readable(number) == text
    assert resolve({"attack": {"norm": "l2", "eps": text}}).attack.eps == number


def test_yaml_files_that_cannot_be_read_are_named(tmp_path):
    file = tmp_path / "my.yaml"
    with pytest.raises(UserError, match=r"Cannot read .*my\.yaml: No such file"):
        read_yaml(file)
    file.write_text("a: [")
    with pytest.raises(UserError, match="not valid YAML"):
        read_yaml(file)
    file.write_text("- 1")
    with pytest.raises(UserError, match=r"must hold settings such as 'seed: 0', got list"):
        read_yaml(file)


def test_every_setting_has_a_meaning():
    rows = list(settings())
    assert [key for key, info in rows if not info.description] == []
    assert {"seed", "train.epochs", "attack.eps", "evaluate.attacks"} <= {key for key, _ in rows}


def test_the_published_evaluation_is_a_suite_of_its_own():
    asked = resolve({"evaluate": {"attacks": "published-part"}}).evaluate.attacks
    assert [(one.attack, one.options.get("version")) for one in asked] == [
        ("pgd", None), ("minimum-margin", None), ("autoattack", "ten-steps"),
    ]  # fmt: skip
    assert asked[0].options["step_size"] == 2 / 255
    with pytest.raises(UserError, match="no AutoAttack of ten steps"):
        resolve({"evaluate": {"attacks": "autoattack", "engine": "official"}},
                {"evaluate": {"attacks": [{"attack": "autoattack", "version": "ten-steps"}]}})  # fmt: skip


def test_a_byte_order_mark_in_a_file_is_passed_over(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfname: x\r\nseed: 3\r\n")
    assert read_yaml(tmp_path / "x.yaml") == {"name": "x", "seed": 3}


@pytest.mark.parametrize(
    ("given", "eps"),
    [
        ("2/255,4/255,8/255", (2 / 255, 4 / 255, 8 / 255)),
        (["2/255", 4 / 255], (2 / 255, 4 / 255)),
        ((0.1, 1), (0.1, 1.0)),
        ("8/255", 8 / 255),
        (["8/255"], 8 / 255),
        (0, 0.0),
        (None, None),
    ],
)
def test_the_radius_of_an_evaluation_is_a_number_or_several(given, eps):
    evaluate = resolve({"evaluate": {"eps": given}}).evaluate
    assert evaluate.eps == eps
    assert type(evaluate.eps) is type(eps)
    assert evaluate.radii == (() if eps is None else eps if isinstance(eps, tuple) else (eps,))
    assert resolve(plain(resolve({"evaluate": {"eps": given}}))).evaluate.eps == eps


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("8", r"evaluate.eps 8 exceeds the image range \[0, 1\]. Did you mean 8/255"),
        ("2/255,8", r"evaluate.eps 8 exceeds the image range \[0, 1\]. Did you mean 8/255"),
        ("8/255,4/255", r"evaluate.eps = 8/255,4/255: several radii should rise"),
        ("4/255,4/255", "several radii should rise"),
        ("0,4/255", "several radii should rise from the smallest, which is above 0"),
        ([], "several radii should rise"),
        ("4/255,big", "evaluate.eps = 4/255,big: input should be a number of at least 0, or several"),
        (-1, "evaluate.eps = -1: input should be a number of at least 0"),
        (True, "evaluate.eps = True: input should be a number of at least 0"),
        ("4/255,", "evaluate.eps = 4/255,: input should be a number"),
    ],
)
def test_radii_that_cannot_be_meant_are_one_line(given, message):
    with pytest.raises(UserError, match=message):
        resolve({"evaluate": {"eps": given}})


def test_a_mask_aware_attack_has_one_radius():
    with pytest.raises(UserError, match=r"evaluate\.eps_low goes with a single evaluate\.eps"):
        resolve({"evaluate": {"eps": "4/255,8/255", "eps_low": "2/255"}})


def test_n_fgsm_drops_the_steps_that_a_recipe_asks_for():
    recipe = {"attack": {"generation": "pgd", "steps": 5, "step_size": "2/255", "eps": "4/255"}}
    attack = resolve(recipe, {"attack": {"generation": "n-fgsm"}}).attack
    assert (attack.steps, attack.step_size, attack.eps) == (10, None, 4 / 255)
    attack = resolve(recipe, {"attack": {"generation": "n-fgsm", "step_size": "5/255"}}).attack
    assert attack.step_size == 5 / 255
