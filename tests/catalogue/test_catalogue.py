"""The catalogue: what it declares is what the code has, and others can add to it."""

import inspect
from pathlib import Path

import pytest

import counterpart
from counterpart import catalogue
from counterpart.catalogue import (
    ATTACKS,
    CONTROLS,
    DATA_SETS,
    KINDS,
    MASK_RULES,
    METHODS,
    MODELS,
    SUITES,
    find,
)
from counterpart.catalogue.entries import load_code
from counterpart.cli import main
from counterpart.cli.list import reference_page
from counterpart.config import resolve
from counterpart.config import settings as every_setting
from counterpart.errors import UserError
from counterpart.losses.classification import LOSSES

GIVEN = {"model", "images", "labels", "budget", "keys", "start"}  # what every attack takes
INNER = {"source"}  # what a mask rule is given by other settings


@pytest.mark.parametrize("kind", KINDS)
def test_every_entry_has_code_a_sentence_and_its_own_key(kind):
    for key, entry in KINDS[kind].entries.items():
        assert entry.key == key
        assert entry.title
        assert entry.sentence
        assert entry.load() is not None


@pytest.mark.parametrize("key", ATTACKS)
def test_options_of_attacks_are_those_of_their_signature(key):
    parameters = inspect.signature(ATTACKS[key].load()).parameters
    assert set(parameters) >= GIVEN - {"start"}
    for option in ATTACKS[key].options:
        default = parameters[option.name].default
        assert option.name in parameters, (key, option.name)
        default = next((name for name, loss in LOSSES.items() if loss is default), default)
        assert default == option.default, (key, option.name)


@pytest.mark.parametrize("key", MASK_RULES)
def test_options_of_mask_rules_are_those_of_their_signature_and_settings(key):
    entry = MASK_RULES[key]
    parameters = inspect.signature(entry.load()).parameters
    assert {option.name for option in entry.options} == set(parameters) - INNER
    assert ("source" in parameters) == entry.facts.needs_map
    keys = {name for name, _ in every_setting()}
    for option in entry.options:
        assert parameters[option.name].default == option.default
        assert f"mask.{option.setting or option.name}" in keys


def test_facts_are_those_of_the_code():
    for entry in METHODS.values():
        parameters = inspect.signature(entry.load()).parameters
        assert ("rule" in parameters) == entry.facts.attacked
        assert ("beta" in parameters) == entry.facts.robust_term
        assert ("targets" in parameters) == ("minimum-margin" in entry.facts.generations)
    for entry in DATA_SETS.values():
        for code in (entry.facts.folder, entry.facts.missing):
            assert not code or callable(load_code(code))
    assert {option for entry in MODELS.values() for option in entry.facts.options} <= {
        name.removeprefix("model.") for name, _ in every_setting()
    }
    assert all(callable(entry.load()) for entry in CONTROLS.values())


def test_suites_name_attacks_of_the_catalogue():
    for rows in SUITES.values():
        for row in rows:
            entry = ATTACKS[str(row.get("attack", "pgd"))]
            assert set(row) - {"attack"} <= set(entry.defaults)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_listed(kind, capsys):
    assert main(["list", kind]) == 0
    listed = capsys.readouterr().out
    for entry in KINDS[kind].entries.values():
        assert f"\n{entry.key}\n" in f"\n{listed}"
        for option in entry.options:
            assert f"      {option.name}" in listed


def test_an_unknown_name_is_answered_with_the_nearest_one():
    with pytest.raises(UserError, match=r"no attack is called 'pdg'. Did you mean 'pgd'\? Or name your own"):
        find("attacks", "pdg")
    with pytest.raises(UserError, match=r"no control is called 'uniforn'. Did you mean 'uniform'"):
        find("controls", "uniforn")


def test_the_catalogue_is_free_of_torch():
    import subprocess
    import sys
    from pathlib import Path

    source = Path(catalogue.__file__).parents[2]
    code = "import sys, counterpart.catalogue; sys.exit('torch' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=source, check=False).returncode == 0


def test_numbers_of_options_are_read_as_settings_are():
    [attack] = resolve({"evaluate": {"attacks": [{"attack": "pgd", "step_size": "2/255"}]}}).evaluate.attacks
    assert attack.options["step_size"] == 2 / 255
    for given, words in [
        ({"steps": 0}, "attack pgd: steps = 0: input should be greater than or equal to 1"),
        ({"loss": "hinge"}, "attack pgd: loss = hinge: input should be 'cross_entropy', 'margin'"),
        ({"attack": "single-staged", "share": 2}, "share = 2: input should be less than or equal to 1"),
        ({"attack": "square", "steps": 3}, "attack square has no steps. It has: queries"),
    ]:
        with pytest.raises(UserError, match=words):
            resolve({"evaluate": {"attacks": [given]}})


def test_the_reference_page_is_what_the_catalogue_says():
    page = Path(catalogue.__file__).parents[3] / "docs" / "reference.md"
    assert page.read_text(encoding="utf-8") == reference_page(), (
        "run: counterpart list --markdown > docs/reference.md"
    )


def test_every_attack_that_needs_no_parts_is_a_public_name():
    for entry in ATTACKS.values():
        name = entry.code.partition(":")[2]
        assert (name in counterpart.__all__) == (not entry.facts.of_parts), name
