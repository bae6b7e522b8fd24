"""Shared folders: what is in them, that they verify alone, and what verification notices."""

import importlib
import inspect
import json
import shutil
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch

import counterpart as cp
from counterpart import jobs
from counterpart.checksums import to_json
from counterpart.cli import main
from counterpart.data import digits
from counterpart.errors import UserError
from counterpart.jobs import hub_folders, sharing, stored_evaluations


@pytest.fixture(scope="module")
def original(master, tmp_path_factory):
    """A run with two evaluations, of one radius and of several."""
    run = tmp_path_factory.mktemp("original") / "digits"
    shutil.copytree(master.path, run)
    assert main(["evaluate", str(run), "--attacks", "pgd", "--n", "40"]) == 0
    assert main(["evaluate", str(run), "--attacks", "fgsm", "--n", "30", "--eps", "0.02,0.05"]) == 0
    return run


@pytest.fixture(scope="module")
def first(original, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared") / "model"
    cp.share(original, folder, licence="mit")
    return folder


@pytest.fixture
def folder(first, tmp_path):
    """A shared folder of one's own."""
    return Path(shutil.copytree(first, tmp_path / "elsewhere" / "model"))


@pytest.fixture
def no_data(monkeypatch):
    """The data set cannot be read."""

    def refuse(*given, **named):
        raise AssertionError("the data set was read")

    monkeypatch.setattr(digits, "load_digits", refuse)


def evaluations(folder):
    return sorted(path.parent.name for path in folder.glob("evaluations/*/identity.json"))


def test_a_shared_folder_verifies_alone(folder, original, no_data, capsys):
    assert main(["verify", str(folder)]) == 0
    told = capsys.readouterr().out
    assert told.count("on the folder's own copy of the images") == 2
    assert evaluations(folder) == evaluations(original)
    assert len(evaluations(folder)) == 2


def test_a_shared_folder_verifies_on_the_data_set_too(folder, capsys):
    """Digits come with a package and have no root; whatever root is given, the data set's own images are taken."""
    assert main(["verify", str(folder), "--data.root", str(folder)]) == 0
    assert "own copy" not in capsys.readouterr().out


def test_a_shared_model_is_the_model(folder, original, no_data):
    images = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(cp.load(folder)(images), cp.load(original)(images))
    about = json.loads((folder / "preprocessing.json").read_text())
    assert about["classes"] == [str(digit) for digit in range(10)]
    assert about["shape"] == ["batch", 1, 16, 16]
    tensors, _ = hub_weights(folder)
    assert not any(name.startswith("optimizer") for name in tensors)


def hub_weights(folder):
    from counterpart.models.hub import read_weights

    return read_weights(folder / "checkpoints" / "best.safetensors")


def test_the_card_says_what_was_measured(folder, original):
    card = (folder / "README.md").read_text()
    records = [json.loads(line) for line in (original / "records.jsonl").read_text().splitlines()]
    for name, n in (("worst case", 40), ("FGSM", 30), ("FGSM at 0.02", 30)):
        [record] = [r for r in records if r["name"] == f"accuracy/{name}" and r["n"] == n]
        low, high = record["interval"]
        assert f"| {name} | {record['value']:.2%} | {low:.2%} to {high:.2%} | {n} |" in card
    assert card.count("ledger `") == 2
    for title in (
        "Data",
        "Recipe",
        "Threat model",
        "Numbers",
        "Doubts",
        "Limits",
        "Licences",
        "Use",
        "How to verify",
    ):
        assert f"\n## {title}\n" in card
    assert 'license: "mit"' in card
    assert "Method: AT. Network: wrn-10-1. 3 epochs of batches of 30, seed 0." in card


def test_doubts_are_on_the_card(original, tmp_path):
    run = tmp_path / "doubted"
    shutil.copytree(original, run)
    lines = []
    for line in (run / "records.jsonl").read_text().splitlines():
        record = json.loads(line)
        record.pop("checksum")
        if record["name"] == "accuracy/clean":
            record["details"]["doubts"] = {"gradients": "they vanish on half of the images"}
        lines.append(to_json(record))
    (run / "records.jsonl").write_text("".join(f"{line}\n" for line in lines))
    cp.share(run, tmp_path / "model")
    assert "- gradients: they vanish on half of the images" in (tmp_path / "model" / "README.md").read_text()


def test_no_path_of_this_machine_goes_in(folder, original):
    """But what an identity holds, which names a ledger and cannot change."""
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".jsonl", ".yaml", ".md"):
            assert str(original.parent) not in path.read_text(), path
    assert sharing.without_places({"data": {"root": "/home/me/cifar"}, "model": "timm/resnet18"}) == {
        "data": {"root": "cifar"},
        "model": "timm/resnet18",
    }


