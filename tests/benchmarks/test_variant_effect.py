import math

import numpy as np
import pytest
import torch
from helpers.small_networks import SMALL, built
from variant_effect import (
    Effect,
    csv_table,
    face_region,
    main,
    markdown_table,
    measure_effect,
    variant_sheet,
)

from gpen_plugin import GPEN
from gpen_plugin.images.files import write_image
from gpen_plugin.restore.alignment import template
from gpen_plugin.restore.network import TorchNetwork, open_network
from gpen_plugin.restore.variants import Variation


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "net_g_latest.pth"
    torch.save({"params_ema": built(lambda: GPEN(64, in_size=32, **SMALL)).state_dict()}, path)
    return path


@pytest.fixture
def network(weights) -> TorchNetwork:
    return open_network(weights, device="cpu")


def faces(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.random((32, 32, 3), np.float32) for _ in range(count)]


@pytest.mark.parametrize("convention", ["ffhq", "gpen", "arcface", "dlib"])
def test_the_face_is_where_its_points_are(convention):
    region = face_region(template(convention), 64)
    for x, y in template(convention) * 64 - 0.5:
        assert region[round(y), round(x)]
    assert 0.2 < region.mean() < 0.75
    assert not region[[0, 0, -1, -1], [0, -1, 0, -1]].any()


def test_effects_need_no_weights(network, monkeypatch, tmp_path):
    monkeypatch.setenv("GPEN_PLUGIN_OFFLINE", "1")
    monkeypatch.setenv("GPEN_PLUGIN_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    variations = [
        Variation(strength=0.0),
        Variation(strength=0.25),
        Variation(strength=1.0),
        Variation(strength=1.0, reference=faces(1)[0]),
    ]
    none, little, much, reference = measure_effect(network, faces(3), variations, draws=2)
    for effect in (none, little, much, reference):
        assert all(math.isnan(value) for value in (effect.identity, effect.landmarks, effect.lpips))
    assert (none.inside, none.outside, none.diversity) == (0, 0, 0)
    assert 0 < little.inside < much.inside
    assert 0 < little.diversity < much.diversity
    assert reference.inside > 0
    assert math.isnan(reference.diversity)


def test_inside_and_outside_are_of_their_pixels(network, monkeypatch):
    """A change of the background alone is one of the background alone."""
    region = face_region(template("dlib"), 64)
    shifted = np.where(region, 0, 10)[..., None].astype(np.float32) / 255

    class Shifted:
        def __init__(self, network, variation, index):
            self.index = index

        def __call__(self, faces):
            return [np.full((64, 64, 3), 0.2, np.float32) + self.index * shifted for _ in faces]

    monkeypatch.setattr("variant_effect.VariedNetwork", Shifted)
    monkeypatch.setattr(network, "_run_batch", lambda faces: [np.full((64, 64, 3), 0.2, np.float32) for _ in faces])
    (effect,) = measure_effect(network, faces(1), [Variation()], draws=2, template="dlib")
    assert (effect.inside, effect.outside, effect.diversity) == (0, 15, 0)


def test_tables():
    effect = Effect("latents 7- by 0.5, seed 0", math.nan, 1.25, 0.5, 2.0, 3.0, math.nan)
    assert csv_table([effect]) == (
        "setting,identity,landmarks,lpips,inside,outside,diversity\n"
        '"latents 7- by 0.5, seed 0",,1.250,0.500,2.000,3.000,\n'
    )
    assert markdown_table([effect]).splitlines()[2] == (
        "| latents 7- by 0.5, seed 0 | - | 1.250 | 0.500 | 2.000 | 3.000 | - |"
    )


def test_a_sheet_shows_each_setting(network):
    variations = [Variation(strength=0.5), Variation(strength=1.0)]
    page = variant_sheet(network, faces(3), variations)
    assert page.shape[1] == 4 * (128 + 4) + 4
    assert page.shape[0] > 3 * 128


def test_command(weights, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GPEN_PLUGIN_OFFLINE", "1")
    for number, face in enumerate(faces(2)):
        write_image(tmp_path / "in" / f"{number}.png", np.rint(face * 255).astype(np.uint8))
    given = ["-m", str(weights), "-i", str(tmp_path / "in"), "--device", "cpu", "--layers", "fine", "0-1"]
    given += ["--strength", "0.5", "--draws", "2", "--sheet", str(tmp_path / "sheet.png")]
    assert main([*given, "-o", str(tmp_path / "table.csv")]) == 0
    assert "2 settings measured on 2 faces by GPEN 64 px" in capsys.readouterr().out
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["setting", '"latents 7- by 0.5', '"latents 0-1 by 0.5']
    assert (tmp_path / "sheet.png").is_file()
    reference = ["--reference", str(tmp_path / "in" / "0.png")]
    assert main([*given, *reference, "-o", str(tmp_path / "table.md")]) == 0
    assert "latents 7- by 0.5, a reference" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--layers", "12-14"], "layers: got 12-14, but the network has 10 latent codes"),
        (["--strength", "2"], "strength: got 2.0; expected a number from 0 to 1"),
        (["--reference", "nowhere.png"], "--reference: nowhere.png is not there"),
        (["-i", "nowhere"], "--input"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(weights, tmp_path, capsys, more, problem):
    write_image(tmp_path / "in" / "face.png", np.zeros((8, 8, 3), np.uint8))
    table = tmp_path / "table.md"
    given = ["-m", str(weights), "-i", str(tmp_path / "in"), "-o", str(table), "--device", "cpu", *more]
    assert main(given) == 1
    error = capsys.readouterr().err
    assert problem in error
    assert len(error.strip().splitlines()) == 1
    assert not table.exists()
    for option in (["-o", "table.txt"], ["--draws", "0"]):
        with pytest.raises(SystemExit, match="2"):
            main([*given, *option])
