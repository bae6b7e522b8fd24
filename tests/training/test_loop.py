import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from counterpart import build, jobs
from counterpart.config import plain
from counterpart.errors import UserError
from counterpart.objectives import standard
from counterpart.rundir import RunDir
from counterpart.training import checkpoint, failures, step
from counterpart.training.epochs import phase_at, steps_of_epoch
from counterpart.training.step import Phase

SOURCE = str(Path(__file__).parents[2] / "src")


def last_weights(run):
    tensors, _ = checkpoint.read(run.checkpoint("last"))
    return {
        name: value
        for name, value in tensors.items()
        if name.startswith(("model.", "optimizer.", "ema.", "maps"))
    }


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def epochs_of(run):
    return [r.details for r in run.records() if r.kind == "epoch"]


def test_a_run_leaves_everything_that_is_promised(tiny):
    config = tiny()
    trained = jobs.train(config)
    assert trained.finished
    rows = epochs_of(trained.run)
    assert [r["epoch"] for r in rows] == [0, 1, 2]
    assert [r["phase"] for r in rows] == ["burn-in", "part", "part"]
    assert rows[0]["mean_radius"] == pytest.approx(0.1, rel=1e-5)
    assert all(0.05 < r["mean_radius"] < 0.1 for r in rows[1:])
    assert "flat_maps" not in rows[0]
    assert all(r["flat_maps"] >= 0 for r in rows[1:])
    assert {f.name for f in trained.run.path.iterdir()} == {
        "config.yaml", "environment.json", "records.jsonl", "progress.log", "checkpoints",
    }  # fmt: skip
    best, about = checkpoint.read(trained.run.checkpoint("best"))
    assert about["classes"] == [str(d) for d in range(10)]
    assert about["epoch"] in (1, 2)  # the best of the last phase, never of the burn-in
    assert about["fingerprint"]
    assert "backbone.fc.weight" in best


def test_the_loss_falls_and_weights_move(tiny):
    run = jobs.train(tiny(train={"epochs": 8, "method": "clean"}, data={"limit": 300})).run
    losses = [r["loss"] for r in epochs_of(run)]
    assert losses[-1] < 0.7 * losses[0]
    assert epochs_of(run)[-1]["validation_clean"] > 0.2


def test_equal_radii_train_the_weights_of_at_bit_for_bit(tiny):
    at = jobs.train(tiny(name="at", train={"method": "at"})).run
    part = jobs.train(tiny(name="part", mask={"eps_low": 0.1})).run
    low = jobs.train(tiny(name="low", mask={"eps_low": 0.01})).run
    assert_same(last_weights(at), last_weights(part))
    with pytest.raises(AssertionError):
        assert_same(last_weights(at), last_weights(low))


@pytest.mark.parametrize("method", ["at", "trades", "mart", "part"])
def test_the_radius_grows_over_the_first_attacked_epochs(tiny, method):
    """In steps 0, 1/6, ..., 5/6 of two epochs after the clean one, and whole in the third."""
    config = tiny(
        train={"method": method, "clean_epochs": 1}, attack={"eps_warmup": 2}, mask={"eps_low": 0.1}
    )
    rows = epochs_of(jobs.train(config).run)
    assert "mean_radius" not in rows[0]
    radii = [row["mean_radius"] for row in rows[1:]]
    assert radii == pytest.approx([0.1 * (0 + 1 + 2) / 18, 0.1 * (3 + 4 + 5) / 18, 0.1], rel=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "train": {"ema": 0.9, "precision": "bf16", "awp": 0.01, "awp_warmup": 1},
            "optimizer": {"clip_norm": 1.0, "schedule": "cosine"},
        },
        {"mask": {"refresh_epochs": 2}},
        {"attack": {"eps_warmup": 1.5}},
        {"optimizer": {"name": "adamw", "lr": 1e-3, "warmup_steps": 5, "encoder_scale": 0.2}},
    ],
    ids=["plain", "ema, bf16, weight perturbation, clipping", "stored maps", "a radius that grows", "adamw"],
)
def test_stopping_anywhere_changes_nothing(tiny, changes):
    """Time runs out after every single step."""
    whole = jobs.train(tiny(name="whole", **changes)).run
    pieces, starts = tiny(name="pieces", **changes), 0
    stopping = pieces.model_copy(update={"train": pieces.train.model_copy(update={"stop_after": 1e-9})})
    while not (trained := jobs.train(stopping)).finished:
        starts += 1
        assert starts < 20
    assert starts >= 8  # nine steps in all
    assert_same(last_weights(whole), last_weights(trained.run))
    for first, second in zip(epochs_of(whole), epochs_of(trained.run), strict=True):
        for name in ("loss", "accuracy", "validation_clean", "validation_robust"):
            assert first[name] == pytest.approx(second[name], rel=1e-6)
    assert jobs.train(pieces).finished  # once more does nothing
    assert len(epochs_of(trained.run)) == 3


