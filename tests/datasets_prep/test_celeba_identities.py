"""The table of identities of CelebA-HQ."""

import re
from pathlib import Path

import celeba_identities
import pytest
from helpers.training_images import write_faces

from gpen_plugin.data.references import read_identities


@pytest.fixture
def lists(tmp_path):
    """Four images, of which 0 and 3 show one person."""
    mapping, identities = tmp_path / "mapping.txt", tmp_path / "identity.txt"
    mapping.write_text("idx orig_idx orig_file\n0 7 000008.jpg\n1 4 000005.jpg\n2 1 000002.jpg\n3 0 000001.jpg\n")
    identities.write_text("000001.jpg 31\n000002.jpg 5\n000005.jpg 6\n000008.jpg 31\n")
    return ["--mapping", str(mapping), "--identities", str(identities), "-o", str(tmp_path / "out" / "table.csv")]


def test_table_has_the_keys_of_the_images(lists, tmp_path, capsys):
    folder = write_faces(tmp_path / "images", 4)  # face_0 to face_3
    assert celeba_identities.main([*lists, "--images", str(folder)]) == 0
    found = read_identities(lists[-1], "identities")
    assert found == {"face_0": "31", "face_1": "6", "face_2": "5", "face_3": "31"}
    assert "4 images of 3 identities\n2 images have another image of their identity" in capsys.readouterr().out


def test_table_without_images_has_bare_numbers(lists):
    assert celeba_identities.main(lists) == 0
    assert read_identities(lists[-1], "identities") == {"0": "31", "1": "6", "2": "5", "3": "31"}


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (1, "idx orig_idx orig_file\n9 7 000008.jpg\n", "mapping.txt has no image 0"),
        (3, "000002.jpg 5\n", "000008.jpg has no identity"),
        (3, "000001.jpg 5 7\n", "--identities: .* has the line '000001.jpg 5 7'; expected 2 words in each line"),
        (1, "", "--mapping: .* is empty"),
    ],
)
def test_wrong_lists_are_an_error(lists, tmp_path, capsys, file, text, message):
    Path(lists[file]).write_text(text)
    folder = write_faces(tmp_path / "images", 1)
    assert celeba_identities.main([*lists, "--images", str(folder)]) == 1
    assert re.search(message, capsys.readouterr().err)
