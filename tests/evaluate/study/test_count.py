import dataclasses
import itertools
import json

import cv2
import numpy as np
import pytest
from helpers.small_study import METHODS, small_results

from gpen_plugin.cli.study import main
from gpen_plugin.errors import DataError
from gpen_plugin.evaluate.study import figure8 as tables
from gpen_plugin.evaluate.study.page import read_key
from gpen_plugin.evaluate.study.votes import mean_rank_interval, read_ballot, tally

BILINEAR, OURS, WITHOUT = METHODS
GOOD, BAD = (OURS, WITHOUT, BILINEAR), (BILINEAR, WITHOUT, OURS)


@pytest.fixture
def study(tmp_path):
    small_results(tmp_path)
    main(["make", "-r", str(tmp_path), "-o", str(tmp_path / "study.html")])
    return tmp_path


@pytest.fixture
def study_with_ties(tmp_path):
    small_results(tmp_path)
    main(["make", "-r", str(tmp_path), "-o", str(tmp_path / "study.html"), "--allow-ties"])
    return tmp_path


def content(root, voter, rankings, name=""):
    """What the page exports: `rankings` are, image by image, methods best first, or tuples of them where tied."""
    key = read_key(root / "study_key.json")
    votes = []
    for image, ranking in zip(key.images, rankings, strict=False):
        names = {method: name for name, method in image.methods.items()}
        places = [[names[one] for one in ([place] if isinstance(place, str) else place)] for place in ranking]
        shown = [names[method] for method in METHODS]
        votes.append({"image": image.id, "shown": shown, "places": places + [[]] * (3 - len(places))})
    order = [image.id for image in key.images]
    head = {"format": 1, "study": key.study, "voter": voter, "name": name, "seed": "0", "exported": "2021-06-19"}
    return {**head, "order": order, "votes": votes}


def plant(root, voter, rankings, file=None, **others):
    path = root / f"{file or voter}.json"
    path.write_text(json.dumps({**content(root, voter, rankings), **others}))
    return path


def counted(root, *files):
    status = main(["count", *map(str, files), "-k", str(root / "study_key.json"), "-o", str(root / "out")])
    return status, json.loads((root / "out/table.json").read_text())


def test_exact_numbers(study):
    files = [plant(study, "v1", [GOOD, GOOD, GOOD]), plant(study, "v2", [GOOD, GOOD, BAD])]
    status, table = counted(study, *files)
    assert status == 0
    assert (table["voters"], table["images"], table["rankings"]) == (2, 3, 6)
    assert [row["method"] for row in table["methods"]] == [OURS, BILINEAR, WITHOUT]
    assert [row["mean_rank"] for row in table["methods"]] == pytest.approx([8 / 6, 16 / 6, 2])
    assert table["methods"][0]["shares"] == pytest.approx([5 / 6, 0, 1 / 6])
    assert table["methods"][2]["shares"] == pytest.approx([0, 1, 0])
    assert table["wins"][0] == [None, pytest.approx(5 / 6), pytest.approx(5 / 6)]
    assert table["kendall_w"] == pytest.approx((1 + 1 + 0) / 3)
    assert table["spearman"] == pytest.approx((1 + 1 - 1) / 3)
    assert table["first_by_position"] == pytest.approx([1 / 6, 5 / 6, 0])
    text = (study / "out/table.md").read_text()
    assert f"| {OURS} | **83.3** | **1.33** |" in text
    assert r"\textbf{83.3} & \textbf{1.33}" in (study / "out/table.tex").read_text()
    assert (study / "out/table.csv").read_text().splitlines()[1].startswith(f"{OURS},1.3333333333333333,")


def test_positions_are_those_that_the_voter_saw(study):
    votes = content(study, "v1", [GOOD, GOOD, BAD])
    for vote in votes["votes"]:
        vote["shown"] = [vote["shown"][place] for place in (1, 2, 0)]  # ours first, bilinear last
    _, table = counted(study, plant(study, "v1", [], **{"votes": votes["votes"]}))
    assert table["first_by_position"] == pytest.approx([2 / 3, 0, 1 / 3])