def test_a_number_on_the_card_that_no_ledger_holds_is_noticed(folder, capsys):
    card = folder / "README.md"
    text = card.read_text()
    row = next(line for line in text.splitlines() if line.startswith("| worst case |"))
    card.write_text(f"My own words.\n\n{text}")  # which its owner may add
    assert main(["verify", str(folder)]) == 0
    card.write_text(text.replace(row, row.replace("| worst case | ", "| worst case | 9")))
    assert main(["verify", str(folder)]) != 0
    assert "does not say what the ledger" in capsys.readouterr().err
    added = "| AutoAttack | 99.00% | 98.00% to 100.00% | 40 |"
    card.write_text(text.replace(row, f"{row}\n{added}"))
    assert main(["verify", str(folder)]) != 0
    assert f"README.md says what no ledger says: '{added}'" in capsys.readouterr().err


def test_a_ledger_that_was_changed_after_it_was_shared_is_noticed(folder, capsys):
    """Both its rows and its checksum: the hash on the card and the list of files still tell."""
    name = evaluations(folder)[0]
    [unit] = list((folder / "evaluations" / name / "units").glob("clean-*.json"))
    content = json.loads(unit.read_text())
    content.pop("checksum")
    unit.write_text(to_json({**content, "seconds": content["seconds"] + 1}))
    assert main(["verify", str(folder)]) != 0
    told = capsys.readouterr().err
    assert f"evaluations/{name}/units/{unit.name} changed since it was shared" in told
    assert "it lacks" in told


def test_other_images_than_those_that_were_judged_are_noticed(folder, no_data, capsys):
    name = evaluations(folder)[0]
    file = folder / "evaluations" / name / stored_evaluations.PACKED
    from safetensors import safe_open

    from counterpart.checksums import load_tensors, save_tensors

    with safe_open(file, framework="pt") as opened:
        header = dict(opened.metadata())
    tensors = load_tensors(file)
    tensors["images"] = 255 - tensors["images"]
    save_tensors(tensors, file, {"judged": header["judged"]})
    assert main(["verify", str(folder)]) != 0
    assert "of its claims fail" in capsys.readouterr().err


def test_damaged_images_are_noticed(folder, capsys):
    file = folder / "evaluations" / evaluations(folder)[0] / stored_evaluations.PACKED
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert main(["verify", str(folder)]) != 0
    assert "does not fit its checksum" in capsys.readouterr().err


def test_a_folder_may_be_judged_anew(folder):
    """Its new evaluation is not on the card, and need not be."""
    assert main(["evaluate", str(folder), "--attacks", "fgsm", "--n", "20"]) == 0
    assert main(["verify", str(folder)]) == 0


