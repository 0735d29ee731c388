"""GPEN in spandrel, the library by which ComfyUI, chaiNNer, InvokeAI and others read networks.

    import gpen_plugin.spandrel, spandrel

    gpen_plugin.spandrel.install()
    face = spandrel.ModelLoader().load_from_file("GPEN-BFR-512.pth")(image)  # (1, 3, H, W), RGB in [0, 1]

The files are those of GPEN's authors and of this package, ``.pth`` and safetensors. spandrel passes on the tensors
alone: another `lr_mlp` than the usual one, or images of [0, 1] (the authors' Seg2face), cannot be known.
"""

import torch
import torch.nn.functional as F
from spandrel import (
    MAIN_REGISTRY,
    Architecture,
    ArchSupport,
    ImageModelDescriptor,
    ModelTiling,
    SizeRequirements,
    StateDict,
)

from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.key_maps import detect_layout, filter_taps
from gpen_plugin.checkpoints.checkpoint import build, infer_spec
from gpen_plugin.checkpoints.metadata import Metadata

OF_TRAINING = ("g_ema", "g")  # entries of the authors' training files, which spandrel does not unwrap


class GPENArch(Architecture[GPEN]):
    """The entry of spandrel's registry."""

    def __init__(self) -> None:
        super().__init__(id="GPEN", detect=lambda state: detect_layout(_unwrapped(state) or ()) in _GPEN)

    def load(self, state_dict: StateDict) -> ImageModelDescriptor[GPEN]:
        """The network of a state dict. CheckpointError: tensors missing, superfluous or misshapen."""
        state = _unwrapped(state_dict)
        taps, spec = filter_taps(state), infer_spec(state)
        net = build(spec, None if taps is None else Metadata(arguments={"resample_kernel": taps}))
        return ImageModelDescriptor(
            net,
            state,
            architecture=self,
            purpose="FaceSR",
            tags=[f"{net.out_size}px"],
            supports_half=False,  # the codes overflow
            supports_bfloat16=True,
            scale=net.out_size // net.in_size,
            input_channels=3,
            output_channels=3,
            size_requirements=SizeRequirements(square=True),
            tiling=ModelTiling.DISCOURAGED,  # an image is one face
            call_fn=_restore,
        )


def install(*, ignore_duplicates: bool = False) -> list[ArchSupport]:
    """Add GPEN to spandrel's `MAIN_REGISTRY`. Returns what was added.

    Raises spandrel's `DuplicateArchitectureError` if it is there already, unless `ignore_duplicates`.
    """
    return MAIN_REGISTRY.add(ArchSupport.from_architecture(GPENArch()), ignore_duplicates=ignore_duplicates)


_GPEN = (("GPEN", "ours"), ("GPEN", "authors"))


def _unwrapped(state: StateDict) -> StateDict:
    return next((state[entry] for entry in OF_TRAINING if isinstance(state.get(entry), dict)), state)


def _restore(net: GPEN, image: torch.Tensor) -> torch.Tensor:
    """An aligned face (N, 3, H, W), RGB in [0, 1] -> (N, 3, scale H, scale W), about [0, 1]."""
    scale = net.out_size // net.in_size
    size = (image.shape[2] * scale, image.shape[3] * scale)
    output = (net(image * 2 - 1) + 1) / 2  # resizes the image to its own size
    return output if output.shape[2:] == size else F.interpolate(output, size, mode="bilinear", antialias=True)
