"""Settings on the command line."""

import pytest

from counterpart.cli.settings import describe, from_arguments
from counterpart.config import resolve, settings
from counterpart.errors import UserError

ALL = [key for key, _ in settings()]


@pytest.mark.parametrize(
    ("words", "nested", "others"),
    [
        (["x", "--train.epochs", "5"], {"train": {"epochs": "5"}}, ["x"]),
        (["--train.epochs=5", "x"], {"train": {"epochs": "5"}}, ["x"]),
        (["--train.epochs", "5", "x"], {"train": {"epochs": "5"}}, ["x"]),
        (["--train.stop-after", "9m"], {"train": {"stop_after": "9m"}}, []),
        (["--data.download", "x"], {"data": {"download": "true"}}, ["x"]),
        (["--data.flip", "false", "x"], {"data": {"flip": "false"}}, ["x"]),
        (["--data.download", "--seed", "1"], {"data": {"download": "true"}, "seed": "1"}, []),
        (["--name", "010"], {"name": "010"}, []),
        (["--model.width", "null"], {"model": {"width": None}}, []),
        (["--evaluate.attacks", "[{steps: 3}]"], {"evaluate": {"attacks": [{"steps": 3}]}}, []),
        (["train", "--seeds", "0,1"], {}, ["train", "--seeds", "0,1"]),
    ],
)
def test_settings_are_found_wherever_they_stand(words, nested, others):
    assert from_arguments(words, ALL) == (nested, others)


def test_text_becomes_what_the_schema_says():
    words = [
        "--train.epochs",
        "5",
        "--data.flip",
        "no",
        "--optimizer.milestones",
        "0.5,0.75",
        "--attack.eps",
        "4/255",
    ]
    config = resolve(from_arguments(words, ALL)[0])
    assert config.train.epochs == 5
    assert config.data.flip is False
    assert config.optimizer.milestones == (0.5, 0.75)
    assert config.attack.eps == 4 / 255


def test_a_number_among_few_choices_is_text_as_well():
    words = ["--data.name", "folder", "--data.channels", "1"]
    assert resolve(from_arguments(words, ALL)[0]).data.channels == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--train.epoch", "5"], r"unknown setting --train\.epoch\. Did you mean 'train\.epochs'\?"),
        (["--trian.epochs", "5"], r"unknown setting --trian\.epochs\. Did you mean 'train\.epochs'\?"),
        (["--train.epochs"], r"--train\.epochs needs a value"),
        (["--evaluate.attacks", "[{"], r"--evaluate\.attacks: cannot read"),
    ],
)
def test_what_cannot_be_set_is_refused(words, message):
    with pytest.raises(UserError, match=message):
        from_arguments(words, ALL)


def test_a_setting_without_effect_is_refused():
    with pytest.raises(UserError, match=r"--train\.epochs has no effect here.*evaluate\.n"):
        from_arguments(["--train.epochs", "5"], ["evaluate.n"])


def test_help_shows_name_meaning_choices_and_default():
    text = describe(ALL)
    assert [key for key in ALL if f"--{key.replace('_', '-')}" not in text] == []
    assert "Default: 8/255." in text
    assert "[clean, at, trades, mart, part, part-t, part-m]" in text
    assert "--mask.drawn-from [start, clean]\n" in text
    assert "typing" not in text
    assert "--evaluate.n" not in describe(["seed"])
