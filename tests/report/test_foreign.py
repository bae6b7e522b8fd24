"""Run folders that somebody else made, or damaged: no file outside is opened, no page hangs, and the rest is shown."""

import json
import subprocess
import sys

import numpy as np
import pytest

from counterpart.cli import main
from counterpart.errors import UserError
from counterpart.records import Record
from counterpart.report import write_report
from counterpart.report.export import export_table
from counterpart.report.usable import fault, read_standing, sound_fold, sound_seed

RIGHT = {"clean": 0.9, "worst case": 0.5}


@pytest.fixture
def run(make_run, records):
    """A sound run of one evaluation."""
    run = make_run("at")
    run.add(records.metrics("AT", RIGHT))
    return run


def page(run):
    html = write_report([run.path]).read_text(encoding="utf-8")
    assert "90.00" in html, "what is right is shown"
    assert "50.00" in html
    return html


def artifact(file, name="panel", sha256="0" * 64):
    return Record("artifact", name, details={"file": str(file), "sha256": sha256, "caption": "c"})


@pytest.mark.parametrize("name", ["../secret", "absolute", "link", "a/../../secret", "folder/secret"])
def test_no_file_outside_the_folder_is_opened(run, tmp_path, name):
    """In a process of its own, which writes down every file that it opens."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (run.path / "link").symlink_to(secret)
    (run.path / "folder").symlink_to(tmp_path)
    run.add([artifact(secret if name == "absolute" else name)])
    code = (
        "import sys; opened = []\n"
        "sys.addaudithook(lambda event, told: opened.append(str(told[0])) if event == 'open' else None)\n"
        "from pathlib import Path; from counterpart.report import write_report\n"
        "write_report([Path(sys.argv[1])]); print('\\n'.join(opened))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run.path)], capture_output=True, text=True, check=True, timeout=120
    )
    opened = done.stdout.splitlines()
    assert str(run.records_file) in opened
    assert not [path for path in opened if path.endswith(("secret", "link"))]
    html = page(run)
    assert "lies outside of the run folder, so that it was not opened; it is left out." in html
    assert 'href="' not in html[html.index("<summary>Files</summary>") :]


@pytest.mark.parametrize("name", ["config.yaml", "records.jsonl", "report"])
def test_links_out_of_the_folder_are_refused(run, tmp_path, capsys, name):
    other = tmp_path / "other"
    if name == "report":
        other.mkdir()
    else:
        (run.path / name).rename(other)
    (run.path / name).symlink_to(other)
    assert main(["report", str(run.path)]) == 2
    assert f"{run.path / name} is a link that leads out of" in capsys.readouterr().err
    assert name != "report" or not any(other.iterdir())


def test_a_group_does_not_lead_to_runs_elsewhere(run, tmp_path):
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "seed-0").symlink_to(run.path)
    with pytest.raises(UserError, match=r"seed-0 is a link that leads out of .*group: it was not opened"):
        write_report([tmp_path / "group"])


def test_a_file_without_end_is_not_hashed(run):
    with (run.path / "huge").open("wb") as file:
        file.truncate(2 * 10**11)  # takes no room on the disk
    run.add([artifact("huge")])
    html = page(run)
    assert "200,000,000,000 bytes to hash are more than 1,073,741,824" in html
    assert "COUNTERPART_MOST_SHOWN" in html


def test_all_files_of_a_run_together_are_hashed_up_to_the_limit(run, monkeypatch):
    monkeypatch.setenv("COUNTERPART_MOST_SHOWN", "100")
    for number in range(3):
        (run.path / str(number)).write_bytes(bytes(40))
        run.add([artifact(number)])
    html = page(run)
    assert html.count("has changed since it was recorded (its hash differs); it is left out.") == 2
    assert (
        html.count("120 bytes to hash are more than 100: if they are meant") == 2
    )  # the note, and the table of files


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"kind": "metric", "name": "accuracy/PGD", "value": NaN, "n": 5}', "has the value nan"),
        ('{"kind": "metric", "name": "accuracy/PGD", "value": 0.5, "n": -1}', "has n -1"),
        ('{"kind": "metric", "name": "accuracy/PGD", "value": 0.5, "interval": [0, Infinity]}', "not finite"),
        (
            '{"kind": "metric", "name": "accuracy/PGD", "value": 0.5, "details": {"eps": "far"}}',
            "another form",
        ),
        (
            '{"kind": "metric", "name": "accuracy/PGD", "value": 0.5, "details": {"per_class": [1]}}',
            "another form",
        ),
        ('{"kind": "metric", "name": "audit/x", "value": 0.5}', "lacks &#39;numbers&#39;"),
        ('{"kind": "epoch", "name": "epoch", "details": {"epoch": NaN}}', "another form"),
        ('{"kind": "epoch", "name": "epoch"}', "lacks &#39;epoch&#39;"),
        (
            '{"kind": "metric", "name": "accuracy/PGD", "value": 1' + "0" * 400 + "}",
            "numbers of ordinary size",
        ),
        ("[1]", "it is no JSON object"),
        ("{]", "Expecting property name"),
        ('{"kind": "metric", "name": "<b>", "value": NaN}', "(&#39;&lt;b&gt;&#39;): has the value nan"),
    ],
)
def test_a_line_that_is_no_use_is_named_and_the_rest_is_shown(run, line, reason):
    number = len(run.records_file.read_text().splitlines()) + 1
    with run.records_file.open("a") as file:
        file.write(line + "\n")
    html = page(run)
    (note,) = [text for text in html.splitlines() if f"records.jsonl, line {number} (" in text]
    assert reason in note
    assert note.endswith("; it is left out.</li>")


def test_of_many_lines_the_first_are_named(run):
    with run.records_file.open("a") as file:
        file.write("x\n" * 50)
    html = page(run)
    assert html.count("records.jsonl, line") == 20
    assert "records.jsonl: 30 more lines left out." in html


def keep(run, name, content):
    """Record a file whose hash is right and whose content is not."""
    file = run.path / "evaluations" / "k1" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return run.artifact(
        file, {"images.csv": "images", "regions.png": "where regions"}.get(name, "panel"), "c"
    )


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("images.csv", b"a,b\n1,2\n", "it is no table of images (KeyError: &#39;first_fooled_by&#39;)"),
        ("images.csv", b"\xff\n", "it is no table of images (UnicodeDecodeError"),
        ("images.csv", b"index,first_fooled_by,share\n0,,many\n", "could not convert string to float"),
        ("images.csv", b"index,first_fooled_by,share\n0,,7\n", "a share is not within 0 and 1"),
        ("images.csv", b"index,first_fooled_by\n" + b"0" * 200_000 + b",\n", "field larger than field limit"),
        ("panel.safetensors", b"{}", "panel.safetensors is damaged or holds no pictures"),
        ("regions.png", b"<svg>", "it is no PNG file"),
    ],
)
def test_a_file_of_another_kind_is_named_and_the_rest_is_shown(run, name, content, reason):
    run.add([keep(run, name, content)])
    html = page(run)
    assert f"{name} was not used: " in html
    assert reason in html


def test_pictures_that_are_not_finite_are_not_shown(run, records):
    file = records.panel(run)
    assert "data:image/png" in page(run)
    content = file.read_bytes()
    file.write_bytes(content[:-4] + np.array([np.nan], "<f4").tobytes())
    run.add([run.artifact(file, "panel", "c")])
    assert "holds no pictures of an evaluation: " in page(run)


def test_a_configuration_of_another_form(run):
    text = run.config_file.read_text().partition("# checksum")[0]  # others write none
    run.config_file.write_text(
        text.replace("seed: 0", "seed: [1, {a: b}]").replace("name: digits", "fold: [3]")
    )
    page(run)
    assert (sound_seed(3), sound_seed([3]), sound_seed(True), sound_seed(10**30)) == (3, None, None, None)
    assert (sound_fold("2/5"), sound_fold("2"), sound_fold("0/5"), sound_fold(["2/5"])) == (
        "2/5",
        None,
        None,
        None,
    )


def _unsealed(run):
    """A configuration without the comment that holds its checksum."""
    text = run.config_file.read_text()
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("# checksum"))


def test_a_report_imports_nothing_that_a_configuration_names(run, tmp_path, monkeypatch):
    (tmp_path / "hostile_module.py").write_text("raise SystemExit('it ran')")
    monkeypatch.chdir(tmp_path)
    run.config_file.write_text(_unsealed(run) + "model: {name: 'hostile_module:net'}\n")
    page(run)
    assert "hostile_module" not in sys.modules


def test_sound_records_have_no_fault(records):
    sound = [
        *records.metrics("AT", RIGHT), *records.epochs(3),
        *records.part_metrics({"mIoU clean": 0.5}, per_part={"a": (0.5, 20)}),
        Record("metric", "union/worst case", 0.5, 10, details={"norm": "linf,l2", "eps": [0.1, 0.5]}),
    ]  # fmt: skip
    assert [fault(record) for record in sound] == [None] * len(sound)
    assert fault(Record("metric", "union/worst case", 0.5, 10, details={"norm": "linf", "eps": [0.1, 0.5]}))


def test_the_table_of_images_is_read(tmp_path):
    table = tmp_path / "images.csv"
    table.write_text("index,first_fooled_by,share\n0,,\n1,pgd,\n2,pgd,0.25\n")
    assert read_standing(table) == {"0": 1.0, "1": 0.0, "2": 0.25}
    table.write_text("index,first_fooled_by\n0,untried\n")
    assert read_standing(table) is None


def test_numbers_of_any_size_do_not_stop_a_page(run):
    """Each number of each line in turn becomes one that no float, or no sentence, can hold."""
    lines = run.records_file.read_text().splitlines()
    row = json.loads(lines[0])
    for name in ("n", "seconds", "seed"):
        for value in (-1, 1e300, 10**30, [1], "x", None):
            text = json.dumps({**row, name: value})
            run.records_file.write_text("\n".join([text, *lines[1:]]) + "\n")
            assert "50.00" in write_report([run.path]).read_text(encoding="utf-8")


def changed(run, **details):
    """The first record of the run, and all others, with other details."""
    rows = [json.loads(line) for line in run.records_file.read_text().splitlines()]
    for row in rows:
        row.pop("checksum", None)
        row["details"] |= details
    run.records_file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("form", ["markdown", "latex", "csv"])
def test_a_table_of_foreign_records_ends_in_no_traceback(run, records, capsys, form):
    run.add(records.epochs(1))
    text = run.records_file.read_text()
    for details, said in (
        ({"eps": [0.1]}, "Nothing to report yet"),
        ({"radii": [0.1], "eps": None}, "Nothing to report yet"),
        ({"evaluation": None}, None),
        ({"eot": 10**14}, None),
    ):
        run.records_file.write_text(text)
        changed(run, epoch=None, **details)
        code = main(["report", str(run.path), "--table", form])
        told = capsys.readouterr().err
        assert (code, "bug" in told) == (0 if said is None else 2, False)
        assert said is None or said in told


def test_an_epoch_without_its_number_is_left_out_and_the_rest_is_shown(run):
    with run.records_file.open("a") as file:
        file.write('{"kind": "epoch", "name": "epoch", "details": {"epoch": null}}\n')
    assert "lacks &#39;epoch&#39;; it is left out." in page(run)


def test_records_that_do_not_fit_together_are_said(run, monkeypatch, capsys):
    """Whatever no check of a single record has foreseen."""

    def fail(*_):
        raise TypeError("unhashable type: 'list'")

    monkeypatch.setattr("counterpart.report.export.metric_names", fail)
    assert main(["report", str(run.path), "--table", "csv"]) == 2
    assert "do not fit together, so that no page or table can show them (TypeError" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["markdown", "latex", "csv"])
def test_a_table_in_a_file_holds_no_escape_sequence_and_no_further_line(run, tmp_path, form):
    lines = len(export_table([run.path], form).splitlines())
    changed(run, method="a\x1b[2J\n| b")
    output = tmp_path / "table.txt"
    assert main(["report", str(run.path), "--table", form, "--output", str(output)]) == 0
    assert "\x1b" not in output.read_text()
    assert (
        form == "csv" or len(output.read_text().splitlines()) == lines
    )  # in CSV a cell in quotes may have lines
