"""``mask.eps_low auto``: the smaller radius, chosen epoch by epoch by what it costs the attack on validation images.

Zhang et al. 2024 fix eps_low and leave an efficient search open (section 3.2). Here the validation after each epoch
attacks twice: within the full budget, as always, and within the mask's, which is the attack that training meets. Both
meet the same weights and the same images. While the masked attack fools at most one standard error fewer images than
the full one, eps_low goes down; otherwise it goes up. The tolerance is one standard error of the validation accuracy
(the rule of Breiman et al. 1984). No test image is seen, and the cost is a second validation attack.

What a split of n images can tell, and what not:

- Training, the learning rate and overfitting move both accuracies together, so their difference is not affected. A
  rule that compared epochs would be: with a falling learning rate robustness rises, and the rise hides the price.
- A smaller budget can only be a weaker attack, so any difference is real. The tolerance does not ask whether there is
  a difference. It bounds the difference by what the split cannot tell from none: 0.7 points with 5,000 images, and 4
  points with 144. With a small split the search therefore goes far down.
- The radius ends near the value at which the difference equals the tolerance, at most a step below.
- The search holds the strength of the attack on the model as it is. It does not see where further training under a
  weaker attack leads, and it does not ask whether clean accuracy gains.
- A run's best weights are those of its best robust validation, perhaps from an epoch under another radius: their
  checkpoint says which, and ``evaluate.weights last`` judges where the search ended.
"""

import math
from collections.abc import Sequence

STEPS = 8  # at eps 8/255 these are the radii n/255, the grid on which the paper varies eps_low


def eps_low_after(validated: Sequence[tuple[float, float]], *, images: int, eps: float) -> float:
    """The smaller radius for the next epoch, which is eps at first and moves by eps / ``STEPS`` after each.

    Args:
        validated: the accuracy under the full attack and under the masked one, after each epoch of the phase
            so far.
        images: the number of images in the validation split.
        eps: the full radius, in units of the images.
    """
    if images < 1:
        raise ValueError(f"the search needs validation images, got {images}.")
    level = STEPS
    for full, masked in validated:
        tolerated = masked - full <= math.sqrt(full * (1 - full) / images)
        level = max(level - 1, 0) if tolerated else min(level + 1, STEPS)
    return eps * level / STEPS
