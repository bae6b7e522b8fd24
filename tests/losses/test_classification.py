import math

import pytest
import torch

from counterpart.losses.classification import cross_entropy, dlr, kl_divergence, likely_class, margin

LOGITS = torch.tensor([[5.0, 1.0, 3.0, 2.0], [0.0, 4.0, -1.0, 4.5]])
LABELS = torch.tensor([0, 1])
TARGETS = torch.tensor([2, 3])


def test_by_hand():
    assert torch.equal(margin(LOGITS, LABELS), torch.tensor([-2.0, 0.5]))
    assert torch.equal(margin(LOGITS, LABELS, TARGETS), torch.tensor([-2.0, 0.5]))
    # Sorted: 5 3 2 1 and 4.5 4 0 -1.
    torch.testing.assert_close(dlr(LOGITS, LABELS), torch.tensor([-2 / 3, 0.5 / 4.5]))
    torch.testing.assert_close(dlr(LOGITS, LABELS, TARGETS), torch.tensor([-2 / 3.5, 0.5 / 5]))
    odds = 1 + math.exp(-4) + math.exp(-2) + math.exp(-3)
    assert cross_entropy(LOGITS, LABELS)[0].item() == pytest.approx(math.log(odds))
    assert cross_entropy(LOGITS, LABELS, TARGETS)[0].item() == pytest.approx(-2 - math.log(odds))


def test_dlr_does_not_change_with_the_scale_of_logits():
    for targets in (None, TARGETS):
        torch.testing.assert_close(dlr(1000 * LOGITS, LABELS, targets), dlr(LOGITS, LABELS, targets))


def test_dlr_keeps_its_sign_where_the_largest_logits_are_equal():
    """The published code's small number takes the place of a spread of 0."""
    tied = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0]])
    true, target = torch.tensor([0]), torch.tensor([4])
    torch.testing.assert_close(dlr(tied, true, target), torch.tensor([-1e12]))
    torch.testing.assert_close(dlr(tied, target), torch.tensor([1e12]))


@pytest.mark.parametrize(("classes", "targets"), [(2, None), (3, torch.tensor([1]))])
def test_dlr_says_how_many_classes_it_needs(classes, targets):
    with pytest.raises(ValueError, match=f"got {classes}: use the margin loss"):
        dlr(torch.zeros(1, classes), torch.tensor([0]), targets)


def test_kl_divergence_is_zero_at_the_clean_answer_and_grows_away_from_it():
    clean = LOGITS.softmax(dim=1)
    torch.testing.assert_close(kl_divergence(LOGITS, LABELS, clean), torch.zeros(2), atol=1e-6, rtol=0)
    p, q = clean[0], LOGITS[1].softmax(dim=0)
    expected = (p * (p.log() - q.log())).sum()
    torch.testing.assert_close(kl_divergence(LOGITS[1:], LABELS[:1], clean[:1])[0], expected)
    with pytest.raises(ValueError, match="needs targets"):
        kl_divergence(LOGITS, LABELS)


def test_likely_classes_skip_the_true_one():
    ranked = torch.stack([likely_class(LOGITS, LABELS, rank) for rank in (1, 2, 3)], dim=1)
    assert ranked.tolist() == [[2, 3, 1], [3, 0, 2]]
    with pytest.raises(ValueError, match="4 classes have targets 1 to 3"):
        likely_class(LOGITS, LABELS, 4)
