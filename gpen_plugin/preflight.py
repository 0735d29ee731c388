"""Check an option file before a run creates, renames or writes anything.

BasicSR renames an earlier experiment of the same name as soon as it has read the options. So every problem that can be
found is found here, and all are reported together by key path: sections and trials of their values, then what has to
agree between them.
"""

import inspect
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from basicsr.models.sr_model import SRModel

from gpen_plugin.archs.gan_prior_arch import GANPrior
from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator
from gpen_plugin.archs.layers import ShapesOnly
from gpen_plugin.checkpoints import checkpoint
from gpen_plugin.checkpoints.download import local_path
from gpen_plugin.config import schema
from gpen_plugin.config.train_options import (
    FileOptions,
    LoggerOptions,
    OptimizerOptions,
    OptimOptions,
    PathOptions,
    PriorValOptions,
    ProfileOptions,
    ValOptions,
    check_loggers,
)
from gpen_plugin.data.gpen_degradation_dataset import GPENDegradationDataset
from gpen_plugin.data.gpen_face_dataset import HOST_DATASETS, GPENFaceDataset, data_range
from gpen_plugin.errors import CheckpointError, DataError, GPENError, OptionError, join_errors
from gpen_plugin.host import is_our_own, is_ours, registered, resolve, state_to_resume, trains_ours
from gpen_plugin.metrics.base import FEATURE_METRICS, NIQE_MIN_SIDE, check_direction, check_metric_keys, try_metric
from gpen_plugin.metrics.fid import read_statistics
from gpen_plugin.models.adversarial_model import AdversarialModel
from gpen_plugin.models.augment import AugmentOptions
from gpen_plugin.models.gan_prior_model import GPENPriorModel, check_prior
from gpen_plugin.models.gan_steps import logits_and_features
from gpen_plugin.models.gpen_model import GPENModel
from gpen_plugin.models.loss_terms import LossEntry, list_losses
from gpen_plugin.models.restoration_gan_model import RestorationGANModel
from gpen_plugin.models.train_state import preserve_rng_state
from gpen_plugin.models.trials import try_dataset, try_loss, try_optimizer, try_scheduler
from gpen_plugin.nets.arcface import RecognitionSettings
from gpen_plugin.restore.alignment import parse_template

ADDED_BY_HOST = {"dist", "rank", "world_size", "auto_resume", "is_train", "root_path"}
PATHS_ADDED_BY_HOST = {"models", "training_states", "log", "visualization"}
PRIOR_FILES = "options/gpen_prior_1024.yml (_512, _256; the demo's is gpen_demo_prior.yml)"


@dataclass(frozen=True)
class Stage:
    """The option file of one of our models."""

    model: type[AdversarialModel]  # derived ones are checked alike, and may have keys and networks of their own
    val: type  # data class of ``val:``; that of ``train:`` is the model's `options_class`
    networks: Mapping[str, type]  # the classes that the model needs
    sections: Mapping[str, type]  # data classes of the sections of ``train:``
    example: str  # an option file for the hints


STAGES = (
    Stage(
        GPENPriorModel,
        PriorValOptions,
        {"network_g": GANPrior, "network_d": torch.nn.Module},
        {"optim_g": OptimizerOptions, "optim_d": OptimizerOptions, "augment_opt": AugmentOptions},
        "options/gpen_prior_512.yml",
    ),
    Stage(
        GPENModel,
        ValOptions,
        {"network_g": GPEN, "network_d": torch.nn.Module},
        {"optim": OptimOptions},
        "options/gpen_finetune.yml",
    ),
    Stage(
        RestorationGANModel,
        ValOptions,
        {"network_g": torch.nn.Module, "network_d": torch.nn.Module},
        {"optim_g": OptimizerOptions, "optim_d": OptimizerOptions},
        "options/rivals/pix2pixhd_512.yml",
    ),
)


@dataclass(frozen=True)
class Run:
    """Parsed options of a run, its registered model class, and the `Stage` of a model that is ours or derived."""

    opt: Mapping
    model: type | None
    stage: Stage | None

    @classmethod
    def of(cls, opt: Mapping) -> "Run":
        """The run of these options."""
        model = resolve("model", opt.get("model_type"))
        ours = (stage for stage in STAGES if inspect.isclass(model) and issubclass(model, stage.model))
        return cls(opt, model, next(ours, None))

    @property
    def as_published(self) -> bool:
        """Whether the model is ours and not derived: then the schema lists all keys."""
        return self.stage is not None and is_our_own(self.model)


