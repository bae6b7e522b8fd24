"""Sweeps from the first trial to the recipes of the front, killed and continued, shared and pruned."""

import signal
import sys
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import torch
from optuna.trial import TrialState

from counterpart import recipes
from counterpart.build import data_and_model
from counterpart.cli import main
from counterpart.config import identity, plain, resolve
from counterpart.errors import UserError
from counterpart.jobs import training
from counterpart.rundir import RunDir
from counterpart.sweeps import pruning, study, worker

from .conftest import end_after_an_epoch, epochs_of, start, weights

RATES = {"optimizer.lr": [0.05, 0.2]}
TWO = {**RATES, "data.flip": [False, True]}


def equal(first, second):
    first, second = weights(first), weights(second)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_every_point_of_a_grid_is_trained_once_and_its_validation_accuracies_are_those_of_its_run(swept):
    result = swept(TWO)
    points = {tuple(trial.settings.values()) for trial in result.trials}
    assert points == {("0.05", "false"), ("0.05", "true"), ("0.2", "false"), ("0.2", "true")}
    for trial in result.trials:
        run = RunDir(trial.path)
        config = run.config()
        assert str(config["optimizer"]["lr"]) == trial.settings["optimizer.lr"]
        assert config["data"]["flip"] == (trial.settings["data.flip"] == "true")
        best = {record.name: record.value for record in training.best_validation(run)}
        assert (trial.natural, trial.robust) == (best["validation_clean"], best["validation_robust"])
        assert (trial.state, trial.epochs, trial.n) == ("trained", 2, 40)
    assert result.best is result.front[0]
    assert result.best.robust == max(trial.robust for trial in result.trials)
    again = swept(TWO)
    assert again == result
    assert all(epochs_of(trial.path) == [0, 1] for trial in again.trials)  # nothing was trained again


