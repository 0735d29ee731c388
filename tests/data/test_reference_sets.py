"""Reference faces: which image is the reference of which, and that none is the ground truth."""

import cv2
import numpy as np
import pytest
import torch
from helpers.training_images import color_image, write_faces, write_lmdb

from gpen_plugin.data.gpen_degradation_dataset import GPENDegradationDataset
from gpen_plugin.data.image_source import FolderSource
from gpen_plugin.data.references import ReferenceOptions, References, is_copy, read_identities
from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.host.data_cursor import SampleIndex


@pytest.fixture
def folder(tmp_path):
    """Images face_0 to face_5."""
    return write_faces(tmp_path / "gt", 6)


@pytest.fixture
def table(tmp_path):
    """face_0, face_1 and face_2 show a, face_3 and face_4 b, face_5 c."""
    path = tmp_path / "identities.csv"
    path.write_text("image,identity\n" + "".join(f"face_{i}.png,{who}\n" for i, who in enumerate("aaabbc")))
    return str(path)


def by_identity(folder, table):
    return References(ReferenceOptions(identities=table), FolderSource(folder, "gt"), True, "references")


def test_reference_is_another_image_of_the_identity(folder, table):
    references = by_identity(folder, table)
    assert set(references.candidates("face_0")) == {"face_1", "face_2"}
    assert references.candidates("face_3") == ["face_4"]
    assert references.candidates("face_5") == references.candidates("unlisted") == []
    assert references.select(["face_5", "face_4", "face_0"]) == ["face_4", "face_0"]


def test_choice_depends_on_the_key_alone(folder, table):
    names = [f"face_{i}" for i in range(40)]

    class Source:
        keys = names

    path = folder.parent / "one.csv"
    path.write_text("image,identity\n" + "".join(f"{name},a\n" for name in names))
    whole = References(ReferenceOptions(identities=str(path)), Source(), True, "references")
    first = {name: whole.candidates(name)[0] for name in names}
    assert len(set(first.values())) > 10
    path.write_text("image,identity\n" + "".join(f"{name},a\n" for name in reversed(names[1:])))
    fewer = References(ReferenceOptions(identities=str(path)), Source(), True, "references")
    for name in names[1:]:
        if first[name] != names[0]:
            assert fewer.candidates(name)[0] == first[name]


def test_copy_of_the_ground_truth_is_not_its_reference(folder, table):
    references, truth = by_identity(folder, table), color_image(0)
    chosen = references.candidates("face_0")[0]
    np.testing.assert_array_equal(
        references.find(["face_0", chosen], truth, 32), cv2.imread(str(folder / f"{chosen}.png"))
    )
    cv2.imwrite(str(folder / "face_1.png"), cv2.flip(truth, 1))
    cv2.imwrite(str(folder / "face_2.png"), truth)
    assert references.find(references.candidates("face_0"), truth, 32) is None


@pytest.mark.parametrize("size", [48, 100, 300])
def test_copies_of_other_sizes_and_encodings_are_recognized(size):
    image = color_image(1, 200, 200)
    copy = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if size < 200 else cv2.INTER_CUBIC)
    encoded = cv2.imdecode(cv2.imencode(".jpg", copy, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)
    assert is_copy(encoded, image)
    assert is_copy(cv2.flip(encoded, 1), image)
    assert not is_copy(color_image(2, size, size), image)


def test_unreadable_reference_gives_way_to_the_next(folder, table):
    references = by_identity(folder, table)
    first, second = references.candidates("face_0")
    (folder / f"{first}.png").write_bytes(b"no image")
    found = references.find([first, second], color_image(0), 16)
    assert found.shape == (16, 16, 3)
    assert references.find([first], color_image(0), 16) is None


def test_references_of_the_same_key(folder, tmp_path):
    other = write_faces(tmp_path / "references", 2)
    references = References(ReferenceOptions(dataroot=str(other)), FolderSource(other, "ref"), False, "references")
    assert references.candidates("face_1") == ["face_1"]
    assert references.candidates("face_2") == []
    assert references.find(["face_1"], color_image(1), 32) is None  # the same image
    with pytest.raises(DataError, match="references: none of 1 images has a reference of its name"):
        references.select(["face_9"])


@pytest.mark.parametrize(
    ("options", "truth", "message"),
    [
        ({}, "gt", "references:dataroot: got gt, the ground truth: each image would be its own reference"),
        ({"dataroot": "./gt/"}, "gt", "each image would be its own reference.*Add identities"),
        ({"identities": "a.csv"}, None, "references:dataroot: missing; expected a folder of reference faces"),
    ],
)
def test_ground_truth_as_its_own_reference_is_an_error(options, truth, message):
    with pytest.raises(OptionError, match=message):
        ReferenceOptions(**options).check(truth, "references")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no lines; expected the columns image and identity"),
        ("file,person\na,b\n", "has the columns file, person"),
        ("image,identity\na,1\nb,\n", "line 3; expected one image and its identity"),
        ("image,identity\na.png,1\na.jpg,1\n", r"line 3: 'a\.jpg' is listed twice"),
    ],
)
def test_wrong_tables_are_an_error(tmp_path, text, message):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_identities(str(tmp_path / "table.csv"), "identities")
    with pytest.raises(DataError, match=r"identities: nowhere\.csv cannot be read"):
        read_identities("nowhere.csv", "identities")


