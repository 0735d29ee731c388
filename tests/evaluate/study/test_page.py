import base64
import json
import re

import cv2
import numpy as np
import pytest
from helpers.small_study import KEYS, METHODS, SIZE, small_results

from gpen_plugin.cli.study import main
from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.evaluate.study.page import make_page, read_key, select


def steps_of(html):
    return [
        json.loads(found) for found in re.findall(r'<script type="application/json" id="image-\w+">(.+)</script>', html)
    ]


def page(root, *, seed=0, **choices):
    results = small_results(root)
    selection = select(root, results, seed=seed)
    return make_page(root, results, selection, title="Faces", seed=seed, **choices)


def decoded(data):
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)


def test_key_and_page_fit(tmp_path):
    html, key = page(tmp_path)
    steps = steps_of(html)
    assert [step["id"] for step in steps] == [image.id for image in key.images]
    assert [image.key for image in key.images] == KEYS
    for step, image in zip(steps, key.images, strict=True):
        for name, data in step["images"].items():
            painted = decoded(data)[1, 1].astype(int)
            assert abs(painted - METHODS[image.methods[name]]).max() < 12
        assert decoded(step["input"]).shape == (SIZE, SIZE, 3)


def test_nothing_gives_methods_away(tmp_path):
    html, key = page(tmp_path)
    text = re.sub(r'"[A-Za-z0-9+/=]{100,}"', "", html)  # images could hold any four letters by chance
    assert len(text) < len(html)
    for word in [*METHODS, *KEYS, "row0", "wild", "gpen", str(tmp_path), key.fingerprint["digest"]]:
        assert word.lower() not in text.lower()
    assert not re.findall(r"https?://|src=.//|@import|url\(", text)
    names = [name for image in key.images for name in image.methods]
    assert len(set(names)) == len(names) == 9
    bare = [base64.b64decode(data) for step in steps_of(html) for data in step["images"].values()]
    assert all(data.startswith(b"\xff\xd8\xff\xe0") and b"Exif" not in data for data in bare)


def test_names_are_a_function_of_the_seed(tmp_path):
    assert page(tmp_path) == page(tmp_path)
    (_, one), (_, other) = page(tmp_path, seed=0), page(tmp_path, seed=1)
    assert one.study != other.study
    assert not {image.id for image in one.images} & {image.id for image in other.images}


def test_lossless_images_equal_those_of_the_evaluation(tmp_path):
    html, key = page(tmp_path, lossless=True, show_input=False)
    for step, image in zip(steps_of(html), key.images, strict=True):
        assert step["input"] is None
        for name, data in step["images"].items():
            assert tuple(decoded(data)[0, 0]) == METHODS[image.methods[name]]
    assert "damaged photograph" not in html.split("<script>")[0]


def test_tile_reduces(tmp_path):
    html, _ = page(tmp_path, tile=16)
    assert {decoded(data).shape for step in steps_of(html) for data in step["images"].values()} == {(16, 16, 3)}


def test_title_that_names_a_method_is_refused(tmp_path):
    results = small_results(tmp_path)
    with pytest.raises(OptionError, match=r"--title.*'our NETWORK, a study'"):
        make_page(tmp_path, results, select(tmp_path, results), title="our NETWORK, a study")


def test_title_is_escaped(tmp_path):
    results = small_results(tmp_path)
    html, _ = make_page(tmp_path, results, select(tmp_path, results), title="<b>Faces & more")
    assert "<b>Faces" not in html
    assert "&lt;b&gt;Faces &amp; more" in html


def test_failed_images_are_left_out_and_reported(tmp_path, capsys):
    small_results(tmp_path, failing=[("Bilinear", "carl")])
    assert main(["make", "-r", str(tmp_path), "-o", str(tmp_path / "study.html")]) == 0
    key = read_key(tmp_path / "study_key.json")
    assert [image.key for image in key.images] == KEYS[:2]
    assert "left out: carl: Bilinear: no face found" in capsys.readouterr().err
    assert (
        main(["make", "-r", str(tmp_path), "-o", str(tmp_path / "s.html"), "--methods", "Our network", "w/o noise"])
        == 0
    )
    assert [image.key for image in read_key(tmp_path / "s_key.json").images] == KEYS


def test_missing_image_leaves_the_image_out(tmp_path):
    results = small_results(tmp_path)
    (tmp_path / "methods/row1/restored/anna.png").unlink()
    selection = select(tmp_path, results)
    assert [image.key for image in selection.images] == KEYS[1:]
    assert [(failure.method, failure.key) for failure in selection.left_out] == [("Our network", "anna")]


def test_draw_of_images(tmp_path):
    results = small_results(tmp_path)
    drawn = {
        tuple(image.key for image in select(tmp_path, results, num_images=2, seed=seed).images) for seed in range(20)
    }
    assert drawn == {("anna", "folder/bert"), ("anna", "carl"), ("folder/bert", "carl")}
    assert [image.key for image in select(tmp_path, results, keys=["carl"]).images] == ["carl"]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"methods": ["Bicubic"]}, "--methods: got 'Bicubic'; expected one of 'Bilinear'"),
        ({"methods": ["Bilinear"]}, "--methods: 'Bilinear' only; expected 2 to 12 methods to rank"),
        ({"keys": ["dora"]}, "--keys: got 'dora'"),
        ({"num_images": 4}, "--images: got 4; expected at most 3"),
        ({"condition": "16x"}, "--condition: got '16x'; expected one of ''"),
    ],
)
def test_wrong_choices(tmp_path, choices, message):
    with pytest.raises(OptionError, match=re.escape(message)):
        select(tmp_path, small_results(tmp_path), **choices)


def test_no_image_left(tmp_path):
    results = small_results(tmp_path, failing=[("Bilinear", key) for key in KEYS])
    with pytest.raises(DataError, match="no image that all of Bilinear"):
        select(tmp_path, results)


def test_damaged_key_file(tmp_path):
    with pytest.raises(DataError, match="not there"):
        read_key(tmp_path / "study_key.json")
    small_results(tmp_path)
    main(["make", "-r", str(tmp_path), "-o", str(tmp_path / "study.html")])
    path = tmp_path / "study_key.json"
    path.write_text(path.read_text().replace("Bilinear", "Bicubic", 1))
    with pytest.raises(DataError, match="without each method once"):
        read_key(path)


def test_default_seed_is_random(tmp_path):
    small_results(tmp_path)
    keys = []
    for name in ("one", "other"):
        main(["make", "-r", str(tmp_path), "-o", str(tmp_path / f"{name}.html")])
        keys.append(read_key(tmp_path / f"{name}_key.json"))
    assert keys[0].study != keys[1].study
    assert not {image.id for image in keys[0].images} & {image.id for image in keys[1].images}
    main(["make", "-r", str(tmp_path), "-o", str(tmp_path / "again.html"), "--seed", str(keys[0].seed)])
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "one.html").read_bytes()
