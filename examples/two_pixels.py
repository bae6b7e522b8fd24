"""Two pixels, a linear model, square loss: the toy analysis of the PART paper, in closed form beside numbers.

Source: Zhang et al. 2024, "Improving accuracy-robustness trade-off via pixel reweighted adversarial training",
section 3.3 and appendix F. Run: python examples/two_pixels.py

Maximise (s + w1 d1 + w2 d2)^2 over |d1| <= eps1, |d2| <= eps2, where s = w1 x1 + w2 x2 - y is the residual. The
KKT conditions leave three kinds of points:
  (i)   neither pixel at its bound: the gradient 2 (s + w.d) w vanishes, so s + w.d = 0;
  (ii)  both at their bounds;
  (iii) one at its bound, the other where s + w.d = 0.
Differs from the paper in what it says of them: KKT is necessary only. With both weights nonzero, the loss is
zero, its minimum, in (i) and (iii): they solve the conditions, yet attack nothing. The maximum is a corner, (ii).
"""

import numpy as np
from scipy.optimize import minimize


def loss(delta, weights, residual):
    """Square loss after a perturbation (2,)."""
    return float((residual + np.dot(weights, delta)) ** 2)


def inside(weights, residual, budgets):
    """Case (i): the shortest perturbation with zero loss, or None if it leaves the budgets."""
    norm = np.dot(weights, weights)
    if norm == 0:
        return None
    delta = -residual * np.asarray(weights) / norm
    return delta if np.all(np.abs(delta) < budgets) else None


def corner(weights, residual, budgets):
    """Case (ii): every pixel moves away from the label by its whole budget, however small its weight.

    Either sign is optimal at residual 0, as is anything for a pixel of weight 0: both move up then.
    """
    direction = 1.0 if residual >= 0 else -1.0
    return direction * np.where(np.asarray(weights) >= 0, 1.0, -1.0) * budgets


def one_at_its_bound(weights, residual, budgets):
    """Case (iii): all perturbations with one pixel at a bound and the other inside, at zero loss."""
    found = []
    for fixed, other in ((0, 1), (1, 0)):
        for sign in (-1.0, 1.0):
            delta = np.zeros(2)
            delta[fixed] = sign * budgets[fixed]
            if weights[other] != 0:
                delta[other] = -(residual + weights[fixed] * delta[fixed]) / weights[other]
                if abs(delta[other]) < budgets[other]:
                    found.append(delta)
    return found


def numerical(weights, residual, budgets):
    """The best of bounded searches from four starts inside the budgets: a convex loss has local maxima."""
    weights, budgets = np.asarray(weights), np.asarray(budgets)

    def descend(start):
        return minimize(
            lambda d: -loss(d, weights, residual),
            start,
            jac=lambda d: -2 * (residual + np.dot(weights, d)) * weights,
            bounds=[(-eps, eps) for eps in budgets],
            method="L-BFGS-B",
            options={"ftol": 0, "gtol": 1e-12},
        ).x

    starts = [np.array([a, b]) * budgets for a in (-0.5, 0.4) for b in (-0.3, 0.6)]
    return max((descend(start) for start in starts), key=lambda d: loss(d, weights, residual))


def main():
    """Print the cases for a few weights and budgets, beside the numerical optimum."""
    print("weights      budgets      residual  case                  d1       d2      loss")
    for weights, budgets, residual in (
        ((2.0, 0.5), (0.1, 0.1), 0.05),
        ((2.0, 0.5), (0.1, 0.02), 0.05),
        ((2.0, -0.5), (0.1, 0.1), -0.4),
    ):
        center = inside(weights, residual, budgets)
        rows = [("(i) inside", center)] if center is not None else []
        rows += [("(iii) one at its bound", delta) for delta in one_at_its_bound(weights, residual, budgets)]
        rows += [("(ii) corner", corner(weights, residual, budgets))]
        rows += [("numerical optimum", numerical(weights, residual, budgets))]
        for case, delta in rows:
            value = loss(delta, weights, residual)
            print(
                f"{weights!s:12} {budgets!s:12} {residual:8.2f}  {case:22} {delta[0]:+.4f} "
                f" {delta[1]:+.4f}  {value:.5f}"
            )
        print()


if __name__ == "__main__":
    main()
