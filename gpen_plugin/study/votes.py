"""Files of votes: read, checked against the key, and turned into ranks. What a browser wrote may have been edited."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gpen_plugin.errors import DataError
from gpen_plugin.study.key_file import StudyImage, StudyKey

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Ranking:
    """How a voter ranked one image.

    Attributes:
        places: place of each method, (methods,) int from 0, equal where tied, without gaps between them.
        position: where on the page each method stood, (methods,) int from 0.
    """

    places: np.ndarray
    position: np.ndarray

    @property
    def ranks(self) -> np.ndarray:
        """Mid-ranks from 1, (methods,) float64: those that tie share the mean of the ranks that they take up."""
        above = (self.places[None, :] < self.places[:, None]).sum(axis=1)
        beside = (self.places[None, :] == self.places[:, None]).sum(axis=1)
        return above + (beside + 1) / 2

    @property
    def shares(self) -> np.ndarray:
        """Share of a vote that each method gets for each rank, (methods, ranks) float64; rows and columns sum to 1."""
        above = (self.places[None, :] < self.places[:, None]).sum(axis=1)[:, None]
        beside = (self.places[None, :] == self.places[:, None]).sum(axis=1)[:, None]
        rank = np.arange(len(self.places))[None, :]
        return ((rank >= above) & (rank < above + beside)) / beside


@dataclass(frozen=True)
class Ballot:
    """The votes of one voter.

    Attributes:
        file: where they were read from.
        voter: a random name that the page drew.
        name: what the voter calls himself, or empty.
        exported: when, as the browser wrote it.
        rankings: key of an image -> ranking, complete ones alone.
        begun: how many images have a ranking that is not complete.
    """

    file: str
    voter: str
    name: str
    exported: str
    rankings: Mapping[str, Ranking] = field(repr=False)
    begun: int


def read_ballot(path: Path, key: StudyKey) -> Ballot:
    """Read what a volunteer exported.

    Raises:
        DataError: another study, something that the page does not write, or nonsense.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        _demand(isinstance(content, dict), "it is no file of votes")
        _demand(content.get("format") == FORMAT, f"format {content.get('format')!r}")
        _demand(content.get("study") == key.study, f"it is of study {content.get('study')!r}")
        for entry in ("voter", "name", "exported"):
            _demand(isinstance(content.get(entry), str), f"{entry!r} is {content.get(entry)!r}")
        _demand(bool(content["voter"]), "the voter is empty")
        _demand(isinstance(content.get("votes"), list), "'votes' is no list")
        rankings, begun = _rankings(content["votes"], key)
    except (OSError, ValueError, RecursionError) as error:
        expected = f"votes of study {key.study}, as its page exports them"
        raise DataError(str(path), f"refused ({error})", expected, "Export the votes again.") from error
    return Ballot(path.name, content["voter"], content["name"], content["exported"], rankings, begun)


def one_per_voter(ballots: Iterable[Ballot]) -> tuple[list[Ballot], list[str]]:
    """Keep one file of each voter: the fullest, then the latest.

    Returns:
        (ballots in the order of their voters' names, what to tell: files left out, names that two voters share).
    """
    kept: dict[str, Ballot] = {}
    told = []
    for ballot in sorted(ballots, key=lambda ballot: (len(ballot.rankings), ballot.exported, ballot.file)):
        if ballot.voter in kept:
            told.append(f"{kept[ballot.voter].file}: left out; {ballot.file} is of the same voter, and fuller or later")
        kept[ballot.voter] = ballot
    found = sorted(kept.values(), key=lambda ballot: ballot.voter)
    names = [ballot.name.casefold() for ballot in found if ballot.name]
    for name in sorted({name for name in names if names.count(name) > 1}):
        files = ", ".join(ballot.file for ballot in found if ballot.name.casefold() == name)
        told.append(f"{files}: two voters of one name; both are counted")
    return found, told


def _rankings(votes: list, key: StudyKey) -> tuple[dict[str, Ranking], int]:
    images = {image.id: image for image in key.images}
    rankings, seen, begun = {}, set(), 0
    for vote in votes:
        _demand(isinstance(vote, dict) and isinstance(vote.get("image"), str), "a vote without an image")
        image = images.get(vote["image"])
        _demand(image is not None, f"image {vote['image']!r} is not in the study")
        _demand(image.id not in seen, f"image {image.id!r} comes twice")
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
    _demand(_are_names(shown), f"image {image.id!r}: 'shown' is no list of names")
    _demand(sorted(shown) == sorted(image.methods), f"image {image.id!r}: 'shown' are not its images")
    _demand(isinstance(places, list) and all(map(_are_names, places)), f"image {image.id!r}: 'places' are no lists")
    ranked = [name for names in places for name in names]
    unknown = [name for name in ranked if name not in image.methods]
    _demand(not unknown, f"image {image.id!r}: image {unknown[:1]} is not in the study")
    _demand(len(set(ranked)) == len(ranked), f"image {image.id!r}: an image is ranked twice")
    _demand(key.allow_ties or all(len(names) < 2 for names in places), f"image {image.id!r}: a tie; none is allowed")
    if len(ranked) < len(image.methods):
        return None
    at = {name: place for place, names in enumerate(names for names in places if names) for name in names}
    by_method = {method: name for name, method in image.methods.items()}
    names = [by_method[method] for method in key.methods]
    return Ranking(np.array([at[name] for name in names]), np.array([shown.index(name) for name in names]))


def _are_names(names: object) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
