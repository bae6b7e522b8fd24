"""ImageNet's classes are called by their names, and others are left as they are."""

import pytest

from counterpart.report import class_names, write_report


def test_wordnet_ids_are_described():
    assert class_names.called("n02099601") == "golden retriever (n02099601)"
    assert class_names.called("n01440764") == "tench (n01440764)"


@pytest.mark.parametrize("name", ["cat", "n1", "n99999999", "<b>n02099601</b>", "n024083400"])
def test_other_names_stay(name):
    assert class_names.called(name) == name


def test_a_page_without_such_names_does_not_ask_for_them(make_run, records, monkeypatch):
    monkeypatch.setattr(class_names, "_imagenet", lambda: pytest.fail("it was asked for"))
    run = make_run("mine")
    run.add(records.metrics("AT", {"clean": 0.5}))
    write_report([run.path])


def test_the_page_calls_classes_by_their_names(make_run, records):
    run = make_run("mine")
    counts = {"per_class": {"n02099601": [3, 4], "n01440764": [1, 4]}}
    (record,) = records.metrics("AT", {"clean": 0.5})
    run.add([type(record)(**{**vars(record), "details": {**record.details, **counts}})])
    assert "golden retriever (n02099601)" in write_report([run.path]).read_text(encoding="utf-8")
