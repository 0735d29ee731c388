"""Networks of every kind, small enough for files in a test."""

import torch

from gpen_plugin.archs import GPEN, GPENDiscriminator, GPENPrior

OF_D = {"channel_multiplier": 1, "narrow": 0.04}
SMALL = {"num_style_feat": 8, "num_mlp": 2, **OF_D}
NETWORKS = {
    "GPEN concat": lambda: GPEN(32, **SMALL),
    "GPEN add, small input": lambda: GPEN(64, in_size=16, noise_mode="add", **SMALL),
    "GPEN without noise": lambda: GPEN(16, noise_mode="none", **SMALL),
    "GPENPrior concat": lambda: GPENPrior(32, **SMALL),
    "GPENPrior add": lambda: GPENPrior(64, noise_mode="add", **SMALL),
    "GPENDiscriminator": lambda: GPENDiscriminator(32, **OF_D),
}


def built(build, seed=0):
    """A network whose every tensor has values of its own."""
    torch.manual_seed(seed)
    net = build()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return net


def weights(build, seed=0):
    return dict(built(build, seed).state_dict())


def same(a, b):
    return sorted(a) == sorted(b) and all(torch.equal(a[key], b[key]) and a[key].shape == b[key].shape for key in a)


def judge_of(size):
    return weights(lambda: GPENDiscriminator(size, **OF_D))


def saved(path, content):
    torch.save(content, path)
    return path
