"""pSp as a method of an evaluation: a trained encoder in front of the prior, trained here where there is none."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gpen_plugin.archs.psp_arch import PSP
from gpen_plugin.checkpoints import checkpoint
from gpen_plugin.checkpoints.download import sha256_of
from gpen_plugin.config import schema
from gpen_plugin.errors import CheckpointError, OptionError
from gpen_plugin.evaluate.case import Case
from gpen_plugin.evaluate.methods.inversion.prior import SearchedPrior
from gpen_plugin.evaluate.methods.inversion.psp_training import PSPTraining, PSPTrainingOptions
from gpen_plugin.evaluate.methods.repeatable import repeatable

FILE = "encoder.pth"


@dataclass(frozen=True)
class PSPOptions:
    """The keys of a ``type: psp`` entry; exactly one of `weights` and `train` is given.

    Args:
        prior: a GPENPrior's file.
        prior_key: its entry; None takes the averaged weights where there are any.
        weights: a trained encoder: an ``encoder.pth`` of an earlier evaluation, or the file of a `PSP` that the host
            has trained, whose encoder is taken.
        train: how to train one, see `PSPTrainingOptions`.
        in_size: see `PSP`.
        seed: of the encoder's first weights and of all that its training draws.
    Raises:
        OptionError: both or neither of `weights` and `train` are given.
    """

    prior: str
    prior_key: str | None = None
    weights: str | None = None
    train: Mapping | None = None
    in_size: int | None = None
    seed: int = 0

    def __post_init__(self):
        if (self.weights is None) == (self.train is None):
            got = "neither is given" if self.weights is None else "both are given"
            raise OptionError("weights, train", got, "a trained encoder, or how to train one")


class PSPMethod:
    """The method; what differs from the paper is told in `PSP` and `PSPTraining`.

    Args:
        options: see `PSPOptions`.
        where: key path of the entry, for errors.
        device: where to compute.
        folder: where a trained encoder is kept, with the digest of what made it.
    Raises:
        GPENError: a file is not there or of another network, or there is nothing to train on.
    """

    def __init__(self, options: PSPOptions, where: str, device: torch.device, folder: Path):
        self.prior = SearchedPrior(options.prior, options.prior_key, device, where)
        self.net = self._network(options, where)
        if options.weights is not None:
            load_encoder(self.net.encoder, options.weights, f"{where}:weights")
            made_of = {"weights_sha256": sha256_of(options.weights)}
            origin = f"encoder {Path(options.weights).name} {made_of['weights_sha256'][:12]}"
        else:
            train = schema.build(PSPTrainingOptions, options.train, f"{where}:train")
            training = PSPTraining(self.net, train, options.seed, f"{where}:train")
            made_of = {**training.identity, "prior_sha256": self.prior.sha256, "in_size": self.net.in_size}
            training.ensure(folder / FILE, made_of)
            origin = training.description
        self.net.eval().requires_grad_(False)
        self.description = f"pSp, input {self.net.in_size} px, {origin}, {self.prior.description}"
        self.identity = {"type": "psp", "prior_sha256": self.prior.sha256, "in_size": self.net.in_size, **made_of}

    @torch.inference_mode()
    def __call__(self, case: Case) -> np.ndarray:
        """See `Method`."""
        with repeatable(self.prior.device):
            return self.prior.leave(self.net(self.prior.enter(case.lq)), case.size)

    def _network(self, options: PSPOptions, where: str) -> PSP:
        with repeatable(self.prior.device, options.seed, "encoder"):
            try:
                net = PSP(in_size=options.in_size, **self.prior.arguments)
            except OptionError as error:
                raise error.under(where) from None
        net.decoder.load_state_dict(self.prior.net.state_dict())
        return net.to(self.prior.device)


def load_encoder(encoder: torch.nn.Module, path: str, where: str) -> None:
    """Load an encoder of ours, alone or in a whole `PSP`.

    Raises:
        CheckpointError: the file is not there, or of another network.
    """
    try:
        given = checkpoint.read(path)
    except CheckpointError as error:
        raise error.under(where) from None
    inside = {name.removeprefix("encoder."): value for name, value in given.items() if name.startswith("encoder.")}
    problems = checkpoint.differences(inside or given, encoder.state_dict())
    if problems:
        expected, hint = "a pSp encoder for this prior and in_size", "Name the right file, or the right prior."
        raise CheckpointError(f"{where}: {path}", checkpoint.shown(problems, 4), expected, hint)
    encoder.load_state_dict(inside or given)
