"""Labels of images: read from a table, and made into groups."""

import pytest

from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.evaluate.groups import Labels, read_labels, split_into_groups
from gpen_plugin.evaluate.options import ReportOptions


def read(tmp_path, text: str, columns=None) -> Labels:
    file = tmp_path / "labels.csv"
    file.write_text(text, encoding="utf-8")
    return read_labels(ReportOptions(labels=str(file), label_columns=columns))


def of_one_column(labels) -> tuple[Labels, list[str]]:
    """Labels of a column called ``c``, and the keys of its images."""
    keys = [f"face_{place}" for place in range(len(labels))]
    return Labels(["c"], {key: {"c": str(label)} for key, label in zip(keys, labels, strict=True)}), keys


def named(labels) -> dict[str, list[int]]:
    """The groups of one column, with the places of their members."""
    groups, _ = split_into_groups(*of_one_column(labels))
    return {group.name: group.members.nonzero()[0].tolist() for group in groups}


def test_no_file_is_no_labels():
    assert read_labels(ReportOptions()) is None


def test_images_are_known_by_key_or_file_name(tmp_path):
    text = "\ufefffile, race ,age\nfolder/a.jpg,White, 20-29\n\nb,Black,\nimg.0001,Indian,3\nimg.0002.PNG,Other,4\n"
    labels = read(tmp_path, text)
    assert labels.columns == ["race", "age"]
    assert list(labels.of_image) == ["folder/a", "b", "img.0001", "img.0002"]
    assert labels.of_image["folder/a"] == {"race": "White", "age": "20-29"}
    assert labels.of_image["b"]["age"] == ""


def test_chosen_columns_come_in_their_order(tmp_path):
    assert read(tmp_path, "file,race,age,gender\na,x,y,z\n", ["gender", "race"]).columns == ["gender", "race"]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", DataError, "begins with nothing; expected a head line"),
        ("file\na\n", DataError, "begins with file; expected a head line"),
        ("file,c,c\na,1,2\n", DataError, "begins with file, c, c"),
        ("file,c\na.png,1\na.jpg,2\n", DataError, "'a' stands there twice"),
        ("file,age,gender\na,1,2\n", OptionError, "report:label_columns: got race, .*expected some of age, gender"),
    ],
)
def test_wrong_label_table_is_an_error(tmp_path, text, error, message):
    with pytest.raises(error, match=message):
        read(tmp_path, text, ["race"] if "age" in text else None)


def test_missing_label_table_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"report:labels: .*nowhere.csv cannot be read"):
        read_labels(ReportOptions(labels=str(tmp_path / "nowhere.csv")))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"label_columns": ["a"]}, "report:label_columns: given without labels"),
        ({"labels": "a.csv", "label_columns": []}, r"report:label_columns: got \[\]"),
        ({"labels": "a.csv", "label_columns": ["a", "a"]}, "report:label_columns: got .*each once"),
        ({"labels": "a.csv", "label_columns": "age"}, "report:label_columns: got 'age'"),
        ({"labels": 3}, "report:labels: got 3"),
    ],
)
def test_options_of_labels_are_checked(given, message):
    with pytest.raises(OptionError, match=message):
        ReportOptions.from_options(given)


def test_groups_are_sorted_by_leading_number():
    labels = ["more than 70", "20-29", "3-9", "0-2", "10-19", "3-9"]
    assert named(labels) == {"0-2": [3], "3-9": [2, 5], "10-19": [4], "20-29": [1], "more than 70": [0]}
    assert list(named(labels)) == ["0-2", "3-9", "10-19", "20-29", "more than 70"]


def test_more_than_eight_numbers_are_cut_into_thirds():
    assert list(named([5, 3, 8, 1, 2, 4, 6, 7])) == ["1", "2", "3", "4", "5", "6", "7", "8"]
    nine = [0.30, 0.00, 0.01, 0.02, 0.10, 0.11, 0.12, 0.20, 0.25]
    assert named(nine) == {"0.00 to 0.02": [1, 2, 3], "0.10 to 0.12": [4, 5, 6], "0.20 to 0.30": [0, 7, 8]}
    assert list(named([-40, -5, -4, -3, 0, 3, 4, 5, 40])) == ["-40 to -4", "-3 to 3", "4 to 40"]


def test_equal_numbers_stay_together():
    groups = named([1] * 10 + [2, 3, 4, 5, 6, 7, 8, 9])
    assert [len(members) for members in groups.values()] == [10, 2, 6]
    assert list(groups) == ["1.0", "2.0 to 3.0", "4.0 to 9.0"]


@pytest.mark.parametrize(
    ("numbers", "groups"),
    [
        ([*range(1, 10), *[99] * 20], {"1 to 9": 9, "99": 20}),
        ([*[0] * 20, *range(1, 10)], {"0.0": 20, "1.0 to 9.0": 9}),
        ([*range(1, 5), *[5] * 20, *range(6, 12)], {"1 to 4": 4, "5": 20, "6 to 11": 6}),
    ],
)
def test_frequent_number_is_a_group_of_its_own(numbers, groups):
    assert {name: len(members) for name, members in named(numbers).items()} == groups


def test_names_of_thirds_differ():
    groups = named([0.001, 0.002, 0.003, 0.011, 0.012, 0.013, 0.02, 0.03, 100])
    assert [len(members) for members in groups.values()] == [3, 3, 3]
    assert len(groups) == 3


def test_other_images_of_a_group_have_a_label():
    labels, keys = of_one_column(["a", "b", "", "a"])
    groups, notes = split_into_groups(labels, keys)
    assert [(group.name, group.images, group.others.tolist()) for group in groups] == [
        ("a", 2, [False, True, False, False]),
        ("b", 1, [True, False, False, True]),
    ]
    assert notes == ["c: 1 image is labeled, but not in this column."]


def test_unmatched_labels_and_images_are_counted():
    labels, keys = of_one_column(["a", "b", "a"])
    _, notes = split_into_groups(labels, [*keys[:2], "new_0", "new_1"])
    assert notes == [
        "2 images are not labeled and in no group.",
        "1 line of the labels belongs to no image.",
    ]


def test_column_of_names_is_left_out():
    labels, keys = of_one_column([f"person {place}" for place in range(41)])
    assert split_into_groups(labels, keys) == ([], ["c: 41 different texts are no groups; left out."])
