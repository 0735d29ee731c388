import zipfile

import cv2
import numpy as np
import pytest
import torch

from gpen_plugin import GPEN, GPENDiscriminator
from gpen_plugin.archs.authors_keys import to_authors
from gpen_plugin.errors import CheckpointError, ShapeError
from gpen_plugin.restore import AlignedRestorer
from gpen_plugin.restore.__main__ import main


@pytest.fixture
def net():
    torch.manual_seed(0)
    return GPEN(32, in_size=16, num_style_feat=16, num_mlp=2, narrow=0.03125).eval()


@pytest.fixture
def weights(net, tmp_path):
    path = tmp_path / "net_g_latest.pth"
    other = {name: tensor + 1 for name, tensor in net.state_dict().items()}
    torch.save({"params": other, "params_ema": net.state_dict()}, path)
    return path


def picture(seed: int, height: int = 16, width: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_it_is_the_averaged_network_on_rgb_between_minus_1_and_1(net, weights):
    face = picture(0)
    (restored,) = AlignedRestorer(weights, device="cpu")([face])
    lq = torch.from_numpy(face[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        expected = ((net(lq)[0].permute(1, 2, 0).clamp(-1, 1) + 1) * 127.5).round().byte().numpy()[..., ::-1]
    assert np.abs(restored.astype(int) - expected.astype(int)).max() <= 1


def test_a_batch_gives_what_single_faces_give(weights):
    restorer = AlignedRestorer(weights, device="cpu")
    faces = [picture(0), picture(1, 40, 20), picture(2, 1, 1)]
    for alone, together in zip((restorer([face])[0] for face in faces), restorer(faces), strict=True):
        assert together.shape == (32, 32, 3)
        assert np.abs(alone.astype(int) - together.astype(int)).max() <= 1


def test_released_layout(net, tmp_path, weights):
    torch.save(to_authors(GPEN(32, narrow=0.03125).state_dict(), (1, 3, 3, 1)), tmp_path / "released.pth")
    restorer = AlignedRestorer(tmp_path / "released.pth", device="cpu")
    assert restorer.spec.out_size == 32
    assert restorer([picture(0)])[0].shape == (32, 32, 3)


def test_another_network_is_refused_by_name(tmp_path):
    torch.save(GPENDiscriminator(32, narrow=0.03125).state_dict(), tmp_path / "net_d.pth")
    with pytest.raises(CheckpointError, match=r"holds GPENDiscriminator 32 px.*expected a whole GPEN"):
        AlignedRestorer(tmp_path / "net_d.pth")


def test_a_grey_array_is_refused(weights):
    with pytest.raises(ShapeError, match=r"got \(16, 16\) uint8"):
        AlignedRestorer(weights, device="cpu")([picture(0)[..., 0]])


def test_command_keeps_folders_and_names_and_reports_what_it_cannot_read(weights, tmp_path, capsys):
    source, target = tmp_path / "in", tmp_path / "out"
    for name in ("a.jpg", "deeper/a.png", "deeper/b.png"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(source / name), picture(len(name)))
    (source / "broken.png").write_bytes(b"nothing")
    (source / "notes.txt").write_text("no picture")
    status = main(["--aligned", "-i", str(source), "-o", str(target), "-m", str(weights), "--device", "cpu"])
    assert status == 1
    written = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    assert written == ["a.png", "deeper/a.png", "deeper/b.png"]
    assert "broken.png: cannot be decoded" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "output"),
    [
        ("in", "in"),
        ("in", "in/deeper/.."),
        ("in", "link"),
        ("link", "in"),
        ("in", "in/deeper"),
        ("in/deeper", "in"),
        ("in/a.png", "in"),
        ("links", "in"),
        ("links", "links"),
        ("links/a.png", "in"),
    ],
)
def test_originals_are_not_overwritten(weights, tmp_path, capsys, given, output):
    names = ("a.png", "b.jpg", "deeper/a.png", "deeper/deeper/a.png")
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "in" / name), picture(len(name)))
    (tmp_path / "link").symlink_to(tmp_path / "in")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a.png").symlink_to(tmp_path / "in" / "a.png")
    before = {name: (tmp_path / "in" / name).read_bytes() for name in names}
    files = sorted(tmp_path.rglob("*"))
    paths = [str(tmp_path / given), "-o", str(tmp_path / output)]
    assert main(["--aligned", "-m", str(weights), "--device", "cpu", "-i", *paths]) == 1
    assert f"--output: got {tmp_path / output}" in (error := capsys.readouterr().err)
    assert "; expected another folder" in error
    assert {name: (tmp_path / "in" / name).read_bytes() for name in names} == before
    assert sorted(tmp_path.rglob("*")) == files


@pytest.mark.parametrize(("given", "output"), [("in", "in/restored"), ("in/a.png", "."), ("in/a.zip", "in")])
def test_a_folder_inside_or_around_the_inputs_is_another_one(weights, tmp_path, given, output):
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), picture(0))
    with zipfile.ZipFile(tmp_path / "in" / "a.zip", "w") as file:
        file.write(tmp_path / "in" / "a.png", "b.png")
    paths = [str(tmp_path / given), "-o", str(tmp_path / output)]
    assert main(["--aligned", "-m", str(weights), "--device", "cpu", "-i", *paths]) == 0
    assert cv2.imread(str(tmp_path / "in" / "a.png")).shape == (16, 16, 3)
    (restored,) = set((tmp_path / output).glob("*.png")) - {tmp_path / "in" / "a.png"}
    assert cv2.imread(str(restored)).shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-i", "nowhere"], "--input: nowhere is not there"),
        (["-m", "nowhere.pth"], "there is no such file"),
        (["--device", "meta2"], "device: got meta2"),
    ],
)
def test_missing_input_or_weights(weights, faces, tmp_path, capsys, arguments, message):
    defaults = ["--aligned", "-i", str(faces), "-o", str(tmp_path / "out"), "-m", str(weights), "--device", "cpu"]
    assert main([*defaults, *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_whole_photographs_are_refused_plainly(weights, faces, tmp_path):
    with pytest.raises(SystemExit, match="2"):
        main(["-i", str(faces), "-o", str(tmp_path), "-m", str(weights)])


def test_a_file_where_the_output_folder_should_be(weights, faces, tmp_path, capsys):
    (tmp_path / "out").write_text("a file")
    assert (
        main(["--aligned", "-i", str(faces), "-o", str(tmp_path / "out"), "-m", str(weights), "--device", "cpu"]) == 1
    )
    assert "cannot be written" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "a file"
