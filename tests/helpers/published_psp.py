"""A published file of pSp, with narrow layers, from the key list of its authors."""

import torch

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.key_maps import to_authors
from helpers.small_networks import built

FEAT, F, SIZE, CODES = 2, 16, 32, 8
OF_PRIOR = {"num_style_feat": F, "num_mlp": 2, "narrow": 0.03125, "noise_mode": "add"}


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    shapes = {f"{name}.{key}": (width,) for key in ("weight", "bias", "running_mean", "running_var")}
    return shapes | {f"{name}.num_batches_tracked": ()}


def published_encoder() -> dict[str, torch.Tensor]:
    """The key list of the authors, for an input of 32 px and narrow layers: levels of 2, 4 and 8 px."""
    shapes = {"input_layer.0.weight": (FEAT, 3, 3, 3), "input_layer.2.weight": (FEAT,)} | norm("input_layer.1", FEAT)
    unit, wide = 0, FEAT
    for wider, count in ((FEAT, 3), (2 * FEAT, 4), (4 * FEAT, 14), (8 * FEAT, 3)):
        for _ in range(count):
            name = f"body.{unit}.res_layer"
            shapes |= norm(f"{name}.0", wide) | norm(f"{name}.4", wider)
            shapes |= {f"{name}.1.weight": (wider, wide, 3, 3), f"{name}.3.weight": (wider, wider, 3, 3)}
            inner = max(1, wider // 16)
            shapes |= {f"{name}.2.weight": (wider,)}
            shapes |= {f"{name}.5.fc1.weight": (inner, wider, 1, 1), f"{name}.5.fc2.weight": (wider, inner, 1, 1)}
            if wide != wider:
                shapes |= {f"body.{unit}.shortcut_layer.0.weight": (wider, wide, 1, 1)}
                shapes |= norm(f"body.{unit}.shortcut_layer.1", wider)
            unit, wide = unit + 1, wider
    for layer, width in (("latlayer1", 4 * FEAT), ("latlayer2", 2 * FEAT)):
        shapes |= {f"{layer}.weight": (8 * FEAT, width, 1, 1), f"{layer}.bias": (8 * FEAT,)}
    for code in range(CODES):
        halvings = 1 if code < 3 else 2 if code < 7 else 3
        for index in range(halvings):
            shapes |= {f"styles.{code}.convs.{2 * index}.weight": (F, F if index else 8 * FEAT, 3, 3)}
            shapes |= {f"styles.{code}.convs.{2 * index}.bias": (F,)}
        shapes |= {f"styles.{code}.linear.weight": (F, F), f"styles.{code}.linear.bias": (F,)}
    generator = torch.Generator().manual_seed(0)

    def values(shape: tuple[int, ...]) -> torch.Tensor:
        if not shape:
            return torch.tensor(3)
        random = torch.randn(shape, generator=generator)
        return random * 0.1 if len(shape) > 1 else 0.5 + 0.1 * random.abs()

    return {name: values(shape) for name, shape in shapes.items()}


def published(**changes) -> dict:
    decoder = built(lambda: GPENPrior(SIZE, **OF_PRIOR)).state_dict()
    state = {f"encoder.{name}": tensor for name, tensor in published_encoder().items()}
    state |= {f"decoder.{name}": tensor for name, tensor in to_authors(decoder).items()}
    state |= {f"decoder.noises.noise_{i}": torch.randn(1, 1, r, r) for i, r in enumerate([4, 8, 8, 16, 16, 32, 32])}
    opts = {"output_size": SIZE, "encoder_type": "GradualStyleEncoder", "start_from_latent_avg": True}
    return {"state_dict": state, "opts": opts, "latent_avg": torch.rand(CODES, F), **changes}
