"""How far voters agree, and whether a place on the page drew votes by itself."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy import stats


def kendall_w(ranks: np.ndarray) -> float:
    """Kendall's coefficient of concordance W with the correction for ties (Kendall & Babington Smith 1939).

    Args:
        ranks: mid-ranks, (voters, methods) float64, two voters or more.
    Returns:
        1 where all rank alike; 1 / voters is expected where all rank at random. NaN where every voter ties everything.
    """
    voters, methods = ranks.shape
    spread = ((ranks.sum(axis=0) - voters * (methods + 1) / 2) ** 2).sum()
    ties = sum(float((count**3 - count).sum()) for count in (np.unique(row, return_counts=True)[1] for row in ranks))
    largest = voters**2 * (methods**3 - methods) - voters * ties
    return float(12 * spread / largest) if largest > 0 else float("nan")


def concordance(images: Sequence[np.ndarray]) -> tuple[float, float]:
    """Kendall's W averaged over images, and the p-value of no agreement at all.

    m (k - 1) W of an image follows chi-square with k - 1 degrees of freedom where its m voters rank k methods at
    random; the sum over images follows the sum of the degrees.

    Args:
        images: mid-ranks of each image, (voters, methods); those with a single voter say nothing and are passed over.
    Returns:
        (mean W, p); NaN where no image has two voters.
    """
    found = [(ranks, kendall_w(ranks)) for ranks in images if len(ranks) > 1]
    found = [(ranks, w) for ranks, w in found if np.isfinite(w)]
    if not found:
        return float("nan"), float("nan")
    square = sum(ranks.shape[0] * (ranks.shape[1] - 1) * w for ranks, w in found)
    freedom = sum(ranks.shape[1] - 1 for ranks, _ in found)
    return float(np.mean([w for _, w in found])), float(stats.chi2.sf(square, freedom))


def pairwise_spearman(images: Sequence[np.ndarray]) -> float:
    """Spearman's rank correlation of two voters on an image, averaged over all pairs of all images.

    Unlike W it does not grow when voters are few: 1 where all rank alike, 0 expected at random.

    Args:
        images: mid-ranks of each image, (voters, methods).
    Returns:
        The mean; NaN where no image has two voters that tell methods apart.
    """
    found = []
    for ranks in images:
        centred = ranks - ranks.mean(axis=1, keepdims=True)
        length = np.sqrt((centred**2).sum(axis=1))
        for one, other in combinations(np.flatnonzero(length > 0), 2):
            found.append(centred[one] @ centred[other] / (length[one] * length[other]))
    return float(np.mean(found)) if found else float("nan")


def position_bias(shares: np.ndarray) -> float:
    """The p-value of the shares of rank-1 votes per position, were all positions alike.

    Args:
        shares: rank-1 votes that each position of the page got, (positions,) float64.
    Returns:
        p of Pearson's chi-square test; small means that a position drew votes, or that chance put the better
        methods there.
    """
    return float(stats.chisquare(shares).pvalue) if shares.sum() > 0 else float("nan")