def start(config, *arguments):
    """A real process, so that it can really be killed."""
    code = "import json, sys; from counterpart import jobs; from counterpart.config import resolve;"
    code += "import torch; torch.set_num_threads(1); jobs.train(resolve(json.loads(sys.argv[1])))"
    command = [sys.executable, *arguments, "-c", code, json.dumps(plain(config))]
    return subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": SOURCE}, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(tiny):
    slow = {"data": {"limit": 600}, "train": {"epochs": 4, "checkpoint_every": 0.01}}
    whole = jobs.train(tiny(name="whole", **slow)).run
    config = tiny(name="killed", **slow)
    run = RunDir(config.runs / "killed")
    process = start(config)
    while process.poll() is None and len(epochs_of(run) if run.records_file.exists() else []) < 2:
        time.sleep(0.005)
    time.sleep(0.05)  # somewhere in the third epoch
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert checkpoint.read(run.checkpoint("last"))[1]["state"]["epoch"] < 4
    (run.path / "checkpoints" / f".last.safetensors.{process.pid}").write_bytes(b"half")  # killed in a write
    assert jobs.train(config).finished
    assert not list((run.path / "checkpoints").glob(".*"))
    assert_same(last_weights(whole), last_weights(run))
    assert [r["epoch"] for r in epochs_of(run)] == [0, 1, 2, 3]


@pytest.mark.slow
def test_ctrl_c_writes_a_checkpoint(tiny):
    config = tiny(data={"limit": 600}, train={"epochs": 200, "checkpoint_every": 1000})
    run = RunDir(config.runs / "tiny")
    process = start(config)
    while process.poll() is None and not run.checkpoint("last").exists():
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    state = checkpoint.read(run.checkpoint("last"))[1]["state"]
    assert 0 < state["epoch"] < 200
    assert "Stopped at" in (run.path / "progress.log").read_text()


@pytest.mark.slow
def test_two_processes_train_like_one(tiny, tmp_path):
    """At a learning rate so small that rounding, which turns the sign of a gradient near zero, does not add up."""
    config = tiny(name="two", train={"epochs": 1, "method": "at"}, optimizer={"lr": 1e-4})
    script = tmp_path / "run.py"
    script.write_text(
        "import json, sys; from counterpart import jobs, distributed; from counterpart.config import resolve\n"
        "import torch; torch.set_num_threads(1)\n"
        "jobs.train(resolve(json.loads(sys.argv[1])))\n"
        "jobs.evaluate(str(sys.argv[2]), {'evaluate': {'n': 50, 'batch_size': 20}})\n"
        "distributed.stop()\n"
    )
    run = config.runs / "two"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script),
         json.dumps(plain(config)), str(run)],
        env={**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one = jobs.train(tiny(name="one", train={"epochs": 1, "method": "at"}, optimizer={"lr": 1e-4})).run
    [first], [second] = epochs_of(one), epochs_of(RunDir(run))
    assert first["loss"] == pytest.approx(second["loss"], rel=0.05)
    ours, theirs = last_weights(one), last_weights(RunDir(run))
    for name, value in ours.items():
        if name.endswith("weight"):
            torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-3)
    clean = next(r for r in RunDir(run).records() if r.name == "accuracy/clean")
    assert clean.n == 50
    assert (RunDir(run).path / "evaluations").exists()


RESUMED = """
import json, sys
import torch
torch.set_num_threads(1)
from counterpart import distributed, jobs
from counterpart.config import resolve
for settings in sys.argv[1:]:
    while not jobs.train(resolve(json.loads(settings))).finished:
        pass
distributed.stop()
"""