def test_ties_share_ranks(study_with_ties):
    status, table = counted(study_with_ties, plant(study_with_ties, "v1", [[(OURS, WITHOUT), BILINEAR]]))
    assert status == 0
    rows = {row["method"]: row for row in table["methods"]}
    assert rows[OURS]["shares"] == rows[WITHOUT]["shares"] == [0.5, 0.5, 0]
    assert (rows[OURS]["mean_rank"], rows[BILINEAR]["mean_rank"]) == (1.5, 3)
    assert table["kendall_w"] is None
    assert "no image has two voters" in (study_with_ties / "out/table.md").read_text()


def test_unfinished_rankings_are_reported_and_not_counted(study, capsys):
    status, table = counted(study, plant(study, "v1", [GOOD, [OURS]]))
    assert (status, table["rankings"], table["images"]) == (0, 1, 1)
    assert "v1.json: 1 of 3 images ranked, 1 incomplete and not counted" in capsys.readouterr().err


def test_voter_counts_once(study):
    files = [plant(study, "v1", [GOOD, GOOD], file="late"), plant(study, "v1", [BAD], file="early")]
    for order in itertools.permutations(files):
        _, table = counted(study, *order)
        assert (table["voters"], table["rankings"]) == (1, 2)
        assert table["methods"][0]["shares"][0] == 1
        assert any("early.json: left out; late.json" in note for note in table["notes"])


def test_two_voters_of_one_name_are_reported(study):
    files = [plant(study, voter, [GOOD], name=name) for voter, name in (("v1", "Ann"), ("v2", "ann"))]
    _, table = counted(study, *files)
    assert table["voters"] == 2
    assert "v1.json, v2.json: two voters have this name; both are counted" in table["notes"]


def edited(change):
    def edit(votes):
        change(votes)
        return votes

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda votes: [], "it is not a file of votes"),
        (edited(lambda votes: votes.update(study="another")), "it is of study 'another'"),
        (edited(lambda votes: votes.update(format=2)), "format 2"),
        (edited(lambda votes: votes.update(voter=7)), "'voter' is 7"),
        (edited(lambda votes: votes.update(votes="all")), "'votes' is no list"),
        (edited(lambda votes: votes["votes"].append(3)), "a vote without an image"),
        (edited(lambda votes: votes["votes"].append(votes["votes"][0])), "occurs twice"),
        (edited(lambda votes: votes["votes"][0].update(image="ff")), "image 'ff' is not in the study"),
        (edited(lambda votes: votes["votes"][0].update(shown=["a"])), "'shown' are not its images"),
        (edited(lambda votes: votes["votes"][0].update(shown=None)), "'shown' is no list of names"),
        (edited(lambda votes: votes["votes"][0].update(places={"a": 1})), "'places' are no lists"),
        (edited(lambda votes: votes["votes"][0]["places"].append(["ff"])), "image ['ff'] is not in the study"),
        (edited(lambda votes: votes["votes"][0]["places"].append(votes["votes"][0]["places"][0])), "is ranked twice"),
        (edited(lambda votes: votes["votes"][0]["places"][0].extend(votes["votes"][0]["places"].pop())), "a tie"),
    ],
)
def test_nonsense_is_refused_and_the_others_go_on(study, edit, message, capsys):
    bad = study / "bad.json"
    bad.write_text(json.dumps(edit(content(study, "v2", [BAD, BAD, BAD]))))
    status, table = counted(study, bad, plant(study, "v1", [GOOD, GOOD, GOOD]))
    assert (status, table["voters"]) == (1, 1)
    output = capsys.readouterr().err
    assert f"{bad}: refused" in output
    assert message in output


@pytest.mark.parametrize("text", ["{", "\xff\xfe", "[" * 100000])
def test_invalid_json_is_refused(study, text):
    path = study / "bad.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match="refused"):
        read_ballot(path, read_key(study / "study_key.json"))


