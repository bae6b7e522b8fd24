"""Our APGD against the published implementation: the same images survive, up to that one's own randomness."""

import pytest
import torch

from counterpart.attacks.auto_pgd import apgd
from counterpart.budget import NORMS
from counterpart.losses.classification import cross_entropy, dlr
from counterpart.seeding import Keys

published = pytest.importorskip(
    "pyautoattack.autopgd_base", reason="needs pyautoattack, of the bench extra: pip install '.[bench]'"
)

LOSSES = {"ce": cross_entropy, "dlr": dlr}


@pytest.mark.reference
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::Warning")  # the published code warns of zero gradients
@pytest.mark.parametrize("loss", ["ce", "dlr", "dlr-targeted"])
@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.2), ("L2", 1.0), ("L1", 2.0)])
def test_the_same_images_survive(robust_digits, norm, eps, loss):
    model, images, labels = robust_digits
    images, labels = images[:256], labels[:256]
    theirs = torch.stack([survivors(model, images, labels, norm, eps, loss, seed) for seed in range(3)])
    ours = []
    for seed in range(3):
        budget, left = NORMS[norm.lower()](eps), torch.ones_like(labels, dtype=torch.bool)
        for target in range(1, 4) if loss == "dlr-targeted" else (None,):
            keys = Keys(seed, f"apgd {target}", torch.arange(len(labels)))
            options = {"loss": LOSSES[loss.split("-")[0]], "target": target, "steps": 50}
            attacked = apgd(model, images, labels, budget=budget, keys=keys, **options)
            assert budget.contains(attacked.images, images).all()
            left &= model(attacked.images).argmax(dim=1) == labels
        ours.append(left)
    ours = torch.stack(ours)
    own = max(int((theirs[i] ^ theirs[j]).sum()) for i, j in ((0, 1), (0, 2), (1, 2)))
    apart = [int((ours[i] ^ theirs[j]).sum()) for i in range(3) for j in range(3)]
    assert max(apart) <= 1.5 * own + 4
    lean = (ours.sum(dim=1).float().mean() - theirs.sum(dim=1).float().mean()).abs()
    assert lean <= 0.02 * len(labels)


def survivors(model, images, labels, norm, eps, loss, seed):
    options = {"n_iter": 50, "norm": norm, "eps": eps, "seed": seed, "use_largereps": norm == "L1"}
    options |= {"device": "cpu", "n_restarts": 1}
    if loss == "dlr-targeted":
        attack = published.APGDAttack_targeted(model, n_target_classes=3, **options)
        attack.eps_orig, attack.n_iter_orig = eps, 50  # the published class forgets to set them
    else:
        attack = published.APGDAttack(model, loss=loss, **options)
    return model(attack.perturb(images, labels)).argmax(dim=1) == labels
