import pytest

from counterpart.errors import UserError
from counterpart.progress import track


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
