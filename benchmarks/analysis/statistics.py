"""Is a difference between two methods more than chance: intervals, p values, and Holm's correction of many.

With the predictions of both methods, seeds and test images are both resampled (`bootstrap_interval`); without them,
only seeds are (`seed_interval`).

Shape suffixes: N images, D distinct images, F numbers an image, R replicates, S seeds.
"""

import hashlib
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from mlomae.backbones.task import Floats, ImageSums

REPLICATES = 4_000  # a standard error of so many replicates is off by 1.1 %
_CELLS = 4_000_000  # numbers of a block of replicates: 32 MB
CONFIDENCE = 0.95
_FLAT = 1e-9  # spreads below it are rounding; seeds that agree to the last digit tell nothing of others


@dataclass(frozen=True)
class Estimate:
    """A mean difference with its 95 % interval and two-sided p value; NaN where there is none.

    Attributes:
        how: what was drawn anew: "images and seeds", "images" (one seed), "seeds" or "none".
        seeds: pairs that the mean is of.
    """

    mean: float
    low: float
    high: float
    p: float
    how: str
    seeds: int


def _student(mean: float, error: float, freedom: float, how: str, seeds: int) -> Estimate:
    if error < _FLAT:
        return Estimate(mean, math.nan, math.nan, math.nan, "none", seeds)
    half = float(special.stdtrit(freedom, 0.5 + CONFIDENCE / 2)) * error
    p = 2.0 * float(special.stdtr(freedom, -abs(mean) / error))
    return Estimate(mean, mean - half, mean + half, p, how, seeds)


def seed_interval(differences: Sequence[float]) -> Estimate:
    """Student's interval and p over paired differences; none for one pair, or for pairs that agree exactly."""
    mean, n = statistics.fmean(differences), len(differences)
    error = statistics.stdev(differences) / math.sqrt(n) if n > 1 else 0.0
    return _student(mean, error, n - 1, "seeds", n)


def seed_of(text: str) -> int:
    """The generator's seed that belongs to what is compared, so that the same comparison gives the same bytes."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")


def resampled_differences(pairs: Sequence[tuple[ImageSums, ImageSums]], generator: np.random.Generator) -> Floats:
    """What a - b would be on test images drawn anew, (R, S): in a replicate all runs see the same images.

    Images with the same numbers in all runs are drawn as one, as often as there are such: the same distribution.
    """
    runs = [run for pair in pairs for run in pair]
    ends = np.cumsum([run.numbers_NF.shape[1] for run in runs])[:-1]
    numbers_NF = np.concatenate([run.numbers_NF for run in runs], axis=1)
    distinct_DF, count_D = np.unique(numbers_NF, axis=0, return_counts=True)
    n, blocks = len(numbers_NF), []
    rows = max(1, _CELLS // max(distinct_DF.shape))
    for start in range(0, REPLICATES, rows):
        draws_RD = generator.multinomial(n, count_D / n, size=min(rows, REPLICATES - start))
        sums_RF = draws_RD.astype(np.float64) @ distinct_DF.astype(np.float64)  # of integers: exact in any order
        parts = np.split(sums_RF, ends, axis=1)
        metrics = [run.metric(part_RF, n) for run, part_RF in zip(runs, parts, strict=True)]
        blocks.append(np.stack([a - b for a, b in zip(metrics[::2], metrics[1::2], strict=True)], axis=1))
    return np.concatenate(blocks)


def variances(differences_RS: Floats, generator: np.random.Generator) -> tuple[float, float]:
    """Of the mean over seeds in the replicates: what drawing images adds to its variance, and what drawing seeds adds.

    Seeds drawn from S vary (S - 1) / S as much as further seeds would, which is put right.
    """
    images_R, seeds = differences_RS.mean(axis=1), differences_RS.shape[1]
    if seeds == 1:
        return float(images_R.var(ddof=1)), 0.0
    share_RS = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=len(images_R)) / seeds
    moved_R = (share_RS * differences_RS).sum(axis=1) - images_R
    return float(images_R.var(ddof=1)), float(moved_R.var(ddof=1)) * seeds / (seeds - 1)


def bootstrap_interval(pairs: Sequence[tuple[ImageSums, ImageSums]], key: str) -> Estimate:
    """Interval and p of the mean of a - b over pairs of runs of the same seed, by drawing seeds and images anew.

    A replicate draws the S seeds with replacement and the N images with replacement, the same images for both methods
    and all seeds (the bootstrap of a table of two ways: Owen, "The pigeonhole bootstrap", Ann. Appl. Stat. 1, 2007).

    Percentiles of the replicates would be of S values: three seeds that agree in sign, by luck in one case of four,
    would give p = 0. So the replicates give the standard error, se² = se_images² + se_seeds², and the interval is
    Student's, with Satterthwaite's degrees of freedom se⁴ / (se_seeds⁴ / (S - 1) + se_images⁴ / (N - 1)): Student's
    over seeds where these are what varies, and as the percentiles where images are. In simulations it covers the truth
    95 times in 100 where seeds vary most (92 with two seeds), and up to 100 times where images do: what varies by seed
    and image at once is counted with both.

    Args:
        pairs: (a, b) of each seed, all on the same test images in the same order. With one pair images alone are drawn.
        key: names the comparison; the same key and numbers give the same bits.
    """
    generator = np.random.Generator(np.random.PCG64(seed_of(key)))
    seeds, n = len(pairs), len(pairs[0][0].numbers_NF)
    differences_RS = resampled_differences(pairs, generator)
    mean = statistics.fmean(a.whole() - b.whole() for a, b in pairs)
    by_images, by_seeds = variances(differences_RS, generator)
    variance = by_images + by_seeds
    spread = by_seeds**2 / max(seeds - 1, 1) + by_images**2 / max(n - 1, 1)
    freedom = variance**2 / spread if spread else math.inf
    return _student(mean, math.sqrt(variance), freedom, "images and seeds" if seeds > 1 else "images", seeds)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values corrected for being many (Holm, Scand. J. Stat. 6, 1979), in the order given; NaN stays NaN.

    The k-th smallest of m is multiplied by m - k + 1, made no smaller than the one before it and no larger than 1:
    calling those below 0.05 differences is wrong about any of them in at most 5 tables of 100.
    """
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    corrected, largest = [math.nan] * len(p_values), 0.0
    for k, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - k) * p_values[i]))
        corrected[i] = largest
    return corrected
