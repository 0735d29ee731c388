"""Votes added up: shares of ranks, mean ranks with their intervals, wins, and how far the voters agree."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpen_plugin.errors import DataError
from gpen_plugin.study.agreement import concordance, pairwise_spearman, position_bias
from gpen_plugin.study.key_file import StudyKey
from gpen_plugin.study.votes import Ballot

DRAWS = 2000
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Tally:
    """What the voters said. Methods stand in the order of the chart: most rank-1 votes first.

    Attributes:
        methods: their names.
        rankings: complete rankings counted: one voter, one image.
        voters: that gave one at least.
        images: that have one at least.
        shares: part of the votes that put a method at a rank, (methods, ranks); rows and columns sum to 1.
        mean_rank: (methods,), 1 is best.
        interval: of the mean rank, (methods, 2), see `mean_rank_interval`.
        wins: part of the rankings in which the row's method beats the column's, ties half, (methods, methods).
        kendall_w: mean over images; NaN where no image has two voters.
        kendall_p: of no agreement at all.
        spearman: mean over pairs of voters.
        first_by_position: part of the rank-1 votes that went to each position of the page, (positions,).
        position_p: of positions being alike.
    """

    methods: list[str]
    rankings: int
    voters: int
    images: int
    shares: np.ndarray
    mean_rank: np.ndarray
    interval: np.ndarray
    wins: np.ndarray
    kendall_w: float
    kendall_p: float
    spearman: float
    first_by_position: np.ndarray
    position_p: float


def tally(ballots: Sequence[Ballot], key: StudyKey) -> Tally:
    """Add votes up.

    Args:
        ballots: one per voter.
        key: of the study.
    Raises:
        DataError: there is no complete ranking.
    """
    rankings = [ranking for ballot in ballots for ranking in ballot.rankings.values()]
    if not rankings:
        raise DataError("votes", "no complete ranking in any file", "at least one image ranked by one voter")
    shares = np.mean([ranking.shares for ranking in rankings], axis=0)  # (methods, ranks)
    ranks = _ranks(ballots, key)
    mean_rank = np.nanmean(ranks, axis=(0, 1))
    order = np.lexsort((mean_rank, -shares[:, 0]))
    interval = mean_rank_interval(ranks)
    by_image = [ranks[~np.isnan(ranks[:, image, 0]), image] for image in range(ranks.shape[1])]
    kendall, kendall_p = concordance(by_image)
    first = np.sum([ranking.shares[np.argsort(ranking.position), 0] for ranking in rankings], axis=0)
    return Tally(
        methods=[key.methods[place] for place in order],
        rankings=len(rankings),
        voters=sum(bool(ballot.rankings) for ballot in ballots),
        images=sum(len(ranks) > 0 for ranks in by_image),
        shares=shares[order],
        mean_rank=mean_rank[order],
        interval=interval[order],
        wins=np.mean([_wins(ranking.ranks) for ranking in rankings], axis=0)[np.ix_(order, order)],
        kendall_w=kendall,
        kendall_p=kendall_p,
        spearman=pairwise_spearman(by_image),
        first_by_position=first / len(rankings),
        position_p=position_bias(first),
    )


def mean_rank_interval(ranks: np.ndarray, draws: int = DRAWS, level: float = LEVEL, seed: int = 0) -> np.ndarray:
    """Bootstrap interval of each method's mean rank, over voters and images at once.

    Each draw takes voters and, independently, images with replacement (a ranking counts as often as its voter times as
    often as its image), so that the interval speaks of other voters and other faces (the pigeonhole bootstrap, Owen
    2007).

    Args:
        ranks: (voters, images, methods) float64, NaN where a voter did not rank an image.
        draws: of the bootstrap.
        level: part of the draws within the interval.
        seed: of the draws.
    Returns:
        (methods, 2): lower and upper end.
    """
    rng = np.random.default_rng(seed)
    voters, images, _ = ranks.shape
    of_voters = rng.multinomial(voters, np.full(voters, 1 / voters), draws).astype(np.float64)  # (draws, voters)
    of_images = rng.multinomial(images, np.full(images, 1 / images), draws).astype(np.float64)  # (draws, images)
    given = ~np.isnan(ranks[:, :, 0])
    counted = ((of_voters @ given) * of_images).sum(axis=1)  # (draws,)
    sums = [((of_voters @ np.nan_to_num(plane)) * of_images).sum(axis=1) for plane in np.moveaxis(ranks, 2, 0)]
    means = np.array(sums)[:, counted > 0] / counted[counted > 0]  # (methods, draws)
    return np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=1).T


def _ranks(ballots: Sequence[Ballot], key: StudyKey) -> np.ndarray:
    """(voters, images, methods) float64, NaN where a voter did not rank an image; voters and images with votes."""
    ballots = [ballot for ballot in ballots if ballot.rankings]
    keys = [image.key for image in key.images if any(image.key in ballot.rankings for ballot in ballots)]
    ranks = np.full((len(ballots), len(keys), len(key.methods)), np.nan)
    for voter, ballot in enumerate(ballots):
        for image, name in enumerate(keys):
            if name in ballot.rankings:
                ranks[voter, image] = ballot.rankings[name].ranks
    return ranks


def _wins(ranks: np.ndarray) -> np.ndarray:
    better = (ranks[:, None] < ranks[None, :]).astype(np.float64)
    wins = better + (ranks[:, None] == ranks[None, :]) / 2
    np.fill_diagonal(wins, np.nan)
    return wins