@pytest.mark.slow
def test_two_processes_that_stop_anywhere_keep_the_sums_of_the_epoch(tiny, tmp_path):
    """Each start restores the sums over both processes on the main one alone, or they would count twice."""
    script = tmp_path / "run.py"
    script.write_text(RESUMED)
    whole, pieces = tiny(name="whole"), tiny(name="pieces", train={"stop_after": 1e-9})
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script),
         json.dumps(plain(whole)), json.dumps(plain(pieces))],
        env={**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = RunDir(whole.runs / "whole"), RunDir(pieces.runs / "pieces")
    assert "Continuing pieces" in done.stdout
    assert_same(last_weights(first), last_weights(second))
    for one, other in zip(epochs_of(first), epochs_of(second), strict=True):
        for name in ("loss", "accuracy", "mean_radius", "validation_clean", "validation_robust"):
            assert one.get(name) == pytest.approx(other.get(name), rel=1e-6), name
        assert one.get("flat_maps") == other.get("flat_maps")


def replace_pass(monkeypatch, run):
    for module in (failures, step):
        monkeypatch.setattr(module, "one_pass", run)


def failing_after(steps, make_error):
    """The real pass for some steps, then something else."""
    real, seen = step.one_pass, []

    def run(*arguments):
        seen.append(1)
        perturbed, loss = real(*arguments)
        return make_error(perturbed, loss) if len(seen) > steps else (perturbed, loss)

    return run


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tiny, monkeypatch):
    def broken(perturbed, loss):
        return perturbed, replace(loss, total=loss.total * math.nan)

    config = tiny()
    replace_pass(monkeypatch, failing_after(4, broken))
    with pytest.raises(UserError, match=r"not finite \(loss nan\) at epoch 2, step 2"):
        jobs.train(config)
    state = checkpoint.read(RunDir(config.runs / "tiny").checkpoint("last"))[1]["state"]
    assert (state["epoch"], state["step"]) == (1, 0)


def test_divergence_in_the_last_step_of_an_epoch_is_an_error_for_the_user(tiny, capsys):
    """No further loss is computed: it is validation that meets the weights."""
    config = tiny(train={"batch_size": 96, "method": "clean"}, optimizer={"lr": 1e30})
    with pytest.raises(UserError, match=r"not finite at epoch 1, step 1\. No checkpoint .* optimizer\.lr"):
        jobs.train(config)
    assert not RunDir(config.runs / "tiny").checkpoint("last").exists()


def test_time_is_for_all_seeds_together(tiny, monkeypatch):
    given = []

    def train(config, deadline):
        given.append((config.name, deadline))
        return jobs.Trained(RunDir(config.runs / config.name), len(given) < 3)

    monkeypatch.setattr("counterpart.jobs.training.train", train)
    before = time.monotonic()
    jobs.train_seeds(tiny(train={"stop_after": "9m"}), [0, 1, 2])
    names, deadlines = zip(*given, strict=True)
    assert names == ("tiny/seed-0", "tiny/seed-1", "tiny/seed-2")
    assert len(set(deadlines)) == 1
    assert before + 540 <= deadlines[0] <= time.monotonic() + 540


def test_a_gradient_that_is_not_finite_stops_as_well(tiny, monkeypatch):
    def broken(perturbed, loss):
        return perturbed, replace(loss, total=loss.total + (loss.total - loss.total.detach()).sqrt() * 0)

    replace_pass(monkeypatch, failing_after(0, broken))
    with pytest.raises(UserError, match="not finite"):
        jobs.train(tiny())


def test_out_of_memory_names_the_batch_size_that_fits(tiny, monkeypatch):
    real = step.one_pass

    def greedy(batch, *rest):
        if len(batch) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return real(batch, *rest)

    replace_pass(monkeypatch, greedy)
    with pytest.raises(UserError, match=r"Out of memory with batches of 32: --train.batch-size 8 fits"):
        jobs.train(tiny())


def test_other_errors_are_not_taken_for_lack_of_memory(tiny, monkeypatch):
    def broken(perturbed, loss):
        raise RuntimeError("something else")

    replace_pass(monkeypatch, failing_after(0, broken))
    with pytest.raises(RuntimeError, match="something else"):
        jobs.train(tiny())


def test_a_full_disk_keeps_the_old_checkpoint(tiny, monkeypatch):
    config = tiny()
    real, saves = checkpoint.save_tensors, []

    def full(tensors, path, header):
        saves.append(path)
        if len(saves) > 3:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(tensors, path, header)

    monkeypatch.setattr(checkpoint, "save_tensors", full)
    with pytest.raises(UserError, match=r"No space left on device.*previous file is untouched"):
        jobs.train(config)
    run = RunDir(config.runs / "tiny")
    assert sorted(f.name for f in (run.path / "checkpoints").iterdir()) == [
        "best.safetensors",
        "last.safetensors",
    ]
    checkpoint.read(run.checkpoint("last"))
    monkeypatch.setattr(checkpoint, "save_tensors", real)
    assert jobs.train(config).finished


def test_another_configuration_is_refused_in_the_same_folder(tiny):
    jobs.train(tiny(train={"epochs": 1}))
    with pytest.raises(UserError, match=r"optimizer.lr: 0.1 there, 0.2 now"):
        jobs.train(tiny(train={"epochs": 1}, optimizer={"lr": 0.2}))
    assert jobs.train(tiny(train={"epochs": 1, "stop_after": "9m"}, evaluate={"n": 7})).finished


