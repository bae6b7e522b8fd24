"""Intervals for counts."""

from scipy.stats import binomtest


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of a share (Wilson 1927). Errors: n must be positive."""
    if n < 1:
        raise ValueError("an interval needs at least one image.")
    interval = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)
