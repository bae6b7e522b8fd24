"""YAML and JSON that anybody may have written: a value, or one ValueError of one line, never a crash."""

import subprocess
import sys
import tracemalloc

import pytest

from counterpart.cli import main
from counterpart.config import resolve
from counterpart.parsing import (
    MOST_DEPTH,
    MOST_YAML,
    parse_json,
    parse_yaml,
    read_json,
    read_yaml,
)

BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)


def test_ordinary_values():
    assert parse_yaml("a: [1, 2.5, x, null]\nb: {c: true}") == {"a": [1, 2.5, "x", None], "b": {"c": True}}
    assert parse_yaml("a: &one [1, 2]\nb: *one") == {"a": [1, 2], "b": [1, 2]}
    assert parse_yaml("") is None
    assert parse_json('{"a": [1]}') == {"a": [1]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "did not find expected node content"),
        ("seed: 2001-99-99", "month must be in"),
        ("seed: !!int x", "invalid literal"),
        ("seed: !!float x", "could not convert"),
        ("seed: !!timestamp x", "a value is not what its tag says"),
        ("seed: !!bool x", "a value is not what its tag says"),
        ("seed: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("? {a: b}\n: c", "unhashable"),
        (f"seed: {'9' * 5000}", "4300 digits"),
        ("[" * (MOST_DEPTH + 1), f"nested more than {MOST_DEPTH} deep"),
        ("a: " + "{a: " * 200 + "}" * 200, f"nested more than {MOST_DEPTH} deep"),
        (BOMB, "it holds more than 100,000 values"),
        ("a: \x07", "not allowed|unacceptable"),
    ],
)
def test_other_yaml_is_refused_in_one_line(text, words):
    with pytest.raises(ValueError, match=words) as refusal:
        parse_yaml(text)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 1000


def test_brackets_without_end_do_not_crash_the_process():
    """In a process of its own: the loader in C would end this one."""
    code = "from counterpart.parsing import parse_yaml; parse_yaml('seed: ' + '[' * 100_000)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"ValueError: its values are nested more than {MOST_DEPTH} deep"


@pytest.mark.parametrize("text", ["[" * 200_000, "{", "9" * 5000, "[1,]"])
def test_other_json_is_refused(text):
    with pytest.raises(ValueError, match=r"nested|Expecting|4300|Illegal") as refusal:
        parse_json(text)
    assert "\n" not in str(refusal.value)


def test_byte_order_marks_are_passed_over(tmp_path):
    (tmp_path / "x").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "x") == read_yaml(tmp_path / "x") == {"a": 1}
    (tmp_path / "x").write_bytes(b"\xff\xfea")
    for read in (read_json, read_yaml):
        with pytest.raises(ValueError, match="utf-8"):
            read(tmp_path / "x")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (BOMB + "seed: *a7", "it holds more than 100,000 values"),
        ("seed: !!int x", "is not valid YAML: invalid literal"),
        ("seed: " + "[" * 100_000, "nested more than"),
        ("seed: [" + ",".join(["x"] * 9000) + "]", "seed = ['x', 'x', 'x', 'x', 'x', 'x', ...]"),
        (f"seed: {'x' * 9000}", "xxx..."),
    ],
)
def test_a_file_of_settings_is_refused_in_a_short_line(tmp_path, capsys, content, words):
    (tmp_path / "x.yaml").write_text(content)
    assert main(["train", str(tmp_path / "x.yaml")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert len(line) < 700


@pytest.mark.parametrize("value", ["[!!float .]", "[2001-99-99]", "[" * 100_000, "{a: !!bool x}"])
def test_a_setting_on_the_command_line_is_refused_in_a_short_line(capsys, value):
    assert main(["train", "digits/at", f"--data.class-map={value}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--data.class_map: cannot read" in line
    assert len(line) < 700


def test_on_is_a_word_and_yes_is_a_switch():
    assert parse_yaml("{on: off, true: yes, other: [no, On]}") == {
        "on": "off",
        True: True,
        "other": [False, "On"],
    }
    assert resolve(parse_yaml("{data: {flip: off}, evaluate: {on: 'fog:3'}}")).data.flip is False


@pytest.mark.parametrize(
    "text", ["a: &a [*a]", "data: &d {x: 1, y: *d}", "a: &a {<<: *a}", "- &x\n  - &y\n    - *x"]
)
def test_a_value_that_contains_itself_is_refused(text):
    with pytest.raises(ValueError, match="a value contains itself"):
        parse_yaml(text)


def test_yaml_of_more_than_its_limit_is_refused_before_it_is_parsed():
    assert parse_yaml("a: '" + "x" * (MOST_YAML - 5) + "'") == {"a": "x" * (MOST_YAML - 5)}
    with pytest.raises(ValueError, match="more than 1,048,576 characters"):
        parse_yaml("a: '" + "x" * (MOST_YAML - 4) + "'")


@pytest.mark.parametrize("start", ["!!int ", "!!float ", "!!bool ", "*", "!!python/", "!!timestamp "])
def test_a_reason_does_not_repeat_the_input(start):
    with pytest.raises(ValueError, match=r".") as refusal:
        parse_yaml("seed: " + start + "abc" * 10_000)
    assert len(str(refusal.value)) < 300


def test_json_of_more_than_its_limit_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    path.write_text("[1, 2, 3]")
    monkeypatch.setenv("COUNTERPART_MOST_TEXT", "9")
    assert read_json(path) == [1, 2, 3]
    monkeypatch.setenv("COUNTERPART_MOST_TEXT", "8")
    with pytest.raises(ValueError, match=r"9 bytes are more than 8: .* set COUNTERPART_MOST_TEXT"):
        read_json(path)
    with pytest.raises(ValueError, match="9 characters are more than 8"):
        parse_json("[1, 2, 3]")
    assert read_json(path, limit="ANNOTATIONS") == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "words"), [("", "no regular file"), ("sparse", "200,000,000,000 bytes are more than 67,108,864")]
)
def test_what_has_no_end_is_not_read(tmp_path, name, words):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2 * 10**11)
    for read in (read_json, read_yaml):
        with pytest.raises(ValueError, match=words):
            read(tmp_path / name)


@pytest.mark.parametrize("unit", ['{"a":0}', "[]", "{}", '"a"', "1.5", "[[]]", '"\u0100"', "12345"])
def test_a_value_takes_at_most_32_times_its_text(unit):
    text = "[" + ",".join([unit] * 20_000) + "]"
    tracemalloc.start()
    try:
        parse_json(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 32 * len(text.encode())


def test_half_a_character_is_refused():
    assert parse_json('["\\ud83d\\ude00"]') == ["\U0001f600"]
    for text in ('{"a": "\\ud800"}', '{"\\uDFFF": 1}'):
        with pytest.raises(ValueError, match="half a character"):
            parse_json(text)
