"""Claims are read strictly, ruled on by the interval, and the number that decides is the smallest that does."""

import pytest

from counterpart.claims import (
    CONSISTENT,
    REFUTED,
    UNDECIDED,
    Claim,
    Ruling,
    claim_in_words,
    read_claim,
    rule_on,
)
from counterpart.records import Record
from counterpart.statistics import _score_interval, wilson


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        ("60 % at 8/255", Claim(0.6, 8 / 255)),
        ("60%at 0.5", Claim(0.6, 0.5)),
        (" 47.25 % @ 8 / 255 ", Claim(0.4725, 8 / 255)),
        ("60 %", Claim(0.6)),
        ("100 % at 3", Claim(1.0, 3.0)),
    ],
)
def test_claims_are_read(text, claim):
    assert read_claim(text) == claim
    assert read_claim(str(claim)) == claim  # what is stored says the same


@pytest.mark.parametrize(
    "text",
    ["", "60", "0.6 at 8/255", "60 % at", "0 % at 8/255", "101 %", "60 % at 0", "60 % at 8/0", "sixty % at 8/255"],
)  # fmt: skip
def test_other_texts_are_refused_in_one_line(text):
    with pytest.raises(ValueError, match="claim") as refused:
        read_claim(text)
    assert "\n" not in str(refused.value)


def test_a_claim_above_the_interval_is_refuted_and_one_that_the_lower_end_reaches_is_consistent():
    low, high = wilson(470, 1000)
    assert rule_on(Claim(0.6), 0.47, (low, high)) == Ruling(REFUTED)
    assert rule_on(Claim(high), 0.47, (low, high)).verdict == UNDECIDED  # the end itself is not below
    assert rule_on(Claim(low), 0.47, (low, high)) == Ruling(CONSISTENT)  # the end itself reaches it
    assert rule_on(Claim(low + 1e-9), 0.47, (low, high)).verdict == UNDECIDED


@pytest.mark.parametrize(("value", "claimed"), [(0.47, 0.48), (0.47, 0.46), (0.9, 0.905), (0.1, 0.09)])
def test_the_number_that_decides_is_the_smallest_whose_interval_leaves_the_claim_out(value, claimed):
    ruling = rule_on(Claim(claimed), value, _score_interval(value, 200))
    assert ruling.verdict == UNDECIDED
    assert ruling.needed is not None
    decided = rule_on(Claim(claimed), value, _score_interval(value, ruling.needed)).verdict
    assert decided == (REFUTED if value < claimed else CONSISTENT)
    assert rule_on(Claim(claimed), value, _score_interval(value, ruling.needed - 1)).verdict == UNDECIDED


def test_no_number_decides_a_claim_that_was_met_exactly_or_an_interval_of_another_kind():
    assert rule_on(Claim(0.5), 0.5, (0.4, 0.6)) == Ruling(UNDECIDED)
    assert rule_on(Claim(0.5), 0.45, (0.4, 0.6), counted=False) == Ruling(UNDECIDED)


def test_sentences_say_the_rule_and_that_nothing_is_confirmed():
    def words(**details):
        details["claim"] = "60 % at 8/255"
        record = Record("metric", "claim/60 % at 8/255", 0.47, 1000, (0.439, 0.501), details=details)
        return claim_in_words(record).replace("\xa0", " ")

    assert words(verdict=REFUTED) == (
        "Claim of 60 % at 8/255: refuted. At most 50.1 % survive these attacks "
        "(upper end of the 95 % interval, n = 1,000)."
    )  # fmt: skip
    assert "consistent, not confirmed: at least 43.9 % survive" in words(verdict=CONSISTENT)
    assert words(verdict=CONSISTENT, doubts={"gap": "..."}).endswith("And doubts stand.")
    assert words(verdict=UNDECIDED, needed=9000).endswith(
        "undecided at n = 1,000: the 95 % interval reaches from 43.9 % to 50.1 %. About 9,000 images would decide it "
        "if the share stays at 47.0 %."
    )