def check_run(opt: Mapping) -> None:
    """Raise one GPENError with a line per problem of a run's options, as BasicSR parsed them.

    In a run with another model, only our networks and data sets are checked. Classes of the user, derived from ours or
    not, are accepted as they are. Sections are compared with each other once each is valid.
    """
    run = Run.of(opt)
    ours = run.stage is not None
    stages: list[Callable[[Run], Iterator[GPENError]]] = [_model, _structure] if ours else [_model]
    of_ours = (_files, _training, _checkpoints) if ours else ()
    stages += [lambda run: [problem for check in (_networks, _datasets, *of_ours) for problem in check(run)]]
    stages += [
        lambda run: [
            *(_weights(run) if ours else []),
            *_prior_settings(run),
            *_agreement(opt),
            *(_metrics(opt) if ours else []),
        ]
    ]
    if ours:
        stages += [_shapes if run.stage.model is RestorationGANModel else _discriminator]
    for stage in stages:
        problems = [*stage(run)]
        if problems:
            raise join_errors(problems)


def _model(run: Run) -> Iterator[GPENError]:
    if run.model is None:
        yield schema.unknown_name(run.opt.get("model_type"), list(registered("model")), "model_type")


def _structure(run: Run) -> Iterator[GPENError]:
    """Unknown and missing keys of the sections, and the values of those that have no class of their own."""
    opt, stage = run.opt, run.stage
    yield from _keys(run, FileOptions, _without(opt, ADDED_BY_HOST), "")
    sections = {"path": PathOptions, "val": stage.val}
    if opt["is_train"]:
        sections |= {"train": run.model.options_class, "logger": LoggerOptions}
        for name in ("network_d", "train", "logger"):
            if not opt.get(name):
                yield OptionError(name, "missing", "a section of every training", f"See {stage.example}.")
        if "train" not in (opt.get("datasets") or {}):
            yield OptionError("datasets:train", "missing", "the training set", f"See {stage.example}.")
    elif not opt.get("val"):
        yield OptionError("val", "missing", "a section of every test", "See options/gpen_test.yml.")
    for name, target in sections.items():
        given = _without(opt.get(name), PATHS_ADDED_BY_HOST)
        if not given:
            continue
        problems = [*_keys(run, target, given, name)]
        yield from problems
        if not problems and (run.as_published or name == "train"):
            yield from _try(lambda target=target, given=given: target(**given), name)
    yield from _devices(opt, alone_only=issubclass(run.model, GPENPriorModel))
    yield from check_loggers(opt)


def _checkpoints(run: Run) -> Iterator[OptionError]:
    """Numbers of iterations that have to meet: of checkpoints and validations, of the profile and the training."""
    opt = run.opt
    if not opt["is_train"]:
        return
    logger, val, total = opt["logger"], opt.get("val") or {}, opt["train"]["total_iter"]
    saved, validated = logger["save_checkpoint_freq"], val.get("val_freq", ValOptions.val_freq)
    if logger.get("keep_best"):
        if not val.get("metrics"):
            yield OptionError("logger:keep_best", "given without val:metrics", "a metric to compare by", "Add one.")
        elif math.lcm(saved, validated) > total:
            got = f"no iteration is a multiple of both {saved} and {validated}"
            expected = "checkpoints that are validated"
            hint = "Set logger:save_checkpoint_freq to val:val_freq."
            yield OptionError("logger:keep_best", got, expected, hint)
    start = (logger.get("profile") or {}).get("start", ProfileOptions.start)
    if logger.get("profile") is not None and start > total:
        expected = f"at most train:total_iter, {total}"
        yield OptionError("logger:profile:start", f"got {start}", expected, "Lower it.")


