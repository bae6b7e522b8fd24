"""What a long stage says of itself, in a terminal, in a notebook and in a file."""

import io
import re
import sys
import time
import types

import pytest
from rich.console import Console

from counterpart import progress, silence
from counterpart.errors import UserError
from counterpart.progress import pace, stage, track
from counterpart.progress.pace import Pace
from counterpart.terminal import open_console


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves: clock.now."""
    moved = types.SimpleNamespace(now=100.0)
    monkeypatch.setattr(pace, "time", types.SimpleNamespace(monotonic=lambda: moved.now))
    return moved


def on_a(monkeypatch, **options):
    """A console of some kind in place of the process's own; what it wrote."""
    file = io.StringIO()
    monkeypatch.setattr(
        progress, "open_console", lambda: open_console(file=file, width=150, legacy_windows=False, **options)
    )
    return file


@pytest.fixture
def impatient(monkeypatch):
    """Half a minute is a twentieth of a second."""
    monkeypatch.setattr(silence, "EVERY", 0.05)


def wait_for(said, seconds=10.0):
    """Do nothing until something was said."""
    until = time.monotonic() + seconds
    while not said() and time.monotonic() < until:
        time.sleep(0.01)
    assert said()


def test_lines_are_kept_in_the_log(tmp_path):
    with track("work", 3, log=tmp_path / "progress.log") as bar:
        bar.say("one")
        bar.say("two")
    assert (tmp_path / "progress.log").read_text() == "one\ntwo\n"


def test_a_log_that_cannot_be_written_is_an_error_for_the_user(tmp_path):
    with (
        pytest.raises(UserError, match=r"Could not write .*progress\.log: No such file"),
        track("work", 3, log=tmp_path / "absent" / "progress.log") as bar,
    ):
        bar.say("one")


def test_the_rate_and_the_remaining_time_are_those_of_what_was_done(clock):
    measured = Pace(1000, completed=200, began=100.0)
    assert (measured.rate, measured.remaining) == (None, None)
    for _ in range(3):
        clock.now += 2
        measured.advance(40)
    assert (measured.completed, measured.rate, measured.remaining) == (320, 20.0, 34.0)
    assert str(measured) == "320 of 1,000 images, 20.0 images/s, 0:00:06 so far, 0:00:34 left"


def test_what_is_skipped_makes_nothing_faster(clock):
    measured = Pace(1000, began=100.0)
    measured.skip(500)
    clock.now += 10
    measured.advance(50)
    assert (measured.completed, measured.rate, measured.remaining) == (550, 5.0, 90.0)


def test_the_rate_is_that_of_the_last_ten_minutes(clock):
    measured = Pace(10**6, began=100.0)
    for _ in range(100):
        clock.now += 10
        measured.advance(10)
    assert measured.rate == 1.0
    for _ in range(70):
        clock.now += 10
        measured.advance(1000)
    assert measured.rate == 100.0


def test_a_stage_of_another_kind_has_a_rate_of_its_own(clock):
    measured = Pace(1000, began=100.0)
    clock.now += 1
    measured.advance(500)
    measured.measure_anew()
    assert (measured.rate, measured.remaining) == (None, None)
    clock.now += 10
    measured.advance(100)
    assert (measured.rate, measured.remaining) == (10.0, 40.0)


def test_hours_are_told():
    assert pace.clock(3600 * 27 + 62) == "27:01:02"


def test_a_file_gets_lines_and_no_bar(monkeypatch):
    file = on_a(monkeypatch)
    with track("work", 3) as bar:
        bar.advance(3)
        bar.say("said")
        with stage("within"):
            pass
    assert file.getvalue() == "said\n"


