"""GWAInet: its layers against direct formulas, the authors' variables, and files that are something else."""

import numpy as np
import pytest
import torch
from helpers.faces_to_restore import degraded, method
from helpers.small_networks import built
from PIL import Image

from gpen_plugin.baselines.gwainet_arch import LQ_MEAN, REFERENCE_MEAN, GWAInet, SameConv2d, resize_to, warp
from gpen_plugin.errors import CheckpointError, OptionError, ShapeError

SMALL = {"out_size": 32, "num_feat": 4, "warper_blocks": 1, "blocks": 1}


def test_parameters_of_the_authors_network():
    with torch.device("meta"):
        net = GWAInet()
    counts = [sum(p.numel() for p in part.parameters()) for part in (net.warper, net.generator)]
    assert counts == [1_297_154, 2_996_291]


def same_convolution(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """TensorFlow's definition: ceil(n / s) outputs, the smaller half of the padding in front. x is (C, H, W)."""
    sides = x.shape[1:]
    out = [-(-side // stride) for side in sides]
    front = [max(0, (n - 1) * stride + 3 - side) // 2 for n, side in zip(out, sides, strict=True)]
    result = np.zeros((len(kernel), *out))
    for row, column in np.ndindex(*out):
        for u, v in np.ndindex(3, 3):
            i, j = row * stride + u - front[0], column * stride + v - front[1]
            if 0 <= i < sides[0] and 0 <= j < sides[1]:
                result[:, row, column] += kernel[:, :, u, v] @ x[:, i, j]
    return result


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(6, 8), (7, 5)])
def test_padding_is_that_of_tensorflow(stride, shape):
    conv = built(lambda: SameConv2d(2, 3, stride)).double()
    x = torch.randn(1, 2, *shape, dtype=torch.float64)
    expected = same_convolution(x[0].numpy(), conv.weight.detach().numpy(), stride)
    expected += conv.bias.detach().numpy()[:, None, None]
    np.testing.assert_allclose(conv(x)[0].detach().numpy(), expected, atol=1e-12)


def flow_of(pixels_x: float, pixels_y: float, height: int, width: int) -> torch.Tensor:
    flow = torch.tensor([2 * pixels_x / (width - 1), 2 * pixels_y / (height - 1)], dtype=torch.float64)
    return flow[None, :, None, None].expand(1, 2, height, width)


def test_identity_flow_returns_the_image_but_its_last_row_and_column():
    image = torch.rand(1, 3, 5, 7, dtype=torch.float64) + 1
    warped = warp(image, flow_of(0, 0, 5, 7))
    torch.testing.assert_close(warped[:, :, :-1, :-1], image[:, :, :-1, :-1])
    assert not warped[:, :, -1].any()
    assert not warped[..., -1].any()


@pytest.mark.parametrize(("x", "y"), [(1, 0), (0, 2), (-1, 1)])
def test_flow_of_whole_pixels_shifts_the_image(x, y):
    image = torch.rand(1, 3, 8, 9, dtype=torch.float64) + 1
    warped = warp(image, flow_of(x, y, 8, 9))
    for row, column in np.ndindex(8, 9):
        i, j = row + y, column + x  # the last row and column depend on rounding
        if 0 <= i < 7 and 0 <= j < 8:
            torch.testing.assert_close(warped[..., row, column], image[..., i, j])
        elif min(i, j) < 0 or i > 7 or j > 8:
            assert not warped[..., row, column].any()


def test_outside_the_image_is_zero_and_between_pixels_is_their_mean():
    image = torch.rand(1, 1, 4, 4, dtype=torch.float64) + 1
    half = warp(image, flow_of(-0.5, 0, 4, 4))
    assert not half[..., 0].any()  # half a pixel outside: not faded, but 0
    torch.testing.assert_close(half[..., :3, 1], (image[..., :3, 0] + image[..., :3, 1]) / 2)
    assert not warp(image, flow_of(9, 0, 4, 4)).any()


def test_gradients_reach_the_flow():
    image = torch.arange(16, dtype=torch.float64).view(1, 1, 4, 4)
    flow = flow_of(0.25, 0.25, 4, 4).clone().requires_grad_()
    warp(image, flow)[..., 1, 1].sum().backward()
    # the image grows by 1 along x and by 4 along y; a pixel is 2 / 3 of the grid's unit
    torch.testing.assert_close(flow.grad[0, :, 1, 1], torch.tensor([1.5, 6.0], dtype=torch.float64))


@pytest.mark.parametrize("size", [4, 8, 40])
def test_resizing_is_that_of_pillow(size):
    plane = np.random.default_rng(0).random((20, 20), dtype=np.float32)
    expected = np.asarray(Image.fromarray(plane).resize((size, size), Image.BICUBIC))
    np.testing.assert_allclose(resize_to(torch.from_numpy(plane)[None, None], size)[0, 0].numpy(), expected, atol=1e-5)


def test_means_are_subtracted_and_the_output_is_not_changed():
    net, seen = built(lambda: GWAInet(**SMALL)), {}
    net.warper.register_forward_hook(lambda part, given, result: seen.update(warper=given))
    net.generator.register_forward_hook(lambda part, given, result: seen.update(generator=given, result=result))
    lq, ref = torch.full((1, 3, 4, 4), -0.5), torch.full((1, 3, 32, 32), 0.25)
    output = net(lq, ref)
    assert output.shape == (1, 3, 32, 32)
    torch.testing.assert_close(output, seen["result"])
    for index in range(3):
        small, guide = 0.25 - LQ_MEAN[index] / 255, 0.625 - REFERENCE_MEAN[index] / 255
        torch.testing.assert_close(seen["generator"][0][0, index], torch.full((4, 4), small))
        torch.testing.assert_close(seen["warper"][0][0, index], torch.full((32, 32), small))
        torch.testing.assert_close(seen["warper"][1][0, index], torch.full((32, 32), guide))


def test_reference_changes_the_result():
    net = built(lambda: GWAInet(**SMALL))
    lq, ref = torch.rand(2, 3, 20, 20), torch.rand(2, 3, 32, 32)
    one, other = net(lq, ref), net(lq, ref.flip(0))
    assert one.shape == (2, 3, 32, 32)
    assert (one != other).any()
    torch.testing.assert_close(net(lq[:1], ref[:1]), one[:1])


def test_wrong_sizes_are_an_error():
    with pytest.raises(OptionError, match="out_size: got 36; expected a multiple of 8"):
        GWAInet(36)
    with pytest.raises(ShapeError, match=r"GWAInet\(ref\)"):
        GWAInet(**SMALL)(torch.zeros(2, 3, 4, 4), torch.zeros(1, 3, 32, 32))


def as_tensorflow(net: GWAInet) -> dict[str, np.ndarray]:
    """The network's weights as TensorFlow's checkpoint reader gives them, with what a training adds."""
    arrays = {}
    for key, tensor in net.state_dict().items():
        array = tensor.permute(2, 3, 1, 0) if tensor.ndim == 4 else tensor
        arrays[key.replace(".", "/")] = np.ascontiguousarray(array.numpy())
    slots = {f"{name}/Adam": np.zeros(1, np.float32) for name in list(arrays)[:3]}
    return {**arrays, **slots, "beta1_power": np.float32(0.5), "global_step": np.int64(54000)}


def test_variables_of_the_authors_have_the_names_and_shapes_of_their_code():
    with torch.device("meta"):
        net = GWAInet()
    shapes = {key.replace(".", "/"): tuple(tensor.shape) for key, tensor in net.state_dict().items()}
    for name, shape in {
        "warper/input_encoder/conv1/weight": (64, 6, 3, 3),
        "warper/input_encoder/conv_input_res/bias": (64,),
        "warper/input_encoder/resblocks/resblock8/conv2/weight": (64, 64, 3, 3),
        "warper/flow_decoder/upsampler3/weight": (256, 64, 3, 3),
        "warper/flow_decoder/conv1/bias": (2,),
        "generator/input_g_preprocessing/conv1/weight": (64, 3, 3, 3),
        "generator/conv1_g/weight": (64, 64, 3, 3),
        "generator/resblocks/resblocks_1/weight": (64, 128, 3, 3),
        "generator/resblocks/resblocks_3/resblock_g4/conv1/bias": (64,),
        "generator/resblocks/resblocks_4/resblock4/conv2/weight": (64, 64, 3, 3),
        "generator/conv_before_skip/weight": (64, 64, 3, 3),
        "generator/upsamplers/upsampler3/weight": (256, 64, 3, 3),
        "generator/conv_final/weight": (3, 64, 3, 3),
    }.items():
        assert shapes[name] == shape


ENTRY = {
    "type": "arch",
    "network": {"type": "GWAInet", **SMALL},
    "value_range": [-1, 1],
    "input_size": "native",
    "reference_size": 32,
}


def with_reference(seed=0):
    return degraded(seed, size=32, ref=degraded(9, 32, 32).lq)


def test_exported_variables_restore_as_the_network_does(tmp_path):
    net = built(lambda: GWAInet(**SMALL))
    np.savez(tmp_path / "gwainet.npz", **as_tensorflow(net))
    torch.save({"params_ema": net.state_dict()}, tmp_path / "gwainet.pth")
    images = [
        method({**ENTRY, "weights": str(tmp_path / name)})(with_reference()) for name in ("gwainet.npz", "gwainet.pth")
    ]
    np.testing.assert_array_equal(*images)
    sample = with_reference()
    images_in = (torch.from_numpy(image[..., ::-1].copy()) for image in (sample.lq, sample.ref))
    lq, ref = (image.permute(2, 0, 1)[None] / 127.5 - 1 for image in images_in)
    with torch.no_grad():
        expected = ((net(lq, ref)[0].clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0).numpy()[..., ::-1]
    assert np.abs(images[0].astype(int) - expected).max() <= 1


def test_files_of_something_else_are_refused_with_what_they_are(tmp_path):
    def load(name):
        method({**ENTRY, "weights": str(tmp_path / name)})

    np.savez(tmp_path / "other.npz", **{"discriminator/conv1/weight": np.zeros((3, 3, 3, 4), np.float32)})
    with pytest.raises(CheckpointError, match=r"holds discriminator/conv1/weight; expected all tensors of GWAInet"):
        load("other.npz")
    arrays = as_tensorflow(built(lambda: GWAInet(**{**SMALL, "num_feat": 6})))
    np.savez(tmp_path / "wide.npz", **arrays)
    with pytest.raises(CheckpointError, match=r"conv1.weight is \(6, 6, 3, 3\), not \(4, 6, 3, 3\)"):
        load("wide.npz")
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    with pytest.raises(CheckpointError, match=r"objects\.npz: cannot be read"):
        load("objects.npz")
    for file in ("model.ckpt-54000.index", "model.ckpt-54000.data-00000-of-00001"):
        (tmp_path / file).write_bytes(b"x")
    for name in ("model.ckpt-54000", "model.ckpt-54000.index", "model.ckpt-54000.data-00000-of-00001"):
        with pytest.raises(CheckpointError, match=r"is a TensorFlow checkpoint; expected .*an \.npz file"):
            load(name)
    (tmp_path / "netG.t7").write_bytes(b"\4\0\0\0")
    with pytest.raises(CheckpointError, match=r"netG\.t7: is a file of Torch7 .* a method of type folder"):
        load("netG.t7")


def test_reference_size_is_required_and_refused_elsewhere():
    with pytest.raises(OptionError, match="reference_size: missing, and GWAInet takes a reference face"):
        method({**ENTRY, "weights": "random", "reference_size": None})
    with pytest.raises(OptionError, match="reference_size: got 0; expected a number above 0"):
        method({**ENTRY, "weights": "random", "reference_size": 0})
    entry = {"type": "arch", "network": {"type": "torch.nn.Identity"}, "weights": "random", "value_range": [0, 1]}
    with pytest.raises(OptionError, match="reference_size: got 8, and Identity takes the image alone"):
        method({**entry, "reference_size": 8})
