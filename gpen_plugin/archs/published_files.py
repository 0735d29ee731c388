"""What the published files of other methods hold, by the names of their tensors, and BasicSR's names of them."""

import re
from collections.abc import Collection, Mapping

import torch

# Names that no other file has together -> what the file holds. The first that fits is taken.
_MARKS: dict[tuple[str, ...], str] = {
    ("model.1.weight", "model.38.weight"): "Pix2PixHD's global generator",
    ("model1_1.1.weight", "model1_2.7.weight"): "Pix2PixHD with its local enhancer",
    ("block1.0.weight", "res3.0.conv1.weight", "up2.2.weight"): "Super-FAN's generator, blocks at three sizes",
    ("block1.0.weight", "res1.0.conv1.weight", "up2.2.weight"): "Super-FAN's generator of jzijin, blocks [12, 3, 0]",
    ("m0.b1_4.conv1.weight", "l0.weight", "bn_end0.weight"): "FAN, the landmark network",
    ("encoder.input_layer.0.weight", "decoder.input.input"): "pSp, of its authors",
    ("encoder.input_layer.0.weight", "encoder.styles.0.linear.weight"): "pSp without its decoder",
    ("input_layer.0.weight", "body.0.res_layer.1.weight"): "IR-SE-50, a network of face recognition",
    ("VggExtract.RGB_mean", "MSDilate.convi.weight_orig"): "DFDNet, of its authors",
    ("vgg_extractor.mean", "multi_scale_dilation.conv_fusion.weight_orig"): "DFDNet, of BasicSR",
    ("scale0_layer0.0.weight", "scale1_layer0.0.weight"): "Pix2PixHD's discriminator",
    ("warper/flow_decoder/conv1/weight", "generator/conv_final/weight"): "GWAInet, as TensorFlow names its variables",
    ("warper.flow_decoder.conv1.weight", "generator.conv_final.weight"): "GWAInet",
    (
        "G_middle_0.norm_0.mlp_gamma.weight",
        "lip_encoder.model.0.weight",
    ): "HiFaceGAN's lipspade, of its authors",
    ("g_middle_0.norm_0.mlp_gamma.weight", "lip_encoder.model.0.weight"): "HiFaceGAN's lipspade, of BasicSR",
    ("G_middle_0.norm_0.mlp_gamma.weight", "fc.weight"): "SPADE's generator, which HiFaceGAN's authors use for 4x",
    ("g_middle_0.norm_0.mlp_gamma.weight", "encoder.head.0.weight"): "HiFaceGANPaper",
}

# VGG-19's layers in torchvision's order, as BasicSR names them
_VGG19 = [
    name
    for stage, count in enumerate((2, 2, 4, 4, 4), 1)
    for name in [f"{kind}{stage}_{i}" for i in range(1, count + 1) for kind in ("conv", "relu")] + [f"pool{stage}"]
]
_PARTS = {"le": "left_eye", "re": "right_eye", "no": "nose", "mo": "mouth"}

# BasicSR's network -> patterns of the authors' names, and their names in it; None leaves a tensor out.
_RENAMINGS: dict[str, tuple[tuple[str, str | None], ...]] = {
    "HiFaceGAN": ((r"^G_middle_", "g_middle_"),),
    "DFDNet": (
        # a second name of the same layers; what training used alone; and the blur, which is constant
        (r"^VggExtract\.(features|model\.classifier)\.|^to_rgb\d\.|^up\d\.conv1\.0\.", None),
        *((rf"^VggExtract\.model\.features\.{i}\.", f"vgg_extractor.vgg_net.{name}.") for i, name in enumerate(_VGG19)),
        (r"^VggExtract\.RGB_", "vgg_extractor."),
        *((rf"^{theirs}_(\d+)\.", rf"attn_blocks.{ours}_\1.") for theirs, ours in _PARTS.items()),
        *((rf"^MSDilate\.conv{i}\.", f"multi_scale_dilation.conv_blocks.{i - 1}.") for i in (1, 2, 3, 4)),
        (r"^MSDilate\.convi\.", "multi_scale_dilation.conv_fusion."),
        (r"^up(\d)\.", r"upsample\1."),
        (r"\.ScaleModel1\.", ".scale_block."),
        (r"\.ShiftModel1\.", ".shift_block."),
        (r"^(upsample4\.\d)\.Model\.", r"\1.body."),
    ),
}
_UNUSED = {"HiFaceGAN": r"fc\.|to_rgbs\.[012]\."}  # tensors of BasicSR's network that do not act on the image


def published_network(names: Collection[str]) -> str | None:
    """What a file with these tensors holds, if it is one of another method; else None."""
    return next((held for marks, held in _MARKS.items() if all(mark in names for mark in marks)), None)


def to_basicsr(
    network: str,  # the class in BasicSR
    given: Mapping[str, torch.Tensor],  # a file of the authors or of BasicSR
    own: Mapping[str, torch.Tensor],  # the network's, from which unused tensors are taken that the file lacks
) -> dict[str, torch.Tensor]:
    """Give the tensors of the authors' files the names that they have in BasicSR's network; others are unchanged."""
    renamed = {}
    for name, tensor in given.items():
        for pattern, replacement in _RENAMINGS.get(network, ()):
            if name is not None and re.search(pattern, name):
                name = None if replacement is None else re.sub(pattern, replacement, name)
        if name is not None:
            renamed[name] = tensor
    unused = _UNUSED.get(network)
    missing = {name: own[name] for name in own.keys() - renamed.keys() if unused and re.match(unused, name)}
    return renamed | missing