def test_claims_that_fail_are_not_shared(original, tmp_path):
    run = tmp_path / "forged"
    shutil.copytree(original, run)
    unit = next((run / "evaluations").glob("*/units/clean-*.json"))
    content = json.loads(unit.read_text())
    content.pop("checksum")
    content["answers"] = [(answer + 1) % 10 for answer in content["answers"]]
    unit.write_text(to_json(content))
    with pytest.raises(UserError, match="of its claims fail"):
        cp.share(run, tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["forged"]


def test_evaluations_of_other_weights_are_left_out(original, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sharing, "weights_hash", lambda model: "other weights")
    shared = cp.share(original, tmp_path / "model")
    assert shared.evaluations == []
    assert len(shared.left_out) == 2
    assert "is of other weights" in capsys.readouterr().err
    assert "It was not evaluated" in (tmp_path / "model" / "README.md").read_text()


def test_ctrl_c_leaves_nothing(original, tmp_path, monkeypatch):
    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(sharing, "write_card", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cp.share(original, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_what_is_refused(original, here):
    (here / "there").mkdir()
    with pytest.raises(UserError, match="there exists: name a folder that does not"):
        cp.share(original, here / "there")
    with pytest.raises(UserError, match="expected hf://OWNER/NAME"):
        cp.share(original, "hf://alone")
    with pytest.raises(UserError, match="cannot be shared: its network"):
        cp.share("usernets:robust", here / "model", changes={"data.name": "digits"})


def test_a_model_of_the_hub_is_loaded_and_judged(folder, here, monkeypatch, capsys):
    asked, real = [], huggingface_hub.snapshot_download

    def fetched(name, **options):
        inspect.signature(real).bind(name, **options)
        asked.append((name, options))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    before = sorted(folder.rglob("*"))
    images = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(cp.load("hf://somebody/digits@main")(images), cp.load(folder)(images))
    assert asked == [("somebody/digits", {"revision": "main", "allow_patterns": list(hub_folders.FILES)})]
    [target] = jobs.open_targets("hf://somebody/digits", {"runs": str(here / "runs"), "name": "theirs"})
    assert target.run.path == here / "runs" / "theirs"
    assert target.classes == 10
    assert sorted(folder.rglob("*")) == before  # nothing is written into the client's cache


@pytest.fixture
def bundle(here, capsys):
    """An evaluation of a network of the user's own, whose code loads a module beside it, as a folder by itself."""
    (here / "beside_usernets.py").write_text("SCALE = 3.0\n")
    text = (here / "usernets.py").read_text()
    (here / "usernets.py").write_text(
        f"import beside_usernets\n{text}\ndef scaled():\n    return Answers(lambda z: z * beside_usernets.SCALE)\n"
    )
    assert (
        main(["evaluate", "usernets:scaled", "--data.name", "digits", "--attacks", "fgsm", "--n", "30"]) == 0
    )
    assert main(["verify", "runs/usernets-scaled", "--bundle", "bundled"]) == 0
    assert "bundled: it verifies alone" in capsys.readouterr().out
    shutil.rmtree(here / "runs")
    for name in ("usernets", "beside_usernets"):
        (here / f"{name}.py").unlink()
        sys.modules.pop(name)
    yield here / "bundled"
    for name in ("usernets", "beside_usernets"):
        sys.modules.pop(name, None)


def test_a_bundle_holds_the_code_that_a_judgement_needs(bundle, no_data, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(bundle.parent)])
    assert sorted(path.name for path in (bundle / "code").iterdir()) == ["beside_usernets.py", "usernets.py"]
    assert main(["verify", str(bundle)]) != 0  # it would run code
    assert "Read it, and then add --trust" in capsys.readouterr().err
    assert "usernets" not in sys.modules
    assert main(["verify", str(bundle), "--trust"]) == 0
    assert "on the folder's own copy of the images" in capsys.readouterr().out
    for place in (bundle, bundle / "checkpoints" / "best.safetensors"):
        with pytest.raises(UserError, match="which a file alone may not run"):
            cp.load(place)


def test_a_bundle_without_its_code_is_refused(bundle, capsys):
    shutil.rmtree(bundle / "code")
    assert main(["verify", str(bundle), "--trust"]) != 0
    assert "has no folder code, which should hold usernets:scaled" in capsys.readouterr().err


def test_the_weights_of_a_bundle_are_those_that_were_judged(bundle, capsys, monkeypatch):
    """Code that begins with other weights gets those of the folder."""
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(bundle.parent)])
    source = bundle / "code" / "usernets.py"
    source.write_text(source.read_text().replace("manual_seed(0)", "manual_seed(1)"))
    assert main(["verify", str(bundle), "--trust"]) != 0
    told = capsys.readouterr()
    assert "31 of 31 claims hold" in told.out
    assert "code/usernets.py changed since it was shared" in told.err


def test_other_code_under_the_same_name_does_not_run(bundle, capsys):
    (bundle.parent / "usernets.py").write_text("def scaled():\n    raise AssertionError('the wrong code')\n")
    importlib.invalidate_caches()
    importlib.import_module("usernets")
    assert main(["verify", str(bundle), "--trust"]) != 0
    assert "another module usernets is loaded already" in capsys.readouterr().err
