"""Files of votes: read, checked against the key (a file may have been edited), counted, and tested for agreement."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy import stats

from gpen_plugin.errors import DataError
from gpen_plugin.evaluate.study.page import StudyImage, StudyKey

FORMAT = 1
RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Ranking:
    """How a voter ranked one image."""

    places: np.ndarray  # place of each method, (methods,) int from 0, equal where tied, without gaps between them
    position: np.ndarray  # where on the page each method stood, (methods,) int from 0

    @property
    def ranks(self) -> np.ndarray:
        """Mid-ranks from 1, (methods,) float64: tied methods share the mean of their ranks."""
        above = (self.places[None, :] < self.places[:, None]).sum(axis=1)
        beside = (self.places[None, :] == self.places[:, None]).sum(axis=1)
        return above + (beside + 1) / 2

    @property
    def shares(self) -> np.ndarray:
        """Fraction of a vote of each method for each rank, (methods, ranks) float64; rows and columns sum to 1."""
        above = (self.places[None, :] < self.places[:, None]).sum(axis=1)[:, None]
        beside = (self.places[None, :] == self.places[:, None]).sum(axis=1)[:, None]
        rank = np.arange(len(self.places))[None, :]
        return ((rank >= above) & (rank < above + beside)) / beside


@dataclass(frozen=True)
class Ballot:
    """The votes of one voter."""

    file: str  # where they were read from
    voter: str  # a random name that the page drew
    name: str  # what the voter calls himself, or empty
    exported: str  # when, as the browser wrote it
    rankings: Mapping[str, Ranking] = field(repr=False)  # key of an image -> ranking, complete ones alone
    begun: int  # how many images have a ranking that is not complete


def read_ballot(path: Path, key: StudyKey) -> Ballot:
    """Read a file that a volunteer exported; DataError if it is of another study or invalid."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        _require(isinstance(content, dict), "it is not a file of votes")
        _require(content.get("format") == FORMAT, f"format {content.get('format')!r}")
        _require(content.get("study") == key.study, f"it is of study {content.get('study')!r}")
        for entry in ("voter", "name", "exported"):
            _require(isinstance(content.get(entry), str), f"{entry!r} is {content.get(entry)!r}")
        _require(bool(content["voter"]), "the voter is empty")
        _require(isinstance(content.get("votes"), list), "'votes' is no list")
        rankings, begun = _rankings(content["votes"], key)
    except (OSError, ValueError, RecursionError) as error:
        expected = f"votes of study {key.study}, as its page exports them"
        raise DataError(str(path), f"refused ({error})", expected, "Export the votes again.") from error
    return Ballot(path.name, content["voter"], content["name"], content["exported"], rankings, begun)


def one_per_voter(ballots: Iterable[Ballot]) -> tuple[list[Ballot], list[str]]:
    """Keep one file per voter: the fullest, then the latest.

    Return them in the order of their voters' names, and messages: files left out, names that two voters share.
    """
    latest: dict[str, Ballot] = {}
    messages = []
    for ballot in sorted(ballots, key=lambda ballot: (len(ballot.rankings), ballot.exported, ballot.file)):
        if ballot.voter in latest:
            messages.append(
                f"{latest[ballot.voter].file}: left out; {ballot.file} is from the same voter, and fuller or later"
            )
        latest[ballot.voter] = ballot
    found = sorted(latest.values(), key=lambda ballot: ballot.voter)
    names = [ballot.name.casefold() for ballot in found if ballot.name]
    for name in sorted({name for name in names if names.count(name) > 1}):
        files = ", ".join(ballot.file for ballot in found if ballot.name.casefold() == name)
        messages.append(f"{files}: two voters have this name; both are counted")
    return found, messages


def _rankings(votes: list, key: StudyKey) -> tuple[dict[str, Ranking], int]:
    images = {image.id: image for image in key.images}
    rankings, seen, begun = {}, set(), 0
    for vote in votes:
        _require(isinstance(vote, dict) and isinstance(vote.get("image"), str), "a vote without an image")
        image = images.get(vote["image"])
        _require(image is not None, f"image {vote['image']!r} is not in the study")
        _require(image.id not in seen, f"image {image.id!r} occurs twice")
        seen.add(image.id)
        ranking = _ranking(vote, image, key)
        if ranking is None:
            begun += 1
        else:
            rankings[image.key] = ranking
    return rankings, begun


def _ranking(vote: dict, image: StudyImage, key: StudyKey) -> Ranking | None:
    """A complete ranking, or None."""
    shown, places = vote.get("shown"), vote.get("places")
    _require(_are_names(shown), f"image {image.id!r}: 'shown' is no list of names")
    _require(sorted(shown) == sorted(image.methods), f"image {image.id!r}: 'shown' are not its images")
    _require(isinstance(places, list) and all(map(_are_names, places)), f"image {image.id!r}: 'places' are no lists")
    ranked = [name for names in places for name in names]
    unknown = [name for name in ranked if name not in image.methods]
    _require(not unknown, f"image {image.id!r}: image {unknown[:1]} is not in the study")
    _require(len(set(ranked)) == len(ranked), f"image {image.id!r}: an image is ranked twice")
    _require(key.allow_ties or all(len(names) < 2 for names in places), f"image {image.id!r}: a tie; none is allowed")
    if len(ranked) < len(image.methods):
        return None
    at = {name: place for place, names in enumerate(names for names in places if names) for name in names}
    by_method = {method: name for name, method in image.methods.items()}
    names = [by_method[method] for method in key.methods]
    return Ranking(np.array([at[name] for name in names]), np.array([shown.index(name) for name in names]))