def test_no_complete_ranking_writes_nothing(study, capsys):
    path = plant(study, "v1", [[OURS]])
    assert main(["count", str(path), "-k", str(study / "study_key.json"), "-o", str(study / "out")]) == 1
    assert "no complete ranking" in capsys.readouterr().err
    assert not (study / "out").exists()


def test_chart_is_deterministic_and_shows_the_votes(study):
    files = [plant(study, "v1", [GOOD, GOOD, GOOD])]
    counted(study, *files)
    first = (study / "out/figure8.png").read_bytes()
    counted(study, *files)
    assert (study / "out/figure8.png").read_bytes() == first
    image = cv2.imdecode(np.frombuffer(first, np.uint8), cv2.IMREAD_COLOR)
    darkest = (np.abs(image.astype(int) - image.reshape(-1, 3)[_bluest(image)]).sum(axis=2) < 8).sum()
    counted(study, plant(study, "v1", [GOOD, GOOD, BAD]))
    other = cv2.imread(str(study / "out/figure8.png"))
    assert darkest > 0.02 * image.shape[0] * image.shape[1]
    assert (other != image).any()


def _bluest(image):
    flat = image.reshape(-1, 3).astype(int)
    return int(np.argmax(flat[:, 0] - flat[:, 2]))


def test_one_voter_interval_is_over_images():
    """With one voter it is the ordinary bootstrap, whose spread is known: std / sqrt(n)."""
    rng = np.random.default_rng(0)
    first = rng.uniform(1, 2, 100)  # no steps between the means of the resamples
    ranks = np.stack([first, 3 - first], axis=1)[None]  # (1, images, 2)
    lower, upper = mean_rank_interval(ranks, resamples=10_000)[0]
    # the width has a standard error of 1 % from the number of resamples
    assert (upper - lower) / 2 == pytest.approx(1.96 * first.std() / np.sqrt(100), rel=0.08)
    assert (lower + upper) / 2 == pytest.approx(first.mean(), abs=0.01)


def test_interval_knows_that_voters_differ():
    """Voters who differ, each the same on all images: the number of images does not narrow the interval.

    Of 8 resampled voters, X rank method 0 second, X binomial: P(X <= 0) = 0.4 % and P(X <= 1) = 3.5 %.
    """
    ranks = np.ones((8, 100, 2))
    ranks[:4, :, 0] = 2
    ranks[4:, :, 1] = 2
    assert mean_rank_interval(ranks, resamples=10_000).tolist() == [[1 + 1 / 8, 1 + 7 / 8]] * 2


def test_interval_ignores_unranked_images(study):
    key = read_key(study / "study_key.json")
    files = [plant(study, "v1", [GOOD, GOOD, GOOD]), plant(study, "v2", [GOOD])]
    found = tally([read_ballot(file, key) for file in files], key)
    assert found.interval.tolist() == [[1, 1], [2, 2], [3, 3]]


def test_names_are_escaped_in_the_tables(study):
    key = read_key(study / "study_key.json")
    found = tally([read_ballot(plant(study, "v1", [GOOD, GOOD, GOOD]), key)], key)
    found = dataclasses.replace(found, methods=["[b]*", "<i>_50%_", "a & b"])
    page = tables.latex(found, key)
    assert "\n{[}b{]}{*} & " in page
    assert "\n\\textless{}i\\textgreater{}\\_50\\%\\_ & " in page
    assert "\nMethod & Rank 1 (\\%) $\\uparrow$ & Mean rank $\\downarrow$ & 95 \\% interval & Rank 2 (\\%) &" in page
    assert "| &lt;i&gt;\\_50%\\_ | " in tables.markdown(found, key, [])


def test_tiny_p_is_no_zero(study):
    voters = [plant(study, f"v{place}", [GOOD, GOOD, GOOD]) for place in range(20)]
    notes = "".join(counted(study, *voters)[1]["notes"])
    assert "p < 0.001 if all positions are alike" in notes
    assert "0.000" not in notes