def test_a_foreign_or_broken_checkpoint_is_refused(tiny):
    config = tiny(train={"epochs": 1})
    run = jobs.train(config).run
    content = run.checkpoint("last").read_bytes()
    run.checkpoint("last").write_bytes(content[:1000])
    with pytest.raises(UserError, match=r"last\.safetensors is damaged or no safetensors file"):
        jobs.train(config)
    other = jobs.train(tiny(name="other", train={"epochs": 1}, model={"width": 8})).run
    about = checkpoint.read(other.checkpoint("last"))[1]
    run.checkpoint("last").write_bytes(other.checkpoint("last").read_bytes())
    with pytest.raises(UserError, match=rf"something else \(settings {about['config']} there, \w+ now\)"):
        jobs.train(config)
    run.checkpoint("last").write_bytes(content)
    about = checkpoint.read(run.checkpoint("last"))[1]
    checkpoint._write(run.checkpoint("last"), checkpoint.read(other.checkpoint("last"))[0], about)
    with pytest.raises(UserError, match="does not belong to this run"):
        jobs.train(config)


def test_a_model_without_maps_is_refused_before_anything_is_written(tiny):
    config = tiny(model={"name": "timm/vit_tiny_patch16_224", "width": None}, data={"size": 32})
    with pytest.raises(UserError, match="method part cannot draw"):
        jobs.train(config)
    assert not (config.runs / "tiny").exists()


def test_a_run_does_not_continue_on_other_data(tiny):
    config = tiny(train={"epochs": 2, "stop_after": 1e-9})
    assert not jobs.train(config).finished
    real = build.load_splits

    def other(*arguments, **options):
        data = real(*arguments, **options)
        return replace(data, train=replace(data.train, fingerprint="0" * 12))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "load_splits", other)
        with pytest.raises(UserError, match=r"something else \(data .* there, 0{12} now\)"):
            jobs.train(config)


def test_batches_too_small_for_batch_norm_are_refused(tiny):
    with pytest.raises(UserError, match="at least 2"):
        jobs.train(tiny(train={"batch_size": 1}))


def test_seeds_differ_and_are_aggregated(tiny):
    trained = jobs.train_seeds(tiny(train={"epochs": 1}), [0, 1])
    assert [t.run.path.name for t in trained] == ["seed-0", "seed-1"]
    with pytest.raises(AssertionError):
        assert_same(*(last_weights(t.run) for t in trained))
    group = RunDir(trained[0].run.path.parent)
    robust = next(r for r in group.records() if r.name == "mean over seeds/validation_robust")
    values = [epochs_of(t.run)[0]["validation_robust"] for t in trained]
    assert robust.value == pytest.approx(sum(values) / 2)
    assert robust.n == 2
    assert robust.details["fingerprint"] == epochs_of(trained[0].run)[0]["fingerprint"]
    jobs.train_seeds(tiny(train={"epochs": 1}), [0, 1])
    assert len(group.records()) == 2  # the same lines are not kept twice
    jobs.evaluate(str(group.path), {"evaluate": {"n": 20}})
    assert any(r.name == "mean over seeds/accuracy/worst case" for r in group.records())


def test_phases_are_shares_of_the_epochs(tiny):
    def split(**changes):
        return [(p.name, p.epochs) for p in build.build_phases(tiny(**changes))]

    assert split(train={"epochs": 80}, mask={"burn_in": 0.25}) == [("burn-in", 20), ("part", 60)]
    assert split(train={"epochs": 2}, mask={"burn_in": 0.25}) == [("burn-in", 1), ("part", 1)]
    assert split(train={"epochs": 2}, mask={"burn_in": 0.9}) == [("burn-in", 1), ("part", 1)]
    assert split(train={"epochs": 1}, mask={"burn_in": 0.9}) == [("burn-in", 1)]
    assert split(mask={"burn_in": 0}) == [("part", 3)]
    assert split(mask={"burn_in": 1}) == [("burn-in", 3)]
    assert split(train={"method": "at"}) == [("adversarial", 3)]
    assert split(train={"method": "clean"}) == [("clean", 3)]


def test_phase_at_and_last_batches():
    phases = [Phase("a", 2, standard()), Phase("b", 3, standard())]
    assert [phase_at(phases, e) for e in range(5)] == [(0, 0), (0, 0), (1, 2), (1, 2), (1, 2)]
    assert [steps_of_epoch(n, 32) for n in (64, 65, 66, 32)] == [2, 2, 3, 1]