def test_a_silence_in_a_file_is_broken_by_how_far_the_innermost_stage_is(monkeypatch, impatient):
    file = on_a(monkeypatch)
    with track("work", 30) as bar:
        bar.advance(10)
        bar.describe("further work")
        wait_for(lambda: "further work" in file.getvalue())
        with stage("reading"):
            wait_for(lambda: "reading" in file.getvalue())
    pace_in_words = r"10 of 30 images, [\d,.]+ images/s, 0:00:0\d so far, 0:00:0\d left"
    assert re.search(rf"^further work: {pace_in_words}$", file.getvalue(), re.M)
    assert re.search(r"^reading: 0:00:0\d so far$", file.getvalue(), re.M)


def test_nobody_speaks_after_the_end(monkeypatch, impatient):
    file = on_a(monkeypatch)
    with track("work", 30):
        pass
    time.sleep(0.2)
    assert file.getvalue() == ""


def test_a_line_begins_a_new_half_minute():
    with track("work", 30) as bar:
        silence._watch.last = 0.0
        bar.say("said")
        assert time.monotonic() - silence._watch.last < 10


def test_a_closed_output_ends_the_speaking_and_not_the_work(monkeypatch, impatient):
    file = on_a(monkeypatch)
    with track("work", 30):
        file.close()
        wait_for(lambda: not silence._watch.thread.is_alive())


def test_other_processes_than_the_main_one_show_nothing(monkeypatch, impatient):
    file = on_a(monkeypatch, force_terminal=True)
    monkeypatch.setattr(progress.distributed, "is_main", lambda: False)
    with track("work", 3) as bar:
        bar.advance(3)
        bar.say("said")
        time.sleep(0.15)
    assert file.getvalue() == ""


def test_a_terminal_gets_a_bar_that_knows_its_stage_and_how_long_it_will_take(monkeypatch):
    file = on_a(monkeypatch, force_terminal=True)
    with track("training", 4000, done=1000) as bar:
        bar.describe("mine: epoch 2 of 4")
        bar.advance(1000)
        bar.say("epoch 1")
        with stage("reading"):
            pass
    written = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", file.getvalue())
    pace_in_words = r"2,000 of 4,000 images, [\d,.]+ images/s, 0:00:00 so far, 0:00:00 left"
    assert re.search(rf"mine: epoch 2 of 4 \S+ {pace_in_words}", written)
    assert "epoch 1" in written
    assert "reading" not in written.splitlines()[-1]


class FakeOutput:
    """What a notebook shows of one display."""

    def __init__(self, shown):
        self.shown = shown

    def update(self, content, raw):
        assert raw
        self.shown[-1].append(content["text/plain"])


@pytest.fixture
def cell(monkeypatch):
    """A cell of a notebook: a list of its outputs, each a list of what it showed."""
    outputs = []

    def display(content, raw, display_id):
        assert raw
        assert display_id
        outputs.append([content["text/plain"]])
        return FakeOutput(outputs)

    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))
    monkeypatch.setattr(progress, "open_console", lambda: Console(force_jupyter=True))
    return outputs


def test_a_notebook_gets_one_output_however_many_lines_are_said(cell):
    with track("training", 400) as bar:
        for epoch in range(200):
            bar.advance(2)
            bar.say(f"epoch {epoch}")
    [output] = cell
    lines = output[-1].splitlines()
    assert lines[:2] == ["... 190 lines above", "epoch 190"]
    assert lines[-2] == "epoch 199"
    assert lines[-1].startswith("training  [########################]  400 of 400 images, ")
    assert len(lines) == 12


def test_a_short_stage_shows_nothing_in_a_notebook_and_a_long_one_breaks_its_silence(cell, impatient):
    with track("short", 3) as bar:
        bar.advance(3)
    with stage("reading"):
        pass
    assert cell == []
    with stage("reading"):
        wait_for(lambda: cell)
    assert cell[0][0].startswith("reading: 0:00:0")
    assert cell[0][-1] == ""


def test_a_notebook_shows_names_and_does_not_obey_them(cell):
    with track("training", 2) as bar:
        bar.say("cat\x1b[2J")
    assert cell[0][-1].splitlines()[0] == "cat\\x1b[2J"
