"""The front door: what is said, with which exit code, and what is not imported before it is needed."""

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import counterpart
from counterpart import cli, jobs, silence
from counterpart.cli import COMMANDS, main
from counterpart.errors import UserError
from counterpart.jobs import Judged, Prediction, Trained
from counterpart.rundir import RunDir

SOURCE = Path(counterpart.__file__).parents[1]


@pytest.fixture
def calls(monkeypatch):
    """What the commands ask of ``jobs``; nothing is trained here."""
    made = SimpleNamespace(train=[], train_seeds=[], evaluate=[], predict=[], finished=True)

    def train(config):
        made.train.append(config)
        return Trained(RunDir(config.runs / config.name), made.finished)

    def train_seeds(config, seeds):
        made.train_seeds.append((config, seeds))
        return [Trained(RunDir(config.runs / config.name / f"seed-{seed}"), made.finished) for seed in seeds]

    def evaluate(target, changes, trust):
        made.evaluate.append((target, changes))
        made.trust = trust
        return [Judged(RunDir(Path(target)), [])]

    def predict_and_draw(target, images, *, device, size, folder, layer):
        made.predict.append((target, images, device, size, folder, layer))
        return [Prediction(images[0], "cat, tabby", 0.75)]

    for function in (train, train_seeds, evaluate):
        monkeypatch.setattr(jobs, function.__name__, function)
    monkeypatch.setattr("counterpart.api.explained_files.predict_and_draw", predict_and_draw)
    return made


def error_of(words, capsys):
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("counterpart: error: ")
    return line


@pytest.mark.parametrize("words", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_help_needs_no_torch(words):
    code = (
        "import sys\nfrom counterpart.cli import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit as done:\n    assert done.code == 0\n"
        "heavy = {'torch', 'numpy', 'timm', 'matplotlib', 'rich', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SOURCE, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ("counterpart 0." if words == ["--version"] else "usage: counterpart") in done.stdout


def test_train_help_lists_every_setting(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    assert [key for key in COMMANDS["train"].SETTINGS if f"--{key.replace('_', '-')}" not in text] == []
    assert "--train.stop-after" in text


def test_python_m_counterpart_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "counterpart", "trian"],
        cwd=SOURCE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "counterpart: error: unknown command 'trian'. Did you mean 'train'?\n"


def test_without_a_command_there_is_help(capsys):
    assert main([]) == 2
    assert "usage: counterpart" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "required: RECIPE. See: counterpart train --help"),
        (["train", "cifar10/prt"], "Did you mean 'cifar10/part'?"),
        (["train", "digits/at", "more"], "unexpected argument 'more'"),
        (["train", "digits/at", "--epochs", "3"], "unknown setting --epochs. Did you mean 'train.epochs'?"),
        (["train", "digits/at", "--attack.eps", "8"], "digits/at: attack.eps 8 exceeds"),
        (["train", "digits/at", "--seeds", "0,x"], "--seeds '0,x' must be whole numbers"),
        (["evaluate", "r", "--train.epochs", "3"], "--train.epochs has no effect here"),
        (["evaluate", "r", "--attack.eps", "0.1"], "Did you mean --evaluate.eps?"),
        (["evaluate", "r", "--model.init", "w.pt"], "--model.init has no effect on a run folder"),
        (["demo", "--ful"], "unknown setting --ful"),
        (["report"], "required: RUN"),
        (["recipes", "shw"], "invalid choice"),
        (["recipes", "list", "--train.epochs", "3"], "unexpected argument '--train.epochs'"),
        (["predict", "r", "i.png", "--device", "gpu"], "invalid choice: 'gpu'"),
    ],
)
def test_mistakes_are_answered_in_one_line(words, message, calls, capsys):
    assert message in error_of(words, capsys)
    assert calls.train == calls.train_seeds == calls.evaluate == []


def test_user_errors_of_the_work_itself_are_one_line(monkeypatch, capsys):
    def refuse(config):
        raise UserError("Two\n  lines.")

    monkeypatch.setattr(jobs, "train", refuse)
    assert error_of(["train", "digits/at"], capsys) == "counterpart: error: Two lines."


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "digits/at"], "Stopped. The same command continues from the last checkpoint.\n"),
        (["recipes", "list"], "Stopped.\n"),
    ],
)
def test_ctrl_c_is_answered_in_one_line(words, message, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "train", interrupt)
    monkeypatch.setattr(
        cli.recipes.recipes, "names", lambda: ["digits/at"] if words[0] == "train" else interrupt()
    )
    assert main(words) == 130
    assert capsys.readouterr().err == message