def test_the_command_ends_in_a_table_a_plot_and_recipes_that_train_as_they_are(
    small, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rates.yaml").write_text("optimizer.lr: [0.05, 0.2]")
    assert main(["sweep", "small.yaml", "--space", "rates.yaml"]) == 0
    out = capsys.readouterr().out
    folder = Path("runs/small-rates")
    assert "trial-0000" in out
    assert "optimizer." in out
    assert (folder / "tradeoff.png").read_bytes().startswith(b"\x89PNG")
    files = sorted((folder / "recipes").iterdir())
    assert f"Next: counterpart evaluate {folder}/trial-" in out
    assert main(["train", str(files[0])]) == 0
    trial = folder / files[0].stem
    assert equal(trial, f"runs/small-rates-{files[0].stem}")
    assert main(["report", str(folder / "trial-0000"), str(folder / "trial-0001")]) == 0


def test_a_sweep_never_reads_the_test_images(swept, configure, monkeypatch):
    """The test images are files that do not exist. Training alone compares its images with them, and fails."""
    load = data_and_model.load_named

    def without_test_files(config, options):
        splits = load(config, options)
        files = tuple(Path(f"/nowhere/{i}.png") for i in range(len(splits.train) + len(splits.test)))
        test = replace(splits.test, name="folder", pixels=None, files=files)
        return replace(splits, test=test, train=replace(splits.train, files=files))

    monkeypatch.setattr(data_and_model, "load_named", without_test_files)
    monkeypatch.setattr("counterpart.build.load_named", without_test_files)
    with pytest.raises(FileNotFoundError, match="/nowhere"):
        training.train(configure(name="alone"))
    given = []
    train = training.train
    monkeypatch.setattr(
        training, "train", lambda *args, **named: given.append(named["data"]) or train(*args, **named)
    )
    result = swept(RATES, prune=True)
    assert [trial.state for trial in result.trials] == ["trained", "trained"]
    assert [len(splits.test) for splits in given] == [0, 0]
    assert all(len(splits.validation) > 0 for splits in given)


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_trial_that_was_killed_is_taken_up_and_ends_as_if_it_had_not_been(
    small, tmp_path, monkeypatch, swept, how
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text("optimizer.lr: [0.05, 0.2]")
    words = ["small.yaml", "--space", "space.yaml", "--train.epochs", "4"]
    run = RunDir(tmp_path / "runs" / "small-space" / "trial-0000")
    code = end_after_an_epoch(start(words, tmp_path), run, how)
    assert code == (-signal.SIGKILL if how == signal.SIGKILL else 130)
    state = state_of("small-space", 0)
    assert state == (TrialState.RUNNING if how == signal.SIGKILL else TrialState.WAITING)
    reached = len(epochs_of(run.path))
    assert 1 <= reached < 4
    trained = []
    train = training.train
    monkeypatch.setattr(
        training, "train", lambda config, *a, **k: trained.append(config.name) or train(config, *a, **k)
    )
    assert main(["sweep", *words]) == 0
    assert trained == ["small-space/trial-0000", "small-space/trial-0001"]
    assert main(["sweep", *words, "--name", "undisturbed"]) == 0
    for name in ("trial-0000", "trial-0001"):
        assert equal(tmp_path / "runs" / "small-space" / name, tmp_path / "runs" / "undisturbed" / name)
    first, second = (studied(name) for name in ("small-space", "undisturbed"))
    assert [(t.params, t.value, t.intermediate_values, t.user_attrs["naturals"]) for t in first] == [
        (t.params, t.value, t.intermediate_values, t.user_attrs["naturals"]) for t in second
    ]


def studied(name, runs=Path("runs")):
    backend = optuna.storages.journal.JournalFileBackend(str(runs / name / "journal.jsonl"))
    return optuna.load_study(study_name=name, storage=optuna.storages.JournalStorage(backend)).trials


def state_of(name, number):
    return studied(name)[number].state


@pytest.mark.slow
def test_workers_at_once_train_every_point_once(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text("optimizer.lr: [0.01, 0.02, 0.05, 0.1, 0.2, 0.3]")
    words = ["small.yaml", "--space", "space.yaml"]
    workers = [start(words, tmp_path) for _ in range(3)]
    assert [worker.wait(300) for worker in workers] == [0, 0, 0]
    trials = studied("small-space")
    assert sorted(trial.params["optimizer.lr"] for trial in trials) == [
        "0.01",
        "0.02",
        "0.05",
        "0.1",
        "0.2",
        "0.3",
    ]
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert len({trial.user_attrs["worker"]["pid"] for trial in trials}) > 1
    for trial in trials:
        assert epochs_of(f"runs/small-space/trial-{trial.number:04}") == [0, 1]


def test_a_search_over_ranges_depends_on_the_seed_and_no_point_comes_twice(swept):
    space = {
        "optimizer.lr": {"low": 0.01, "high": 0.3, "log": True},
        "train.batch_size": {"low": 20, "high": 60},
    }
    short = {"train": {"epochs": 1}}
    first = swept(space, 3, short, name="a")
    assert len({trial.settings["optimizer.lr"] for trial in first.trials}) == 3
    for trial in first.trials:
        assert 0.01 <= float(trial.settings["optimizer.lr"]) <= 0.3
        assert 20 <= int(trial.settings["train.batch_size"]) <= 60
    assert [t.settings for t in swept(space, 2, short, name="b").trials] == [
        t.settings for t in first.trials[:2]
    ]
    other = swept(space, 1, short, {"seed": 1}, name="c")
    assert other.trials[0].settings != first.trials[0].settings
    assert len(swept(space, 4, short, name="a").trials) == 4  # more trials of the same study


def test_another_space_recipe_or_data_set_is_refused(swept, monkeypatch):
    swept(RATES, 1)
    with pytest.raises(
        UserError, match=r"is another one \(space.optimizer.lr: 0.05, 0.2 there, 0.05, 0.3 now\)"
    ):
        swept({"optimizer.lr": [0.05, 0.3]})
    with pytest.raises(UserError, match=r"is another one \(train.epochs: 2 there, 3 now\)"):
        swept(RATES, None, {"train": {"epochs": 3}})
    load = data_and_model.load_named

    def others(config, options):
        return load(config, options).each(lambda images: replace(images, fingerprint="of others"))

    monkeypatch.setattr("counterpart.build.load_named", others)
    with pytest.raises(UserError, match=r"images: .* there, of others now"):
        swept(RATES)


def test_a_trial_that_diverges_fails_with_its_reason_and_the_others_go_on(swept, caplog):
    result = swept({"optimizer.lr": [0.05, 1e30]})
    by_rate = {trial.settings["optimizer.lr"]: trial for trial in result.trials}
    assert by_rate["0.05"].state == "trained"
    failed = by_rate["1e+30"]
    assert failed.state == "failed"
    assert "finite" in failed.why
    assert failed not in result.front
    assert swept({"optimizer.lr": [0.05, 1e30]}).trials == result.trials  # and is not tried again


def test_an_error_of_the_machine_names_the_trial_and_lets_it_wait(swept, monkeypatch):
    def full(*args, **named):
        raise UserError("Could not write: no space on the disk.")

    with monkeypatch.context() as patched:
        patched.setattr(training, "train", full)
        with pytest.raises(UserError, match="trial-0000: Could not write"):
            swept(RATES)
    assert [trial.state for trial in swept(RATES).trials] == ["trained", "trained"]


def test_time_that_is_up_leaves_a_trial_waiting(swept):
    result = swept(RATES, None, {"train": {"stop_after": 0.01}})
    assert {trial.state for trial in result.trials} <= {"waiting"}
    assert result.best is None
    assert [trial.state for trial in swept(RATES).trials] == ["trained", "trained"]


def test_the_command_says_what_is_not_over(small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rates.yaml").write_text("optimizer.lr: [0.05, 0.2]")
    words = ["sweep", "small.yaml", "--space", "rates.yaml", "--train.stop-after", "1e-9"]
    assert main(words) == 0  # there is no time for any trial
    assert capsys.readouterr().out.endswith("\nNo trial has been trained to its end yet.\n")
    with monkeypatch.context() as patched:
        patched.setattr(training, "train", lambda *given, **named: exec("raise KeyboardInterrupt"))
        assert main(words[:-2]) == 130
    assert "The same command continues" in capsys.readouterr().err
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "Not over: trial-0000. The same command goes on with what waits." in out
    assert "No trial has been trained to its end yet." in out


@pytest.mark.parametrize("where", ["ask", "tell"])
def test_a_full_disk_below_the_journal_is_one_line_and_the_same_command_goes_on(swept, monkeypatch, where):
    def full(*given, **named):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(optuna.Study, where, full)
        with pytest.raises(UserError, match=r"journal.jsonl cannot be reached: .*No space left on device"):
            swept(RATES, 1)
    assert [trial.state for trial in swept(RATES, 1).trials] == ["trained"]


def test_a_hopeless_trial_ends_early_and_stays_as_it_ended(swept, monkeypatch):
    asked = []

    def is_hopeless(shared, trial, epoch):
        asked.append((trial.number, epoch))
        return trial.number == 1

    monkeypatch.setattr(worker, "is_hopeless", is_hopeless)
    spared = swept(RATES, name="spared")
    assert [trial.state for trial in spared.trials] == ["trained", "trained"]
    assert asked == []
    result = swept(RATES, prune=True)
    pruned = result.trials[1]
    assert [trial.state for trial in result.trials] == ["trained", "pruned"]
    assert asked == [(0, 0), (1, 0)]  # after the last epoch there is nothing to save
    assert pruned.epochs == 1
    assert epochs_of(pruned.path) == [0]
    assert result.front == (result.trials[0],)
    [record] = [r for r in RunDir(pruned.path).records() if r.kind == "epoch"]
    accuracies = (record.details["validation_clean"], record.details["validation_robust"])
    assert (pruned.natural, pruned.robust) == accuracies
    assert str(result).rstrip().endswith("pruned")
    assert swept(RATES, prune=True) == result


@pytest.mark.parametrize(
    ("natural", "robust", "hopeless"),
    [(0.1, 0.1, True), (0.9, 0.1, False), (0.1, 0.9, False), (0.9, 0.9, False), (0.5, 0.1, False)],
)
def test_pruned_is_what_lies_below_the_median_in_both_accuracies(
    configure, tmp_path, natural, robust, hopeless
):
    with study.open_study("s", tmp_path, None, {}) as shared:
        shared.study.pruner = pruning.make_pruner(configure({"train": {"epochs": 10}}))
        for value in (0.3, 0.4, 0.5, 0.6, 0.7):
            other = shared.study.ask()
            for epoch in range(5):
                study.report(shared, other, epoch, value, value)
            shared.study.tell(other, value)
        trial = shared.study.ask()
        for epoch in range(3):
            study.report(shared, trial, epoch, natural, robust)
            assert pruning.is_hopeless(shared, trial, epoch) == (hopeless and epoch >= 2)


def test_no_trial_is_pruned_before_its_attack_is_whole(configure):
    slow = configure({"train": {"clean_epochs": 3, "epochs": 20}, "attack": {"eps_warmup": 7}})
    assert pruning.make_pruner(slow)._n_warmup_steps == 10


def test_torchrun_and_a_missing_optuna_are_refused_in_a_sentence(swept, monkeypatch):
    with monkeypatch.context() as patched:
        for name, value in {
            "WORLD_SIZE": "2",
            "RANK": "0",
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": "1",
        }.items():
            patched.setenv(name, value)
        with pytest.raises(UserError, match="start several workers instead"):
            swept(RATES)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'counterpart\[sweep\]'"):
        swept(RATES)


def test_a_recipe_of_the_front_is_the_configuration_of_its_trial(swept, configure):
    result = swept({"train.ema": [None, 0.5]})
    for trial, file in zip(result.front, result.recipes, strict=True):
        written, run = resolve(recipes.load(str(file))), RunDir(trial.path)
        assert identity(plain(written)) == identity(run.config())
        assert file.read_text().startswith(f"# {trial.name} of the sweep swept: train.ema")
