import cv2
import numpy as np
import pytest
import torch
from helpers.restorer_parts import FACES, brighter, face_at, photograph, restorer

from gpen_plugin import GPEN
from gpen_plugin.errors import OptionError, ShapeError
from gpen_plugin.images.photograph import Photograph
from gpen_plugin.restore.alignment import side_in_photograph
from gpen_plugin.restore.identity_gate import IdentityGate
from gpen_plugin.restore.restorer import ALREADY_SHARP, Restorer
from gpen_plugin.restore.zoo import DEFAULT


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    net = GPEN(32, in_size=16, num_style_feat=16, num_mlp=2, narrow=0.03125).eval()
    path = tmp_path_factory.mktemp("weights") / "net_g_latest.pth"
    torch.save({"params": net.state_dict(), "params_ema": net.state_dict()}, path)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_network_that_changes_nothing_changes_nothing(dtype):
    image = photograph().astype(dtype) * (np.iinfo(dtype).max // 255)
    result = restorer().restore(image)
    assert result.image.dtype == dtype
    assert len(result.faces) == 2
    difference = np.abs(result.image.astype(float) - image) / np.iinfo(dtype).max * 255
    assert difference.mean() < 1
    assert difference.max() < 4


def test_faces_change_and_the_rest_does_not():
    image = photograph()
    change = restorer(brighter).restore(image).image.astype(int) - image
    assert change[100:120, 80:100].mean() > 40  # the middle of the first face
    assert change[115:125, 225:235].mean() > 40
    assert (change[:, :20] == 0).all()
    assert (change[-20:] == 0).all()


def test_alpha_is_how_much():
    image = photograph()
    changes = [
        restorer(brighter, alpha=alpha).restore(image).image[105:115, 85:95].mean() - image[105:115, 85:95].mean()
        for alpha in (0, 0.5, 1)
    ]
    assert changes[0] == 0
    assert changes[1] == pytest.approx(changes[2] / 2, abs=1)


def test_faces_of_several_photographs_share_batches():
    made = restorer(batch=3)
    results = made.restore_all([photograph(seed=seed) for seed in range(4)])
    assert made.network.batches == [3, 3, 2]
    assert [len(result.faces) for result in results] == [2, 2, 2, 2]


def test_face_positions_may_be_given():
    made = restorer(brighter, faces=[])
    image = photograph()
    assert (made.restore(image).image == image).all()
    assert (made.restore(image, faces=FACES[:1]).image != image).any()


def test_gray_stays_gray():
    gray = cv2.cvtColor(photograph(), cv2.COLOR_BGR2GRAY)
    redder = restorer(lambda face: face + np.float32([0, 0, 0.3]))
    assert redder.restore(gray).image.shape == gray.shape
    three = redder.restore(np.repeat(gray[..., None], 3, axis=2)).image
    assert (three[..., 0] == three[..., 2]).all()
    assert (three != gray[..., None]).any()


def test_alpha_channels_are_kept():
    alpha = np.random.default_rng(0).integers(0, 256, (240, 320, 1), dtype=np.uint8)
    image = np.concatenate([photograph(), alpha], axis=2)
    result = restorer(brighter).restore(image).image
    assert result.shape == image.shape
    assert (result[..., 3:] == alpha).all()


def test_keep_color_keeps_the_color():
    image = photograph()

    def changed(**options):
        result = restorer(lambda face: face + np.float32([0, 0, 0.3]), **options).restore(image).image
        return np.abs(result[100:120, 80:100].astype(int) - image[100:120, 80:100]).mean()

    assert changed(keep_color=True) < changed() / 4


def test_face_of_another_identity_stays_unchanged():
    made = restorer(brighter, identity=0.5)

    class Gate(IdentityGate):
        def __call__(self, crop, restored, template):
            return 0.9 if abs(crop.mean() - Gate.first) < 1e-6 else float("nan")

    image = photograph()
    Gate.first = restorer().restore(image).faces[0].crop.mean()
    made._gate = Gate(0.5)
    result = made.restore(image)
    assert result.faces[0].skip_reason is None
    assert result.faces[0].identity == 0.9
    assert result.faces[1].skip_reason == "identity below 0.5 (--identity)"
    change = result.image.astype(int) - image
    assert change[105:115, 85:95].mean() > 40
    assert (change[115:125, 225:235] == 0).all()


def test_identity_model_of_the_user_is_used(tmp_path):
    """It sees the mean color: one face stays as it is, the other turns from gray to blue."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from helpers.onnx_models import mean_color

    def bluer_where_bright(face):
        return np.where(face.mean() > 0.5, face * np.float32([1, 0.1, 0.1]), face)

    image = np.full((240, 320, 3), 100, np.uint8)
    image[:, 160:] = 160
    file = mean_color(tmp_path / "mean.onnx")
    made = restorer(bluer_where_bright, identity=0.9, identity_model=file)
    result = made.restore(image)
    assert result.faces[0].identity == pytest.approx(1, abs=0.01)
    assert result.faces[1].identity < 0.9
    assert [face.skip_reason is None for face in result.faces] == [True, False]
    assert (result.image == image).all()
    aligned = made.restore(image[:, 160:], aligned=True)  # higher than wide
    assert aligned.faces[0].skip_reason is not None
    assert (aligned.image == 160).all()


@pytest.mark.parametrize("alpha", [0, 0.5, 1])
def test_strength_of_aligned_faces(alpha):
    image = np.full((40, 64, 3), 100, np.uint8)
    result = restorer(brighter, alpha=alpha).restore(image, aligned=True)
    assert result.image.shape == (64, 64, 3)
    assert np.abs(result.image.astype(int) - (100 + alpha * 51)).max() <= 1


@pytest.mark.parametrize("upscale", [2, 1.5])
def test_upscaling(upscale):
    image = photograph()
    plain = restorer(upscale=upscale).restore(image).image
    assert plain.shape == (240 * upscale, 320 * upscale, 3)
    large = cv2.resize(image, None, fx=upscale, fy=upscale, interpolation=cv2.INTER_CUBIC)
    assert np.abs(plain.astype(int) - large)[:, : int(20 * upscale)].max() == 0
    change = restorer(brighter, upscale=upscale).restore(image).image.astype(int) - plain
    region = tuple(slice(int(edge * upscale), int((edge + 10) * upscale)) for edge in (105, 85))
    assert change[region].mean() > 40


def test_aligned_faces_go_through_the_network_whole(weights):
    faces = [photograph(16, 16), photograph(40, 20, seed=1), photograph(1, 1)]
    made = Restorer(weights, device="cpu", batch=2)
    together = made.restore_all(faces, aligned=True)
    net = made.network.net
    lq = torch.from_numpy(faces[0][..., ::-1].copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        expected = ((net(lq)[0].permute(1, 2, 0).clamp(-1, 1) + 1) * 127.5).round().byte().numpy()[..., ::-1]
    assert np.abs(together[0].image.astype(int) - expected).max() <= 1
    for face, result in zip(faces, together, strict=True):
        assert result.image.shape == (32, 32, 3)
        alone = made.restore(face, aligned=True).image
        assert np.abs(alone.astype(int) - result.image).max() <= 1


def test_faces_can_be_pasted_again_without_the_network():
    made = restorer(brighter)
    image = photograph()
    result = made.restore(image)
    batches = len(made.network.batches)
    again = made.paste_back(image, result.faces)
    assert (again.image == result.image).all()
    only_second = made.paste_back(image, result.faces[1:]).image
    assert (only_second[105:115, 85:95] == image[105:115, 85:95]).all()
    assert (made.paste_back(image, result.faces, alpha=0).image == image).all()
    assert len(made.network.batches) == batches


def test_metadata_is_kept():
    source = Photograph.of(photograph())
    assert restorer(brighter).restore(source).photograph.metadata is source.metadata


@pytest.mark.parametrize("image", [np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_other_arrays_are_refused(image):
    with pytest.raises(ShapeError, match=r"expected .*uint8 or uint16"):
        restorer().restore(image)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"alpha": 1.2}, "alpha: got 1.2; expected a number from 0 to 1"),
        ({"upscale": 0.5}, "upscale: got 0.5; expected a number from 1 to 16"),
        ({"batch": 0}, "batch: got 0; expected a number from 1"),
        ({"identity_model": "face.onnx"}, "identity_model: got face.onnx without identity; expected identity"),
        ({"identity": 2}, "identity: got 2; expected a cosine, from -1 to 1"),
    ],
)
def test_options_out_of_range(options, said):
    with pytest.raises(OptionError, match=said):
        restorer(**options)


def test_gray_photograph_stays_gray_when_enlarged():
    made = restorer(upscale=2)
    redder = np.array([0, 0, 40], np.uint8)
    made._background = lambda pixels: cv2.add(np.kron(pixels, np.ones((2, 2, 1), np.uint8)), redder)
    gray = np.repeat(cv2.cvtColor(photograph(), cv2.COLOR_BGR2GRAY)[..., None], 3, axis=2)
    result = made.restore(gray).image
    assert result.shape == (480, 640, 3)
    assert (result[..., 0] == result[..., 2]).all()
    assert (made.restore(photograph()).image[..., 2] > photograph().mean()).any()


def test_faces_above_max_face_stay_unchanged():
    image = photograph()
    sides = sorted(round(side_in_photograph(face.crop, face.matrix)) for face in restorer().restore(image).faces)
    most = (sides[0] + sides[1]) / 2
    made = restorer(brighter, max_face=most)
    result = made.restore(image)
    kept = [
        face.skip_reason for face in sorted(result.faces, key=lambda face: side_in_photograph(face.crop, face.matrix))
    ]
    assert kept == [
        None,
        f"larger than {most:g} px (--max-face); a larger network can restore it, e.g. -m GPEN-BFR-512",
    ]
    assert (result.image != image).any()
    assert (restorer(brighter, max_face=1).restore(image).image == image).all()
    whole = made.restore(np.full((200, 200, 3), 99, np.uint8), aligned=True)
    assert whole.faces[0].skip_reason is None


def sharp() -> np.ndarray:
    """Some rings on the first face of a photograph, (240, 320, 3) uint8."""
    image = photograph()
    image[:] = 128
    for x, y, radius in ((75, 100, 8), (105, 100, 8), (90, 125, 12), (90, 110, 3)):
        cv2.circle(image, (x, y), radius, (200, 190, 180), 2, cv2.LINE_AA)
    return image


def blur(sigma: float):
    return lambda face: cv2.GaussianBlur(face, (0, 0), sigma)


def sharpen(face):
    return face + 4 * (face - cv2.GaussianBlur(face, (0, 0), 2))


@pytest.mark.parametrize("scale", [1, 4])
def test_sharp_faces_stay_and_blurred_ones_are_restored_at_any_size(scale):
    image = cv2.resize(sharp(), None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    faces = [face_at(90 * scale, 110 * scale, 100 * scale)]
    if scale == 1:
        result = restorer(blur(2), faces=faces, skip_sharp=True).restore(image)
        assert result.unchanged
        (face,) = result.faces
        assert (face.weight, face.skip_reason) == (0, ALREADY_SHARP)
        assert face.added_detail < 1
    soft = cv2.GaussianBlur(image, (0, 0), 2.5 * scale)
    result = restorer(sharpen, faces=faces, skip_sharp=True).restore(soft)
    (face,) = result.faces
    assert (face.weight, face.skip_reason) == (1, None)
    assert (result.image != soft).any()


def test_a_face_that_is_nearly_as_sharp_is_blended():
    image, faces = sharp(), FACES[:1]

    def changes(**options):
        made = restorer(lambda face: face + 0.3 * (face - cv2.GaussianBlur(face, (0, 0), 2)), faces=faces, **options)
        result = made.restore(image)
        return result.faces[0].weight, np.abs(result.image.astype(int) - image).mean()

    weight, blended = changes(skip_sharp=True)
    whole, most = changes(skip_sharp=False)
    assert 0.1 < weight < 0.9
    assert whole == 1
    assert blended == pytest.approx(weight * most, rel=0.2)


def test_aligned_faces_are_restored_whatever_their_detail():
    result = restorer(blur(2), skip_sharp=True).restore(sharp(), aligned=True)
    assert result.faces[0].added_detail is None
    assert result.faces[0].skip_reason is None


def test_an_aligned_face_of_the_default_model_has_the_border_of_its_input():
    crop = cv2.GaussianBlur(sharp(), (0, 0), 3)
    default, other = (Restorer(model, device="cpu").restore(crop, aligned=True).image for model in (None, DEFAULT))
    shown = cv2.resize(crop, default.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    assert np.abs(default[:4].astype(float) - shown[:4]).max() <= 1
    assert np.abs(other[:4].astype(float) - shown[:4]).max() > 1


def test_the_default_model_skips_sharp_faces_unless_the_size_decides():
    default = Restorer(device="cpu")
    assert (default.skip_sharp, default.keep_color, default.max_face) == (True, True, None)
    other = Restorer(DEFAULT, device="cpu")
    assert (other.skip_sharp, other.keep_color) == (False, False)
    assert not Restorer(device="cpu", max_face=500).skip_sharp
    assert Restorer(DEFAULT, device="cpu", skip_sharp=True).skip_sharp
    with pytest.raises(OptionError, match="max_face: got 0"):
        Restorer(device="cpu", max_face=0)