def _keys(run: Run, target: type, given: object, where: str) -> Iterator[GPENError]:
    """Problems of a section's keys and types. A derived model may read more keys, but ``train:`` is its own schema."""
    if isinstance(given, Mapping) and not run.as_published and where != "train":
        given = {key: value for key, value in given.items() if key in inspect.signature(target).parameters}
    yield from schema.validate(target, given, where)


def _training(run: Run) -> Iterator[GPENError]:
    """Optimizers, scheduler and losses."""
    opt, stage = run.opt, run.stage
    if not opt["is_train"]:
        return
    train = opt["train"]
    for name, target in stage.sections.items():
        if train.get(name) is not None:
            problems = _section(target, train[name], f"train:{name}")
            if not problems and issubclass(target, OptimizerOptions):
                problems = [*try_optimizer(target, train[name], f"train:{name}")]
            yield from problems
    if run.model.setup_schedulers is stage.model.setup_schedulers:
        yield from try_scheduler(train["scheduler"], train["total_iter"], "train:scheduler")
    try:
        entries = list_losses(opt)
    except GPENError as error:
        yield error
        return
    for entry in entries:
        yield from [*_keys_of_class("loss", entry.options, entry.where)] or try_loss(opt, entry)


def _prior_settings(run: Run) -> Iterator[GPENError]:
    """Settings that this kind of prior cannot have."""
    if run.as_published and run.stage.model is GPENPriorModel and run.opt["is_train"]:
        settings = run.model.options_class(**run.opt["train"])
        yield from _try(lambda: check_prior(_meta_network(run.opt["network_g"]), settings, run.opt.get("val")))


def _networks(run: Run) -> Iterator[GPENError]:
    """Networks of ours: keys by their signature, values by building them without memory."""
    for name in _network_names(run.opt):
        section = run.opt[name]
        needed = run.stage.networks.get(name) if run.as_published else None
        problems = [*_type_of("arch", section, name)] if needed else []
        cls = _class_of("arch", section)
        if not problems and needed and not (inspect.isclass(cls) and issubclass(cls, needed)):
            got, hint = f"got {section['type']}", "Other networks run under BasicSR's own models."
            expected = "GPENPrior or another GAN prior" if needed is GANPrior else needed.__name__
            problems = [OptionError(f"{name}:type", got, expected, hint)]
        if not problems and cls is not None and is_our_own(cls):
            problems = schema.validate(cls, _without(section, {"type"}), name) or [
                *_try(lambda section=section: _meta_network(section), name)
            ]
        elif not problems and needed:
            problems = _keys_of_class("arch", section, name)
        yield from problems


def _datasets(run: Run) -> Iterator[GPENError]:
    """Data sets: all options of ours; for our models also what BasicSR's loader needs, and other sets by reading."""
    for phase, data in run.opt["datasets"].items():
        where, cls = f"datasets:{phase}", _class_of("dataset", data)
        problems = [*_loader(run, phase, data)] if run.stage else []
        of_ours = cls is not None and is_our_own(cls)
        if not problems and (run.stage or of_ours) and "name" not in data:
            problems = [OptionError(f"{where}:name", "missing", "what the log calls the set", "Add the key.")]
        if not problems and of_ours:
            problems = _try(lambda cls=cls, data=data, where=where: cls.check_options(data, where))
            if not problems and data.get("template"):
                problems = _try(lambda data=data: parse_template(data["template"]), where)
            if not problems and phase == "train":
                problems = [*_batch_size(run.opt, data, len(cls(data)))]
        elif not problems and run.stage:
            problems = [*_missing_roots(cls, data, where)]
            if not problems:
                with preserve_rng_state():
                    problems = [*_read_one(run, phase, cls, data)]
        yield from problems


def _missing_roots(cls: type, data: Mapping, where: str) -> Iterator[DataError]:
    for key in ("dataroot_gt", "dataroot_lq") if cls.__name__ in HOST_DATASETS else ():
        if data.get(key) and not os.path.exists(data[key]):
            yield DataError(f"{where}:{key}", f"{data[key]} is not there", "a folder or LMDB", "Check the path.")