def options(folder, table, **more):
    degradation = {"kernel_size": [3, 5], "downsample_range": [1, 4]}
    data = {"dataroot_gt": str(folder), "out_size": 32, "degradation": degradation, "name": "s", "type": "-"}
    return {**data, "references": {"identities": table}, **more}


def image_of(tensor: torch.Tensor) -> np.ndarray:
    return np.rint((tensor.numpy().transpose(1, 2, 0)[:, :, ::-1] + 1) * 127.5).astype(np.uint8)


def test_validation_item_has_the_reference_of_the_protocol(folder, table):
    dataset = GPENDegradationDataset(options(folder, table, phase="val"))
    assert dataset.keys == [f"face_{i}" for i in range(5)]  # face_5 has none
    references = by_identity(folder, table)
    for key, item in zip(dataset.keys, dataset, strict=True):
        expected = cv2.imread(str(folder / f"{references.candidates(key)[0]}.png"))
        np.testing.assert_array_equal(image_of(item["ref"]), expected)


def test_training_takes_any_reference_and_mirrors_it_with_the_face(folder, table):
    dataset = GPENDegradationDataset(options(folder, table, phase="train", use_hflip=True, num_images=1))
    seen = set()
    for position in range(20):
        item = dataset[SampleIndex(0, 0, position)]
        mirrored = not np.array_equal(image_of(item["gt"]), color_image(0))
        ref = image_of(item["ref"])[:, :: -1 if mirrored else 1]
        (number,) = [i for i in (1, 2) if np.array_equal(ref, color_image(i))]
        seen.add((number, mirrored))
    assert seen == {(1, False), (1, True), (2, False), (2, True)}


def test_items_without_references_are_as_before(folder, table):
    with_references = GPENDegradationDataset(options(folder, table, phase="train"))
    without = GPENDegradationDataset(options(folder, table, phase="train", references=None))
    index = SampleIndex(1, 0, 1)
    assert "ref" not in without[index]
    for name in ("lq", "gt"):
        torch.testing.assert_close(with_references[index][name], without[index][name], rtol=0, atol=0)


def test_references_in_an_lmdb(tmp_path, table):
    root = write_lmdb(tmp_path / "gt.lmdb", {f"face_{i}": color_image(i) for i in range(6)})
    dataset = GPENDegradationDataset(options(root, table, phase="val", io_backend={"type": "lmdb"}))
    assert dataset[3]["ref"].shape == (3, 32, 32)


def test_copies_alone_are_no_reference_in_training(folder, table):
    cv2.imwrite(str(folder / "face_4.png"), color_image(3))
    dataset = GPENDegradationDataset(options(folder, table, phase="val"))
    with pytest.raises(DataError, match=r"face_3\.png: has no reference but copies of itself"):
        dataset[3]


@pytest.mark.parametrize(
    ("references", "message"),
    [
        ({}, "datasets:val:references:dataroot: got .* the ground truth"),
        ({"identity": "x"}, "datasets:val:references:identity: unknown key.*Did you mean 'identities'"),
        ({"identities": "nowhere.csv"}, "datasets:val:references:identities: nowhere.csv cannot be read"),
    ],
)
def test_wrong_references_are_found_before_the_training(folder, references, message):
    with pytest.raises((OptionError, DataError), match=message):
        GPENDegradationDataset(options(folder, None, phase="val", references=references))
