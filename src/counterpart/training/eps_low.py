"""``part.eps_low auto``: the smaller radius, chosen epoch by epoch from the validation that is made anyway.

Zhang et al. 2024 fix eps_low and leave an efficient search open (section 3.2). Here it walks down from eps while the
robust accuracy under the full budget, on the validation split, is within one standard error of the best so far:
the smallest radius that the split cannot tell from the best (the one-standard-error rule of Breiman et al. 1984). No
pass is added, no test image is seen, and the tolerance is the split's own.

What a split of n images can tell, and what not:

- One step is worth less than a point of accuracy; one standard error is 0.7 points at n = 5,000 and 4 at n = 144. So
  the sum of all steps is judged, against the best epoch, and not each step by itself.
- A small split is bold: it goes down until the loss is large enough for it to see.
- Steps fall together with training. A rise of more than one error says that training still moves, and nothing is
  tried in that epoch; a slower rise hides a cost of its size. Robust overfitting looks like a cost and leads back to
  eps, which is plain adversarial training.
- The best of many noisy values is too high: that errs towards eps.
- Nothing asks whether clean accuracy gains.
- A run's best weights are those of its best robust validation, perhaps from an epoch before the radius fell: their
  checkpoint says which radius they were trained under, and ``evaluate.weights last`` judges where the search ended.
"""

import math
from collections.abc import Sequence

STEPS = 8  # at eps 8/255 the radii n/255, the grid that the paper varies eps_low on


def eps_low_after(robust: Sequence[float], *, images: int, eps: float) -> float:
    """The radius of the next epoch.

    Args:
        robust: validation accuracy under the full budget after each epoch of the phase so far.
        images: of the validation split.
        eps: the full radius.

    Returns:
        A multiple of eps / ``STEPS``. It is eps until two epochs can be compared; then, after each epoch: a step down
        where robustness has settled, none where it still rises, and a step up where it fell; a radius that was left
        for a fall is not tried again.
    """
    if images < 1:
        raise ValueError(f"the search needs validation images, got {images}.")
    level, floor = STEPS, 0
    best = robust[0] if robust else 0.0
    for share in robust[1:]:
        error = math.sqrt(best * (1 - best) / images)
        if share < best - error:
            level = floor = min(level + 1, STEPS)
        elif share <= best + error:
            level = max(level - 1, floor)
        best = max(best, share)
    return eps * level / STEPS
