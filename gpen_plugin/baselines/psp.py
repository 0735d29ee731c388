"""pSp (Richardson et al., CVPR 2021): an encoder in front of the prior, and its training if there is none yet."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.key_maps import from_authors
from gpen_plugin.archs.psp_arch import PSP, sizes_of_published
from gpen_plugin.baselines.inversion import Downscaler, FrozenPrior, check_at_least, check_positive
from gpen_plugin.baselines.method import Sample, count_parameters, seeded
from gpen_plugin.checkpoints import checkpoint, sha256_of
from gpen_plugin.checkpoints.download import find_weights
from gpen_plugin.checkpoints.network_spec import summarize_file
from gpen_plugin.config import schema
from gpen_plugin.data.gpen_face_dataset import GPENFaceDataset
from gpen_plugin.data.rng import rng_from_key
from gpen_plugin.errors import CheckpointError, MissingFileError, OptionError, TrainingError
from gpen_plugin.host.data_cursor import SampleIndex
from gpen_plugin.metrics.lpips import BACKBONES, LPIPS_MIN_SIDE, perceptual_network

MAX_LOSS_SIZE = 256  # pixels; larger images are compared at this size, as by pSp's authors
STATE = "training.pth"  # beside the encoder, during the training
FILE = "encoder.pth"


@dataclass(frozen=True)
class PSPTrainingOptions:
    """The keys of ``train:`` of a ``type: psp`` entry."""

    dataroot_gt: str  # folder or LMDB of faces; none of them may be measured
    # ``{type: disk}``, ``{type: lmdb}`` or ``{type: tar}``, as for the data sets of a training.
    io_backend: Mapping = field(default_factory=dict)
    num_images: int | None = None  # use only this many images, the first in order of their keys
    use_hflip: bool = True  # mirror half of them
    iterations: int = 200_000  # steps
    batch_size: int = 8  # faces per step
    workers: int = 0  # processes that prepare images
    lr: float = 1e-3  # of Adam
    # smallest and largest factor of bicubic downsampling, sampled log-uniformly for each step.
    scales: tuple[float, float] = (8.0, 256.0)
    l2_weight: float = 1.0  # of the mean squared difference, images in [-1, 1]
    lpips_weight: float = 0.8  # of LPIPS with AlexNet (VGG-16 for priors below 31 px); 0 needs no such file
    regularisation_weight: float = 0.005  # of the codes' mean squared distance from the mean latent
    save_every: int = 2000  # steps between the states that a stopped training resumes from

    def __post_init__(self):
        object.__setattr__(self, "scales", tuple(self.scales))  # YAML brings lists
        check_at_least(self, {"iterations": 1, "batch_size": 1, "workers": 0, "save_every": 1})
        check_at_least(self, {"lpips_weight": 0, "regularisation_weight": 0})
        check_positive(self, "lr", "l2_weight")
        if not 1 <= self.scales[0] <= self.scales[1] < math.inf:
            raise OptionError("scales", f"got {list(self.scales)}", "two numbers from 1, the smaller one first")


class PSPTraining:
    """Trains the encoder of a `PSP` on faces and their bicubically downsampled copies."""

    # The losses are the paper's: L2, LPIPS and the distance from the mean latent. If LPIPS' weights are missing, LPIPS
    # is left out and the description says so. The identity loss is left out: it would favor this encoder over the
    # other methods when identity is measured. The optimizer is Adam. One encoder serves all scales.

    def __init__(
        self,
        net: PSP,  # its encoder is changed
        options: PSPTrainingOptions,
        seed: int,  # of the order of the faces and of the scales
        where: str,  # key path of the options, for errors
    ):
        self.net, self.options, self.seed = net, options, seed
        self.device = net.decoder.constant.device
        self.faces = self._faces(where)  # GPENError: there are none
        self.lpips, perceptual, lpips_sha256 = self._find_lpips()  # GPENError: its file is damaged
        low, high = options.scales
        self.description = (
            f"encoder trained for {options.iterations} steps of {options.batch_size} on {len(self.faces)} faces, "
            f"{low:g}x to {high:g}x, {perceptual}"
        )
        given = dataclasses.asdict(options)
        counted = {name: given[name] for name in given if name not in ("dataroot_gt", "workers", "save_every")}
        keys = hashlib.sha256("\n".join(self.faces.keys).encode("utf-8", "surrogateescape")).hexdigest()
        self.identity = {
            **counted,
            "scales": list(options.scales),
            "io_backend": dict(options.io_backend),
            "seed": seed,
            "faces": keys,
            "lpips_sha256": lpips_sha256,
        }

    def ensure(
        self,
        path: Path,
        made_of: dict,  # `identity` and what determines the network, as JSON
    ) -> None:
        """Load the encoder from `path` if it was trained from the same inputs, else train and save it.

        CheckpointError: a file cannot be read or written. TrainingError: the loss is not finite.
        """
        digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
        saved = _load_if_made_of(path, digest)
        if saved is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with seeded(self.device, self.seed):
                self._train(path.with_name(STATE), digest)
            checkpoint.write(path, {"params": self.net.encoder.state_dict(), "made_of": digest})
            path.with_name(STATE).unlink(missing_ok=True)
        else:
            self.net.encoder.load_state_dict(saved["params"])

    def losses(self, gt: torch.Tensor, step: int) -> dict[str, torch.Tensor]:
        """The weighted losses of a batch of faces, (N, 3, S, S) RGB in [-1, 1], at the scale of a step."""
        options = self.options
        image, offsets = self.net(self.degraded(gt, step), return_latents=True)
        image, gt = _at_loss_size(image), _at_loss_size(gt)
        losses = {
            "l2": options.l2_weight * F.mse_loss(image, gt),
            "regularization": options.regularisation_weight * offsets.square().mean(),
        }
        if self.lpips is not None:
            losses["lpips"] = options.lpips_weight * self.lpips(image, gt).mean()
        return losses

    def degraded(self, gt: torch.Tensor, step: int) -> torch.Tensor:
        """Downsample a batch, (N, 3, S, S) in [-1, 1], by the scale of a step; round to 8 bits, like files."""
        low, high = map(math.log, self.options.scales)
        scale = math.exp(rng_from_key(self.seed, "scale", step).uniform(low, high))
        size = gt.shape[-1]
        side = max(1, round(size / scale))
        small = Downscaler("bicubic", size, side, side, gt.device)(gt)
        return ((small.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1

    def _train(self, state: Path, digest: str) -> None:
        options, encoder = self.options, self.net.encoder.train()
        optimizer = torch.optim.Adam(encoder.parameters(), lr=options.lr)
        begun = _load_if_made_of(state, digest)
        first = 0
        if begun is not None:
            first = begun["step"]
            encoder.load_state_dict(begun["params"])
            optimizer.load_state_dict(begun["optimizer"])
        loader = DataLoader(self.faces, batch_sampler=_BatchOrder(self, first), num_workers=options.workers)
        with tqdm(desc="pSp's encoder", total=options.iterations, initial=first, unit="step") as progress:
            for step, batch in enumerate(loader, first):
                losses = self.losses(batch["gt"].to(self.device), step)
                loss = sum(losses.values())
                if not torch.isfinite(loss):
                    raise TrainingError(
                        f"pSp's encoder, step {step}", "the loss is not finite", "a number", "Lower lr."
                    )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                progress.update()
                if step % 50 == 0:
                    progress.set_postfix({name: f"{float(value.detach()):.4f}" for name, value in losses.items()})
                if (step + 1) % options.save_every == 0:
                    content = {"params": encoder.state_dict(), "optimizer": optimizer.state_dict()}
                    checkpoint.write(state, {**content, "step": step + 1, "made_of": digest})

    def _faces(self, where: str) -> GPENFaceDataset:
        options = self.options
        data = {
            "name": "faces",
            "type": "GPENFaceDataset",
            "phase": "train",
            "dataroot_gt": options.dataroot_gt,
            "io_backend": options.io_backend,
            "num_images": options.num_images,
            "use_hflip": options.use_hflip,
            "out_size": self.net.out_size,
            "seed": self.seed,
        }
        GPENFaceDataset.check_options(data, where)
        return GPENFaceDataset(data)

    def _find_lpips(self) -> tuple[torch.nn.Module | None, str, str | None]:
        """The network, its description, and the digest of its file."""
        if self.options.lpips_weight == 0:
            return None, "without LPIPS", None
        name = "alex" if self.net.out_size >= LPIPS_MIN_SIDE["alex"] else "vgg"
        try:
            path = find_weights(BACKBONES[name])
            return perceptual_network(name, str(path), self.device), f"LPIPS of {name}", sha256_of(path)
        except MissingFileError:
            return None, f"without LPIPS ({BACKBONES[name].name} or the package lpips is missing)", None


class _BatchOrder:
    """The faces of each step from `first` on, shuffled in every epoch."""

    def __init__(self, training: PSPTraining, first: int):
        self._count, self._seed, self._first = len(training.faces), training.seed, first
        self._batch, self._last = training.options.batch_size, training.options.iterations

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        orders: dict[int, list[int]] = {}
        for step in range(self._first, self._last):
            positions = range(step * self._batch, (step + 1) * self._batch)
            epochs = {position // self._count for position in positions}
            orders = {epoch: orders.get(epoch) or self._order(epoch) for epoch in epochs}
            yield [
                SampleIndex(orders[position // self._count][position % self._count], position // self._count, position)
                for position in positions
            ]

    def _order(self, epoch: int) -> list[int]:
        return rng_from_key(self._seed, "order", epoch).permutation(self._count).tolist()


def _load_if_made_of(path: Path, digest: str) -> Mapping | None:
    """The content of a file that was made of this, or None."""
    content = checkpoint.read_whole(path) if path.is_file() else {}
    return content if content.get("made_of") == digest else None


def _at_loss_size(image: torch.Tensor) -> torch.Tensor:
    """(N, 3, S, S), reduced by area if larger than `MAX_LOSS_SIZE`."""
    return F.adaptive_avg_pool2d(image, MAX_LOSS_SIZE) if image.shape[-1] > MAX_LOSS_SIZE else image


@dataclass(frozen=True)
class PSPOptions:
    """The keys of a ``type: psp`` entry; exactly one of `weights` and `train` is given."""

    # file of a GPENPrior; ~ for a published file of pSp's authors (``psp_celebs_super_resolution.pt``), which holds the
    # prior that it was trained for
    prior: str | None = None
    prior_key: str | None = None  # entry of the file; ~ takes the EMA weights if there are any
    # a trained encoder: ``encoder.pth`` of an earlier evaluation, the file of a `PSP` that the host trained, or a
    # published file
    weights: str | None = None
    train: Mapping | None = None  # how to train one, see `PSPTrainingOptions`
    in_size: int | None = None  # side of the encoder's input, see `PSP`
    # the paper's encoder (``ir_se50``) or a smaller one (``pyramid``), see `PSP`; a published file determines it
    encoder: Literal["pyramid", "ir_se50"] = "pyramid"
    encoder_feat: int = 64  # channels of the first layer of ``ir_se50``
    # file of IR-SE-50, trained for face recognition (``model_ir_se50.pth``), from which ``ir_se50`` starts; ~ starts
    # from random weights
    encoder_weights: str | None = None
    seed: int = 0  # of the encoder's initial weights and of its training

    def __post_init__(self):
        if self.prior is None and self.weights is None:
            hint = "Give prior, or weights with a published file."
            raise OptionError("prior", "missing", "the prior that the encoder is trained for", hint)
        if self.prior is None:
            for name in ("prior_key", "in_size", "encoder", "encoder_feat"):
                if getattr(self, name) != self.__dataclass_fields__[name].default:
                    got, expected = "given without prior", "nothing: a published file determines it"
                    raise OptionError(name, got, expected, f"Remove {name}, or give prior.")
        if self.encoder_weights and (self.encoder != "ir_se50" or self.train is None):
            raise OptionError("encoder_weights", f"got {self.encoder_weights}", "~ unless an ir_se50 is trained")
        if (self.weights is None) == (self.train is None):
            got = "neither is given" if self.weights is None else "both are given"
            raise OptionError("weights, train", got, "a trained encoder, or how to train one")


class PSPMethod:
    """pSp as a method. GPENError: a file is missing or of another network, or there is nothing to train on."""

    # `PSP` and `PSPTraining` document the differences from the paper.

    def __init__(
        self,
        options: PSPOptions,
        where: str,  # key path of the entry, for errors
        device: torch.device,
        folder: Path,  # where a trained encoder is saved
    ):
        self.prior = FrozenPrior(options.prior, options.prior_key, device, where)
        self.net = self._network(options, where)
        self.parameters = count_parameters(self.net)
        if options.weights is not None:
            load_encoder(self.net.encoder, options.weights, f"{where}:weights")
            made_of = {"weights_sha256": sha256_of(options.weights)}
            origin = f"encoder {Path(options.weights).name} {made_of['weights_sha256'][:12]}"
        else:
            train = schema.build(PSPTrainingOptions, options.train, f"{where}:train")
            training = PSPTraining(self.net, train, options.seed, f"{where}:train")
            made_of = {**training.identity, "prior_sha256": self.prior.sha256, "in_size": self.net.in_size}
            if options.encoder != "pyramid":  # encoders of earlier runs stay valid
                made_of |= {"encoder": options.encoder, "encoder_feat": options.encoder_feat}
                start = options.encoder_weights
                made_of["encoder_sha256"] = sha256_of(start) if start else None
            training.ensure(folder / FILE, made_of)
            origin = training.description
        self.net.eval().requires_grad_(False)
        kind = "the paper's encoder" if options.encoder == "ir_se50" else "a smaller encoder than the paper's"
        self.description = f"pSp, {kind}, input {self.net.in_size} px, {origin}, {self.prior.description}"
        self.identity = {"type": "psp", "prior_sha256": self.prior.sha256, "in_size": self.net.in_size, **made_of}

    @torch.inference_mode()
    def __call__(self, sample: Sample) -> np.ndarray:
        with seeded(self.prior.device):
            return self.prior.to_image(self.net(self.prior.to_tensor(sample.lq)), sample.size)

    def _network(self, options: PSPOptions, where: str) -> PSP:
        if not isinstance(self.prior.net, GPENPrior):
            got = f"holds a {type(self.prior.net).__name__}"
            raise OptionError(f"{where}:prior", got, "a GPENPrior: pSp is defined on StyleGAN2", "Name its file.")
        own = {"in_size": options.in_size, "encoder": options.encoder, "encoder_feat": options.encoder_feat}
        with seeded(self.prior.device, options.seed, "encoder"):
            try:
                net = PSP(**own, **self.prior.arguments)
            except OptionError as error:
                raise error.under(where) from None
        if options.encoder_weights:
            load_recognizer(net.encoder, options.encoder_weights, f"{where}:encoder_weights")
        net.decoder.load_state_dict(self.prior.net.state_dict())
        return net.to(self.prior.device)


def load_encoder(encoder: torch.nn.Module, path: str, where: str) -> None:
    """Load an encoder of ours, saved alone or in a whole `PSP`; CheckpointError if it is missing or does not fit."""
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


def load_recognizer(encoder: torch.nn.Module, path: str, where: str) -> None:
    """Start the body of an `IRSEEncoder` from a recognition network; CheckpointError if it is missing or another."""
    try:
        given = checkpoint.read(path)
    except CheckpointError as error:
        raise error.under(where) from None
    inside = {name: tensor for name, tensor in given.items() if name.startswith(("input_layer.", "body."))}
    own = {name: tensor for name, tensor in encoder.state_dict().items() if name.startswith(("input_layer.", "body."))}
    problems = checkpoint.differences(inside, own)
    if problems:
        expected = "IR-SE-50 of face recognition, as wide as encoder_feat"
        raise CheckpointError(f"{where}: {path}", checkpoint.shown(problems, 4), expected, "Name model_ir_se50.pth.")
    encoder.load_state_dict(inside, strict=False)


def load_published(path: str, where: str) -> tuple[PSP, str, dict]:
    """The network of a published file of pSp, with its description and identity (see `Method`).

    CheckpointError: the file cannot be read, or is not of pSp with the encoder of its paper.
    """
    try:
        content = checkpoint.read_whole(path)
        state = checkpoint.read(path, "state_dict" if "state_dict" in content else None)
    except CheckpointError as error:
        raise error.under(where) from None
    parts = {
        part: {name.removeprefix(f"{part}."): tensor for name, tensor in state.items() if name.startswith(f"{part}.")}
        for part in ("encoder", "decoder")
    }
    mean, source = content.get("latent_avg"), f"{where}: {path}"
    if not isinstance(mean, torch.Tensor) or "input_layer.0.weight" not in parts["encoder"] or not parts["decoder"]:
        got = summarize_file(state)
        expected = "encoder.*, decoder.* and latent_avg of pSp's authors"
        raise CheckpointError(source, got, expected, "Name a published file of pSp, or give prior.")
    spec = checkpoint.infer_spec(parts["decoder"], f"{source} [decoder]")
    if spec.kind != "GPENPrior":
        raise CheckpointError(source, f"holds a decoder that is {spec}", "StyleGAN2's generator")
    net = PSP(encoder="ir_se50", **sizes_of_published(parts["encoder"]), **spec.arguments())
    problems = checkpoint.differences(parts["encoder"], net.encoder.state_dict())
    problems += checkpoint.differences(from_authors(parts["decoder"]), net.decoder.state_dict())
    if mean.shape not in ((net.decoder.num_style_feat,), (net.decoder.num_latent, net.decoder.num_style_feat)):
        problems.append(f"latent_avg is {tuple(mean.shape)}")
    if problems:
        expected = "pSp with the encoder of its paper, GradualStyleEncoder, for RGB images"
        raise CheckpointError(source, f"holds other tensors ({checkpoint.shown(problems, 4)})", expected)
    net.encoder.load_state_dict(parts["encoder"])
    net.decoder.load_state_dict(from_authors(parts["decoder"]))
    if dict(content.get("opts") or {}).get("start_from_latent_avg", True):
        net.center = mean.reshape(-1, net.decoder.num_style_feat).clone()
    else:
        net.center = torch.zeros_like(net.center)
    digest = sha256_of(path)
    description = f"pSp of its authors, input {net.in_size} px, {spec}, {Path(path).name} {digest[:12]}; noise is zero"
    return net, description, {"type": "psp", "weights_sha256": digest}