def _read_one(run: Run, phase: str, cls: type, data: Mapping) -> Iterator[GPENError]:
    """Problems of a set of BasicSR's or the user's, which is made, and of which one item is read."""
    needed = ("gt",) if run.stage.model is GPENPriorModel else ("lq", "gt")
    needed = needed if run.as_published and phase == "train" else ()
    problems, count = try_dataset(cls, data, needed, run.opt["network_g"].get("out_size"), f"datasets:{phase}")
    yield from problems
    if phase == "train" and not problems:
        yield from _batch_size(run.opt, data, count)


def _shapes(run: Run) -> Iterator[GPENError]:
    """Sizes and channels that the networks of a `RestorationGANModel` do not take, tried on the meta device.

    Also modules of ``freeze_iter`` that the generator lacks. Networks of other packages are not tried: their
    constructors may read files.
    """
    frozen = (run.opt.get("train") or {}).get("freeze_iter") or {}
    if frozen and is_our_own(_class_of("arch", run.opt["network_g"])):
        net = _meta_network(run.opt["network_g"])
        known = [name for name, _ in net.named_modules() if name]
        for name in frozen:
            if name not in known:
                yield schema.unknown_key(name, [child for child, _ in net.named_children()], "train:freeze_iter")
    for phase, data in run.opt["datasets"].items():
        problems = [*_shapes_of_phase(run.opt, phase, data)]
        if problems:
            yield from problems
            return


def _shapes_of_phase(opt: Mapping, phase: str, data: Mapping) -> Iterator[GPENError]:
    size, train = data.get("out_size"), opt.get("train") or {}
    if not size or not is_our_own(_class_of("arch", opt["network_g"])):
        return
    in_size = data.get("in_size") or size
    lq = torch.empty(2, 3, in_size, in_size, device="meta")
    net = _meta_network(opt["network_g"])
    inputs = [lq, lq] if "ref" in inspect.signature(net.forward).parameters else [lq]
    if len(inputs) > 1 and _is_a(_class_of("dataset", data), GPENDegradationDataset) and not data.get("references"):
        got, hint = f"missing, and {type(net).__name__} restores with a reference face", "See docs/EVALUATION.md."
        yield OptionError(f"datasets:{phase}:references", got, "identities, or a dataroot of references", hint)
        return
    problems = [*schema.try_call(lambda: _check_image(net(*inputs), size, phase), "network_g")]
    yield from problems
    if phase == "train" and not problems:
        yield from _try_discriminator(opt, 6 if train.get("conditional_d") else 3, size)


def _discriminator(run: Run) -> Iterator[GPENError]:
    """Images and losses that the discriminator does not take."""
    if run.opt["is_train"] and run.opt["network_g"].get("out_size"):
        yield from _try_discriminator(run.opt, 3, run.opt["network_g"]["out_size"])


def _try_discriminator(opt: Mapping, channels: int, size: int) -> Iterator[GPENError]:
    """Call a discriminator of ours or of BasicSR on the meta device, and compare its features with the losses.

    Those of other packages are not tried: their constructors may read files.
    """
    cls = _class_of("arch", opt["network_d"])
    if not (is_our_own(cls) or cls.__module__.startswith("basicsr.")):
        return
    images, found = torch.empty(2, channels, size, size, device="meta"), []
    yield from schema.try_call(
        lambda: found.append(_check_logits(logits_and_features(_meta_network(opt["network_d"]), images))), "network_d"
    )
    for entry in list_losses(opt) if found else ():
        if entry.on == "feature":
            yield from _try(lambda entry=entry: _check_features(opt, entry, len(found[0])), entry.where)


def _check_logits(answer: tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]) -> Sequence[torch.Tensor]:
    """The features of a discriminator. OptionError: its logits are none."""
    logits, features = answer
    for each in logits:
        if each.ndim not in (2, 4) or each.shape[1] != 1:
            raise OptionError("type", f"gives a tensor of shape {tuple(each.shape)}", "logits, (N, 1) or (N, 1, h, w)")
    return features


def _check_features(opt: Mapping, entry: LossEntry, count: int) -> None:
    recorded = "return_features" not in inspect.signature(_class_of("arch", opt["network_d"]).forward).parameters
    if not count or (recorded and opt["train"].get("compile")):  # compiled networks run without later hooks
        raise OptionError("type", "needs features, and network_d gives none", "a discriminator that gives some")
    cls = resolve("loss", entry.options["type"])
    if hasattr(cls, "chosen_layers"):
        cls(**_without(entry.options, {"type"})).chosen_layers(count)


