from spandrel.architectures.GPEN import GPEN, GPENArch

from .util import (
    ModelFile,
    TestImage,
    assert_image_inference,
    assert_loads_correctly,
    assert_size_requirements,
    disallowed_props,
    skip_if_unchanged,
)

skip_if_unchanged(__file__)


def test_load():
    assert_loads_correctly(
        GPENArch(),
        lambda: GPEN(channels=(32, 16, 8, 4), num_downs=3, style_dim=16, num_mlp=2),
        lambda: GPEN(channels=(32, 16, 8, 4), num_downs=2, style_dim=16),
        lambda: GPEN(channels=(32, 16, 8), num_downs=2, style_dim=24, num_mlp=4),
        lambda: GPEN(channels=(32, 16, 8), num_downs=2, noise_mode="add"),
    )


def test_size_requirements():
    model = GPEN(channels=(32, 16, 8, 4), num_downs=3, style_dim=16, num_mlp=2)
    assert_size_requirements(GPENArch().load(model.state_dict()))


def test_GPEN_BFR_256(snapshot):
    file = ModelFile.from_url(
        "https://public-vigen-video.oss-cn-shanghai.aliyuncs.com/robin/models/GPEN-BFR-256.pth"
    )
    model = file.load_model()
    assert model == snapshot(exclude=disallowed_props)
    assert isinstance(model.model, GPEN)


def test_GPEN_BFR_512(snapshot):
    file = ModelFile.from_url(
        "https://public-vigen-video.oss-cn-shanghai.aliyuncs.com/robin/models/GPEN-BFR-512.pth"
    )
    model = file.load_model()
    assert model == snapshot(exclude=disallowed_props)
    assert isinstance(model.model, GPEN)
    assert_image_inference(file, model, [TestImage.BLURRY_FACE])