def test_train_hands_on_recipe_and_settings(calls, capsys):
    assert main(["train", "--train.epochs", "5", "cifar10/part", "--data.root=/d", "--runs", "r"]) == 0
    (config,) = calls.train
    assert (config.name, config.train.epochs, config.train.method) == ("cifar10-part", 5, "part")
    assert (str(config.data.root), config.attack.eps) == ("/d", 8 / 255)
    assert "Next: counterpart evaluate r/cifar10-part" in capsys.readouterr().out


def test_train_over_seeds(calls, capsys):
    assert main(["train", "digits/at", "--seeds", "0,1,2", "--name", "group"]) == 0
    ((config, seeds),) = calls.train_seeds
    assert (config.name, list(seeds)) == ("group", [0, 1, 2])
    assert "counterpart evaluate runs/group\n" in capsys.readouterr().out


def test_a_training_out_of_time_says_so_and_succeeds(calls, capsys):
    calls.finished = False
    assert main(["train", "digits/at", "--train.stop-after", "9m"]) == 0
    assert calls.train[0].train.stop_after == 540
    assert "The same command continues" in capsys.readouterr().out


def test_a_shown_recipe_trains(calls, capsys, tmp_path):
    assert main(["recipes", "show", "cifar10/part"]) == 0
    (tmp_path / "my.yaml").write_text(capsys.readouterr().out)
    assert main(["train", str(tmp_path / "my.yaml"), "--train.epochs", "5"]) == 0
    (config,) = calls.train
    assert (config.name, config.train.epochs, config.mask.eps_low) == ("my", 5, 7 / 255)


def test_recipes_list_names_all_in_groups(capsys):
    assert main(["recipes", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()[:-1]
    assert len(lines) < 50
    named, sets = set(), []
    for line in lines:
        words = line.replace(",", " ").split()
        if line.startswith(" "):
            named |= {f"{data}/{name}" for data in sets for name in words}
        else:
            sets = words
    assert named == set(cli.recipes.recipes.names())
    assert "  at, at-mma" in lines


def test_recipes_list_names_those_of_one_data_set(capsys):
    assert main(["recipes", "list", "svhn"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = cli.recipes.recipes.names()
    assert [line.split()[0] for line in lines] == [name for name in names if name.startswith("svhn/")]
    assert main(["recipes", "list", "cifar11"]) == 2
    assert "no recipes are for 'cifar11'. Did you mean 'cifar10'?" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_causes_no_traceback():
    command = f"{sys.executable} -m counterpart recipes show cifar10/part | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=SOURCE, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode in (0, 141)  # 0: the pipe took it all before it closed


def test_evaluate_hands_on_what_differs(calls, capsys):
    assert main(["evaluate", "runs/a", "--evaluate.n", "100", "--evaluate.eps", "4/255"]) == 0
    assert calls.evaluate == [("runs/a", {"evaluate": {"n": "100", "eps": "4/255"}})]
    assert "Next: counterpart report runs/a" in capsys.readouterr().out
    assert not calls.trust
    assert main(["evaluate", "program.pt", "--trust"]) == 0
    assert calls.trust


def test_evaluate_of_timm_takes_its_data(calls):
    assert main(["evaluate", "timm/resnet50", "--data.root", "d", "--model.init", "w.pt"]) == 0
    assert calls.evaluate == [("timm/resnet50", {"data": {"root": "d"}, "model": {"init": "w.pt"}})]


def test_predict_prints_and_writes_a_table(calls, capsys, tmp_path):
    table = tmp_path / "out" / "p.csv"
    assert main(["predict", "runs/a", "i.png", "j.png", "--csv", str(table), "--device", "cpu"]) == 0
    assert calls.predict == [("runs/a", [Path("i.png"), Path("j.png")], "cpu", None, None, None)]
    assert capsys.readouterr().out == " 75.00%  cat, tabby  i.png\n"
    assert table.read_text() == 'file,label,probability\ni.png,"cat, tabby",0.75\n'


def test_report_prints_the_address_of_its_page(monkeypatch, capsys, tmp_path):
    def write_report(runs, output=None, margin=None):
        assert runs == [Path("a"), Path("b")]
        assert margin is None
        return output

    monkeypatch.setattr("counterpart.report.write_report", write_report)
    assert main(["report", "a", "b", "--output", str(tmp_path / "my page.html")]) == 0
    assert capsys.readouterr().out == f"file://{tmp_path}/my%20page.html\n"


def test_no_command_is_silent_for_long(monkeypatch, capsys):
    monkeypatch.setattr(silence, "EVERY", 0.05)

    def slow(arguments, settings):
        time.sleep(0.5)
        return 0

    monkeypatch.setattr(COMMANDS["doctor"], "run", slow)
    assert main(["doctor"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "counterpart doctor: at work for 0.0 minutes.\n" in printed.err
    monkeypatch.setenv("RANK", "1")
    assert main(["doctor"]) == 0
    assert capsys.readouterr().err == ""