def _check_image(answer: object, size: int, phase: str) -> None:
    image = answer[0] if isinstance(answer, tuple) else answer
    if image.shape[1:] != (3, size, size):
        expected = f"(N, 3, {size}, {size}), as datasets:{phase}:out_size"
        raise OptionError("out_size", f"gives images of shape {tuple(image.shape)}", expected, "Make them agree.")


def _loader(run: Run, phase: str, data: Mapping) -> Iterator[GPENError]:
    """What BasicSR reads of each data set, whatever its class."""
    where = f"datasets:{phase}"
    if run.opt["is_train"] and phase != "train" and phase.partition("_")[0] != "val":
        yield OptionError(where, f"got {phase}", "train, val, or val_ and a word", "A training has no other sets.")
    problems = [*_type_of("dataset", data, where)]
    yield from problems
    if problems:
        return
    if phase == "train":
        for key in ("num_worker_per_gpu", "batch_size_per_gpu"):
            if not isinstance(data.get(key), int):
                got = f"got {data[key]!r}" if key in data else "missing"
                yield OptionError(f"{where}:{key}", got, "a whole number", "See options/gpen_finetune.yml.")
        if data.get("prefetch_mode") == "cuda" and data.get("pin_memory") is not True:
            got = f"got {data['pin_memory']}" if "pin_memory" in data else "missing"
            yield OptionError(f"{where}:pin_memory", got, "true, which prefetch_mode: cuda needs", "Set it.")


def _devices(opt: Mapping, *, alone_only: bool) -> Iterator[GPENError]:
    """GPUs that are missing, cannot compute as asked, or would share a process (`alone_only`: never allowed)."""
    train, number = opt.get("train") or {}, opt.get("num_gpu")
    if not isinstance(number, int):
        return  # BasicSR replaces auto by a number
    if number > torch.cuda.device_count():
        held = f"at most {torch.cuda.device_count()}, the GPUs that PyTorch sees"
        yield OptionError("num_gpu", f"got {number}", held, "Use auto, or 0 for the CPU.")
        return
    # without a launcher BasicSR uses DataParallel, which breaks the path length and compiled networks
    alone = number > 1 and opt["is_train"] and not opt.get("dist")
    if alone and (alone_only or train.get("compile")):
        hint = f"Start with torchrun --nproc_per_node={number} and --launcher pytorch, or use 1."
        yield OptionError("num_gpu", f"got {number} without a launcher", "one process per GPU", hint)
    if number and train.get("precision") == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        got = f"got bf16, which {torch.cuda.get_device_name()} cannot do"
        yield OptionError("train:precision", got, "fp32 on this GPU", "Set it to fp32.")


