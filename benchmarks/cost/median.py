"""A median and what covers it, whatever the distribution."""

import statistics
from collections.abc import Sequence

from scipy import stats


def median_interval(values: Sequence[float], coverage: float = 0.95) -> tuple[float, float, float]:
    """(median, low, high): the narrowest symmetric pair of order statistics that covers the median so often.

    Assumes nothing about the distribution; with fewer than six values it is the whole range and covers less.
    """
    ordered, n = sorted(values), len(values)
    # how many values are cut off on each side
    cut = max(0, int(stats.binom.ppf((1 - coverage) / 2, n, 0.5)) - 1)
    return statistics.median(ordered), ordered[cut], ordered[n - 1 - cut]