def _are_names(names: object) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def kendall_w(
    ranks: np.ndarray,  # mid-ranks, (voters, methods) float64, two voters or more
) -> float:
    """Kendall's coefficient of concordance W with the correction for ties (Kendall & Babington Smith 1939).

    1 if all rank alike; 1 / voters expected at random; NaN if every voter ties everything.
    """
    voters, methods = ranks.shape
    spread = ((ranks.sum(axis=0) - voters * (methods + 1) / 2) ** 2).sum()
    ties = sum(float((count**3 - count).sum()) for count in (np.unique(row, return_counts=True)[1] for row in ranks))
    largest = voters**2 * (methods**3 - methods) - voters * ties
    return float(12 * spread / largest) if largest > 0 else float("nan")


def concordance(
    images: Sequence[np.ndarray],  # mid-ranks of each image, (voters, methods); those with a single voter are skipped
) -> tuple[float, float]:
    """Kendall's W averaged over images, and the p-value of no agreement at all; NaN if no image has two voters.

    m (k - 1) W of an image follows chi-square with k - 1 degrees of freedom if its m voters rank k methods at random;
    the sum over images follows the sum of the degrees.
    """
    found = [(ranks, kendall_w(ranks)) for ranks in images if len(ranks) > 1]
    found = [(ranks, w) for ranks, w in found if np.isfinite(w)]
    if not found:
        return float("nan"), float("nan")
    square = sum(ranks.shape[0] * (ranks.shape[1] - 1) * w for ranks, w in found)
    freedom = sum(ranks.shape[1] - 1 for ranks, _ in found)
    return float(np.mean([w for _, w in found])), float(stats.chi2.sf(square, freedom))


def pairwise_spearman(
    images: Sequence[np.ndarray],  # mid-ranks, (voters, methods) each
) -> float:
    """Spearman's rank correlation of two voters on an image, averaged over all pairs of all images.

    Unlike W it does not grow if voters are few: 1 if all rank alike, 0 expected at random. NaN if no image has two
    voters that rank methods differently.
    """
    found = []
    for ranks in images:
        centered = ranks - ranks.mean(axis=1, keepdims=True)
        length = np.sqrt((centered**2).sum(axis=1))
        for one, other in combinations(np.flatnonzero(length > 0), 2):
            found.append(centered[one] @ centered[other] / (length[one] * length[other]))
    return float(np.mean(found)) if found else float("nan")


def position_bias(
    shares: np.ndarray,  # votes of each position, (positions,) float64
) -> float:
    """The p-value of Pearson's chi-square test that all positions of the page get equal rank-1 votes.

    A small p means that a position attracted votes, or that chance put the better methods there.
    """
    return float(stats.chisquare(shares).pvalue) if shares.sum() > 0 else float("nan")


@dataclass(frozen=True, eq=False)
class Tally:
    """Counts of the votes. Methods are in the order of the chart: most rank-1 votes first."""

    methods: list[str]  # their names
    rankings: int  # complete rankings counted: one voter, one image
    voters: int  # that gave one at least
    images: int  # that have one at least
    shares: np.ndarray  # part of the votes that put a method at a rank, (methods, ranks); rows and columns sum to 1
    mean_rank: np.ndarray  # (methods,), 1 is best
    interval: np.ndarray  # of the mean rank, (methods, 2), see `mean_rank_interval`
    # part of the rankings in which the row's method beats the column's, ties half, (methods, methods)
    wins: np.ndarray
    kendall_w: float  # mean over images; NaN where no image has two voters
    kendall_p: float  # of no agreement at all
    spearman: float  # mean over pairs of voters
    first_by_position: np.ndarray  # part of the rank-1 votes that went to each position of the page, (positions,)
    position_p: float  # of positions being alike


def tally(ballots: Sequence[Ballot], key: StudyKey) -> Tally:
    """Count the votes of ballots, one per voter; DataError if there is no complete ranking."""
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


def mean_rank_interval(
    ranks: np.ndarray,  # (voters, images, methods) float64, NaN where a voter did not rank an image
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> np.ndarray:
    """Bootstrap interval of each method's mean rank, over voters and images (the pigeonhole bootstrap, Owen 2007).

    Each resample takes voters and, independently, images with replacement: a ranking counts as often as its voter
    times as often as its image. Returns (methods, 2): lower and upper end.
    """
    rng = np.random.default_rng(seed)
    voters, images, _ = ranks.shape
    voter_counts = rng.multinomial(voters, np.full(voters, 1 / voters), resamples).astype(
        np.float64
    )  # (resamples, voters)
    image_counts = rng.multinomial(images, np.full(images, 1 / images), resamples).astype(
        np.float64
    )  # (resamples, images)
    given = ~np.isnan(ranks[:, :, 0])
    counted = ((voter_counts @ given) * image_counts).sum(axis=1)  # (resamples,)
    sums = [((voter_counts @ np.nan_to_num(plane)) * image_counts).sum(axis=1) for plane in np.moveaxis(ranks, 2, 0)]
    means = np.array(sums)[:, counted > 0] / counted[counted > 0]  # (methods, resamples)
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