def _batch_size(opt: Mapping, data: Mapping, images: int) -> Iterator[GPENError]:
    """BasicSR drops the last, incomplete batch, so a set smaller than one batch would train nothing."""
    batch = data["batch_size_per_gpu"] * (1 if opt.get("dist") else max(1, opt["num_gpu"]))
    per_epoch = -(-images * data.get("dataset_enlarge_ratio", 1) // opt.get("world_size", 1))
    if per_epoch < batch:
        got = f"got {data['batch_size_per_gpu']}, a batch of {batch}"
        expected = f"at most {int(per_epoch)}, the images of an epoch"
        hint = "Lower it, or raise dataset_enlarge_ratio."
        yield OptionError("datasets:train:batch_size_per_gpu", got, expected, hint)


def _files(run: Run) -> Iterator[GPENError]:
    """Weight files that are missing or exclude each other."""
    opt, paths = run.opt, run.opt["path"]
    if "training_states" in opt["path"] and state_to_resume(opt):
        return  # BasicSR replaces them by the files of the resumed state
    if paths.get("pretrain_prior") and run.stage.model is not GPENModel:
        expected = "a training of GPENModel, which embeds it"
        yield OptionError("path:pretrain_prior", f"got {paths['pretrain_prior']}", expected, "Remove it.")
        return
    if paths.get("pretrain_prior") and paths.get("pretrain_network_g"):
        got = "given together with pretrain_network_g, which holds a decoder of its own"
        yield OptionError("path:pretrain_prior", got, "one of the two", "Remove one of them.")
        return
    for key, path in paths.items():
        known = run.as_published or key in PathOptions.__dataclass_fields__
        if known and key.startswith("pretrain_") and isinstance(path, str) and not os.path.isfile(local_path(path)):
            got = f"{path} is {'a folder' if os.path.isdir(path) else 'not there'}"
            hint = "Check the path" + (", or write ~ to start without one." if opt["is_train"] else ".")
            if key == "pretrain_prior":
                hint = f"Train it as {PRIOR_FILES} says for this noise_mode, or write ~ to start without one."
            yield CheckpointError(f"path:{key}", got, "a weight file", hint)


def _weights(run: Run) -> Iterator[GPENError]:
    """Weight files of our networks and of the embedded prior: readable, safe, of this size and width."""
    opt = run.opt
    if "training_states" in opt["path"] and state_to_resume(opt):
        return  # BasicSR replaces them by the files of the resumed state
    for name in _network_names(opt):
        path, where = opt["path"].get(f"pretrain_{name}"), f"path:pretrain_{name}"
        cls = _class_of("arch", opt[name])
        if path and cls is not None and is_our_own(cls):
            label = name.removeprefix("network_")
            key, strict = opt["path"].get(f"param_key_{label}", "params"), opt["path"].get(f"strict_load_{label}", True)
            yield from _try(
                lambda name=name, path=path, where=where, key=key, strict=strict: checkpoint.read_for(
                    _meta_network(opt[name]), path, key, where=where, strict=strict
                )
            )
    path, where = opt["path"].get("pretrain_prior"), "path:pretrain_prior"
    if path and is_our_own(_class_of("arch", opt["network_g"])):
        decoder, key = _meta_network(opt["network_g"]).decoder, opt["path"].get("param_key_prior")
        yield from _try(lambda: checkpoint.read_for(decoder, path, key, where=where))


def _try(build: Callable[[], object], prefix: str = "") -> list[GPENError]:
    """Call `build`; its `GPENError`, if any, with `prefix` before the key."""
    try:
        build()
    except GPENError as error:
        return [error.under(prefix) if prefix and not error.where.startswith(f"{prefix}:") else error]
    return []


def _meta_network(section: Mapping) -> torch.nn.Module:
    """The network of an option section on the meta device: shapes without values."""
    with ShapesOnly():
        return resolve("arch", section["type"])(**_without(section, {"type"}))


def _section(target: type, given: object, where: str) -> list[GPENError]:
    """Problems of a section with data class `target`: keys and types, then values."""
    return schema.validate(target, given, where) or _try(lambda: target(**given), where)


def _type_of(kind: str, section: object, where: str) -> Iterator[OptionError]:
    """Problems of the ``type`` of a section of registry `kind`."""
    if not isinstance(section, Mapping) or "type" not in section:
        yield OptionError(f"{where}:type", "missing", "the name of a class", "Add the key.")
    elif _class_of(kind, section) is None:
        yield schema.unknown_name(section["type"], list(registered(kind)), f"{where}:type")


def _class_of(kind: str, section: object) -> Callable | None:
    """The class that a section names; None if none of that name is registered."""
    return resolve(kind, section.get("type")) if isinstance(section, Mapping) else None


def _keys_of_class(kind: str, section: Mapping, where: str) -> Iterator[OptionError]:
    """Problems of the keys of a section; types are checked for our own classes only."""
    cls = _class_of(kind, section)
    yield from schema.validate(cls, _without(section, {"type"}), where, typed=is_our_own(cls))


def _network_names(opt: Mapping) -> list[str]:
    return [name for name in opt if name.startswith("network_") and opt[name]]


def _without(mapping: object, keys: set[str]) -> object:
    """A mapping without some keys; anything else is returned as it is, and the schema reports it."""
    if not isinstance(mapping, Mapping):
        return mapping
    return {key: value for key, value in mapping.items() if key not in keys}


# Agreement between sections: sizes, value ranges, metrics and their data.

PAIR_METRICS = (
    "calculate_psnr",
    "calculate_ssim",
    "calculate_lpips",
    "calculate_identity",
    "calculate_lmd",
    "calculate_rmse",
)
METRIC_FILE_KEYS = ("weights", "onnx", "model")  # keys of our metrics that name a file


def _agreement(opt: Mapping) -> Iterator[GPENError]:
    """Sizes and value ranges that several sections share, where the generator is one of ours or derived from one.

    Only our models ask other data sets for a range, to which they convert it.
    """
    generator = opt.get("network_g") or {}
    network, ours = _class_of("arch", generator), trains_ours(opt)
    for phase, data in opt["datasets"].items():
        if data.get("uint8") and not ours and _is_a(_class_of("dataset", data), GPENFaceDataset):
            got = f"got true for {opt.get('model_type')}, which takes floats"
            yield OptionError(f"datasets:{phase}:uint8", got, "a model of this package", "Remove it.")
    if not is_ours(network):
        return
    wanted, size = _range_of_network(network, generator), generator.get("out_size")
    if not ours and wanted not in (None, [0, 1]) and _reads_0_to_1(resolve("model", opt.get("model_type"))):
        expected = f"[0, 1], in which {opt.get('model_type')} reads images"
        yield OptionError("network_g:value_range", f"is {wanted}", expected, "Set it to [0, 1] there.")
    discriminator = opt.get("network_d") or {}
    if size and _is_a(_class_of("arch", discriminator), GPENDiscriminator):
        yield from _must_equal("network_d:out_size", discriminator.get("out_size"), "out_size", size)
    in_size = generator.get("in_size") or size
    for phase, data in opt["datasets"].items():
        where, of_ours = f"datasets:{phase}", _is_a(_class_of("dataset", data), GPENFaceDataset)
        if size and of_ours and "out_size" in data:
            yield from _must_equal(f"{where}:out_size", data["out_size"], "out_size", size)
            yield from _must_equal(f"{where}:in_size", data.get("in_size") or data["out_size"], "in_size", in_size)
        if wanted and (ours or of_ours):
            yield from _range_problem(data, where, wanted, converts=ours)
    names = [data.get("name") for data in opt["datasets"].values()]
    for phase, data in opt["datasets"].items():
        if ours and names.count(data.get("name")) > 1:
            got = f"got {data.get('name')!r}, which another set has too"
            yield OptionError(f"datasets:{phase}:name", got, "a name per set", "Their results would be mixed up.")


def _metrics(opt: Mapping) -> Iterator[GPENError]:
    """Metrics of the validation, and what they need."""
    of_sets = _is_a(resolve("model", opt["model_type"]), GPENPriorModel)
    without_truth = [name for name, data in opt["datasets"].items() if name != "train" and not data.get("dataroot_gt")]
    for name, metric in ((opt.get("val") or {}).get("metrics") or {}).items():
        where = f"val:metrics:{name}"
        kind = metric.get("type") if isinstance(metric, Mapping) else None
        function = resolve("metric", kind)
        if function is None:
            yield schema.unknown_name(kind, list(registered("metric")), f"{where}:type")
            continue
        problems = keys = [*check_metric_keys(function, metric, where)]
        if is_our_own(function) or function.__module__.startswith("basicsr."):
            problems = [*problems, *check_direction(kind, metric, where)]
        if is_our_own(function):
            problems = [*problems, *_metric_files(kind, metric, where)]
        if kind == "calculate_identity" and not keys:
            problems = [*problems, *_recognizer(metric, where)]
        sizes = [data.get("out_size") for data in opt["datasets"].values()]
        size = opt["network_g"].get("out_size") or next(filter(None, sizes), NIQE_MIN_SIDE)
        if kind == "calculate_niqe" and size < NIQE_MIN_SIDE:
            got = f"NIQE of images of {size} px"
            problems.append(OptionError(where, got, f"at least {NIQE_MIN_SIDE} px", "Remove this metric."))
        if kind in PAIR_METRICS and of_sets:
            got = f"got {kind}, which compares pairs of images"
            hint = "Use calculate_swd, calculate_fid or calculate_kid."
            expected = "a metric of sets, because samples have no partners"
            problems.append(OptionError(f"{where}:type", got, expected, hint))
        yield from problems or try_metric(function, metric, size, where)
        of_features = kind in FEATURE_METRICS and not metric.get("statistics")
        if without_truth and (of_features or kind in (*PAIR_METRICS, "calculate_swd")):
            got = f"needs ground truth, which datasets:{without_truth[0]} lacks"
            hint = "Give the metric statistics." if of_features else "Remove the metric or the set."
            yield OptionError(where, got, "sets with dataroot_gt", hint)


def _metric_files(kind: str, metric: Mapping, where: str) -> Iterator[GPENError]:
    """Files that the option file names. Published weights are searched for later."""
    for key in METRIC_FILE_KEYS:
        path = metric.get(key)
        if isinstance(path, str) and not Path(path).expanduser().is_file():
            yield OptionError(f"{where}:{key}", f"{path} is not there", "a file", "Check the path, or remove the key.")
    if kind in FEATURE_METRICS and isinstance(metric.get("statistics"), str):
        try:
            read_statistics(metric["statistics"], f"{where}:statistics", with_features=kind == "calculate_kid")
        except GPENError as error:
            yield error


def _recognizer(metric: Mapping, where: str) -> Iterator[GPENError]:
    """Options of the identity metric that exclude or require each other."""
    try:
        RecognitionSettings(**{f.name: metric[f.name] for f in fields(RecognitionSettings) if f.name in metric})
    except GPENError as error:
        yield error.under(where)


def _must_equal(where: str, value: object, of_generator: str, expected: object) -> Iterator[OptionError]:
    if value != expected:
        advice = "Give both the same value." + (_RANGE_HINT if of_generator == "value_range" else "")
        yield OptionError(where, f"got {value}", f"network_g:{of_generator}, {expected}", advice)


_RANGE_HINT = " BasicSR's own sets give [0, 1], and [-1, 1] with mean and std of [0.5, 0.5, 0.5]."


def _range_of_network(network: type, section: Mapping) -> list[float] | None:
    """The value range of a generator: its option, else the default of its class; None if neither states it."""
    parameter = inspect.signature(network).parameters.get("value_range")
    default = (-1, 1) if parameter is None and is_our_own(network) else getattr(parameter, "default", None)
    return _pair(section.get("value_range") or default)


def _range_problem(data: Mapping, where: str, wanted: list[float], *, converts: bool) -> Iterator[OptionError]:
    """A data set with an unknown value range, or with another than `wanted` in a model that does not convert it."""
    cls, stated = _class_of("dataset", data), data_range(data)
    key = f"{where}:value_range" if "value_range" in data or not data.get("std") else f"{where}:mean and std"
    if stated is None:
        got = "is a property" if isinstance(getattr(cls, "value_range", None), property) else "missing"
        hint = f"Write value_range: {wanted} if {cls.__name__} gives that, or give the class an attribute of it."
        yield OptionError(key, got, f"the range of its images; network_g:value_range is {wanted}", hint)
    elif _pair(stated) is None or stated[0] >= stated[1]:
        yield OptionError(key, f"got {list(stated)}", "the lowest and the highest value", "Write [-1, 1] or [0, 1].")
    elif data.get("std") and len({*zip(data.get("mean") or [0], data["std"], strict=False)}) > 1:
        got = f"got {data.get('mean')} and {data['std']}"
        yield OptionError(key, got, "one mean and one std for the three channels", "Use [0.5, 0.5, 0.5] for both.")
    elif not converts:
        yield from _must_equal(key, list(stated), "value_range", wanted)


def _pair(value: object) -> list[float] | None:
    """A pair of numbers; None for anything else."""
    numbers = isinstance(value, list | tuple) and all(isinstance(number, int | float) for number in value)
    return list(value) if numbers and len(value) == 2 else None


def _reads_0_to_1(model: object) -> bool:
    """Whether a model reads images as BasicSR's SRModel does; others, such as GFPGANModel, read [-1, 1]."""
    methods = ("get_current_visuals", "nondist_validation")
    return _is_a(model, SRModel) and all(getattr(model, name) is getattr(SRModel, name) for name in methods)


def _is_a(cls: object, *bases: type) -> bool:
    return inspect.isclass(cls) and issubclass(cls, bases)
