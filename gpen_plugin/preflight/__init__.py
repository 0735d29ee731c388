"""Everything about an option file that can be known before a run creates, renames or writes anything.

BasicSR moves an earlier experiment of the same name aside as soon as it has read the options. So all problems that can
be found are found here, and reported together by key path.
"""

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator
from gpen_plugin.checkpoints import checkpoint
from gpen_plugin.config import schema
from gpen_plugin.config.train_options import (
    AdamOptions,
    FileOptions,
    LoggerOptions,
    OptimOptions,
    PathOptions,
    PriorValOptions,
    ValOptions,
)
from gpen_plugin.errors import CheckpointError, DataError, GPENError, OptionError, join_errors
from gpen_plugin.host import is_our_own, registered, resolve, state_to_resume
from gpen_plugin.models.adversarial_model import AdversarialModel
from gpen_plugin.models.augment import AugmentOptions
from gpen_plugin.models.gan_prior_model import GPENPriorModel
from gpen_plugin.models.gpen_model import GPENModel
from gpen_plugin.preflight.agreement import HOST_DATASETS, agreement, metrics
from gpen_plugin.preflight.trials import loggers, loss_trial, scheduler_problems


def devices(opt: Mapping, *, alone_only: bool) -> Iterator[GPENError]:
    """GPUs that are not there, cannot do what is wanted, or would be used in a way that does not work.

    Args:
        opt: options as the host parsed them.
        alone_only: whether each GPU needs a process of its own.
    """
    train, number = opt.get("train") or {}, opt.get("num_gpu")
    if not isinstance(number, int):
        return  # the host has put a number in place of auto
    if number > torch.cuda.device_count():
        held = f"at most {torch.cuda.device_count()}, the GPUs that PyTorch sees"
        yield OptionError("num_gpu", f"got {number}", held, "Use auto, or 0 for the CPU.")
        return
    # without a launcher the host wraps networks in DataParallel, through which no path length and no compiled code goes
    alone = number > 1 and opt["is_train"] and not opt.get("dist")
    if alone and (alone_only or train.get("compile")):
        hint = f"Start with torchrun --nproc_per_node={number} and --launcher pytorch, or use 1."
        yield OptionError("num_gpu", f"got {number} without a launcher", "one process per GPU", hint)
    if number and train.get("precision") == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        got = f"got bf16, which {torch.cuda.get_device_name()} cannot do"
        yield OptionError("train:precision", got, "fp32 on this GPU", "Set it to fp32.")


ADDED_BY_THE_HOST = {"dist", "rank", "world_size", "auto_resume", "is_train", "root_path"}
PATHS_ADDED_BY_THE_HOST = {"models", "training_states", "log", "visualization"}
PRIOR_FILES = "options/gpen_prior_1024.yml (_512, _256; the demo's is gpen_demo_prior.yml)"


@dataclass(frozen=True)
class Stage:
    """What the option file of one of our models holds.

    Attributes:
        model: the model; those derived from it are checked alike, and may have keys and networks of their own.
        val: data class of ``val:``. That of ``train:`` is the model's `options_class`.
        networks: the classes whose parts or features the model uses.
        sections: data classes of the sections of ``train:``.
        losses: sections of ``train:`` that name a loss.
        example: an option file to look into.
    """

    model: type[AdversarialModel]
    val: type
    networks: Mapping[str, type]
    sections: Mapping[str, type]
    losses: tuple[str, ...]
    example: str


STAGES = (
    Stage(
        GPENPriorModel,
        PriorValOptions,
        {"network_g": GPENPrior, "network_d": GPENDiscriminator},
        {"optim_g": AdamOptions, "optim_d": AdamOptions, "augment_opt": AugmentOptions},
        ("gan_opt",),
        "options/gpen_prior_512.yml",
    ),
    Stage(
        GPENModel,
        ValOptions,
        {"network_g": GPEN, "network_d": GPENDiscriminator},
        {"optim": OptimOptions},
        ("pixel_opt", "gan_opt", "feature_matching_opt"),
        "options/gpen_finetune.yml",
    ),
)


@dataclass(frozen=True)
class Run:
    """Options of a run, and what its model is.

    Attributes:
        opt: options as the host parsed them.
        model: the registered class; None where there is none.
        stage: of a model of ours, or of one derived from it; None for all others.
    """

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
        """Whether the model is one of ours itself: the schema then lists all keys that anything reads."""
        return self.stage is not None and is_our_own(self.model)


def check_run(opt: Mapping) -> None:
    """Raise one error that lists what is wrong with the options of a run.

    Of a run with another model only those networks and data sets are looked at that are ours. Classes of the user's
    own, derived from ours or not, are taken as they are. What has to agree is compared once each part is right in
    itself.

    Args:
        opt: options as the host parsed them.
    Raises:
        GPENError: one line per problem: key path, value, what was expected, the way out.
    """
    run = Run.of(opt)
    ours = run.stage is not None
    stages: list[Callable[[Run], Iterator[GPENError]]] = [_model, _structure] if ours else [_model]
    stages += [lambda run: [*_networks(run), *_datasets(run), *([*_files(run), *_training(run)] if ours else [])]]
    stages += [lambda run: [*(_weights(run) if ours else []), *agreement(opt), *(metrics(opt) if ours else [])]]
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
    yield from _keys(run, FileOptions, _without(opt, ADDED_BY_THE_HOST), "")
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
        given = _without(opt.get(name), PATHS_ADDED_BY_THE_HOST)
        if not given:
            continue
        problems = [*_keys(run, target, given, name)]
        yield from problems
        if not problems and (run.as_published or name == "train"):
            yield from _trial(lambda target=target, given=given: target(**given), name)
    yield from devices(opt, alone_only=issubclass(run.model, GPENPriorModel))
    yield from loggers(opt)


def _keys(run: Run, target: type, given: object, where: str) -> Iterator[GPENError]:
    """Problems of a section's keys and types. A derived model may read more keys, but ``train:`` is its own schema."""
    if isinstance(given, Mapping) and not run.as_published and where != "train":
        given = {key: value for key, value in given.items() if key in inspect.signature(target).parameters}
    yield from schema.validate(target, given, where)


def _training(run: Run) -> Iterator[GPENError]:
    """Optimisers, scheduler and losses."""
    opt, stage = run.opt, run.stage
    if not opt["is_train"]:
        return
    train = opt["train"]
    for name, target in stage.sections.items():
        if train.get(name) is not None:
            yield from _section(target, train[name], f"train:{name}")
    if run.model.setup_schedulers is stage.model.setup_schedulers:
        yield from scheduler_problems(train["scheduler"], train["total_iter"], "train:scheduler")
    for name in stage.losses:
        options, where = train.get(name), f"train:{name}"
        if options:
            problems = [*_type_of("loss", options, where)]
            yield from problems or [*_keys_of_class("loss", options, where)] or loss_trial(opt, name, where)


def _networks(run: Run) -> Iterator[GPENError]:
    """Networks of ours: keys by their signature, values by building them without memory."""
    for name in _network_names(run.opt):
        section = run.opt[name]
        needed = run.stage.networks.get(name) if run.as_published else None
        problems = [*_type_of("arch", section, name)] if needed else []
        cls = _class_of("arch", section)
        if not problems and needed and not (inspect.isclass(cls) and issubclass(cls, needed)):
            got, hint = f"got {section['type']}", "Other networks run under BasicSR's own models."
            problems = [OptionError(f"{name}:type", got, needed.__name__, hint)]
        if not problems and cls is not None and is_our_own(cls):
            problems = schema.validate(cls, _without(section, {"type"}), name) or [
                *_trial(lambda section=section: _on_no_device(section), name)
            ]
        yield from problems


def _datasets(run: Run) -> Iterator[GPENError]:
    """Data sets: ours thoroughly; for a model of ours also what the host's loader and its own data sets need."""
    for phase, data in run.opt["datasets"].items():
        where, cls = f"datasets:{phase}", _class_of("dataset", data)
        problems = [*_loader(run, phase, data)] if run.stage else []
        of_ours = cls is not None and is_our_own(cls)
        if not problems and (run.stage or of_ours) and "name" not in data:
            problems = [OptionError(f"{where}:name", "missing", "what the log calls the set", "Add the key.")]
        if not problems and of_ours:
            problems = _trial(lambda cls=cls, data=data, where=where: cls.check_options(data, where))
            if not problems and phase == "train":
                problems = [*_enough(run.opt, data, len(cls(data)))]
        elif not problems and run.stage and cls.__name__ in HOST_DATASETS:
            for key in ("dataroot_gt", "dataroot_lq"):
                if data.get(key) and not os.path.exists(data[key]):
                    got = f"{data[key]} is not there"
                    problems.append(DataError(f"{where}:{key}", got, "a folder or LMDB", "Check the path."))
        yield from problems


def _loader(run: Run, phase: str, data: Mapping) -> Iterator[GPENError]:
    """What the host reads of each data set, whatever its class."""
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


def _enough(opt: Mapping, data: Mapping, images: int) -> Iterator[GPENError]:
    """The host drops the last, incomplete batch: a set smaller than one batch would train nothing, without a word."""
    batch = data["batch_size_per_gpu"] * (1 if opt.get("dist") else max(1, opt["num_gpu"]))
    per_epoch = -(-images * data.get("dataset_enlarge_ratio", 1) // opt.get("world_size", 1))
    if per_epoch < batch:
        got = f"got {data['batch_size_per_gpu']}, a batch of {batch}"
        expected = f"at most {int(per_epoch)}, the images of an epoch"
        hint = "Lower it, or raise dataset_enlarge_ratio."
        yield OptionError("datasets:train:batch_size_per_gpu", got, expected, hint)


def _files(run: Run) -> Iterator[GPENError]:
    """Weight files that are not there or contradict each other."""
    opt, paths = run.opt, run.opt["path"]
    if "training_states" in opt["path"] and state_to_resume(opt):
        return  # the host will put the files of the resumed state in their place
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
        if known and key.startswith("pretrain_") and isinstance(path, str) and not os.path.isfile(path):
            got = f"{path} is {'a folder' if os.path.isdir(path) else 'not there'}"
            hint = "Check the path" + (", or write ~ to start without one." if opt["is_train"] else ".")
            if key == "pretrain_prior":
                hint = f"Train it as {PRIOR_FILES} says for this noise_mode, or write ~ to start without one."
            yield CheckpointError(f"path:{key}", got, "a weight file", hint)


def _weights(run: Run) -> Iterator[GPENError]:
    """Weight files of our networks: readable, safe, of this size and width."""
    opt = run.opt
    if "training_states" in opt["path"] and state_to_resume(opt):
        return  # the host will put the files of the resumed state in their place
    for name in _network_names(opt):
        path, where = opt["path"].get(f"pretrain_{name}"), f"path:pretrain_{name}"
        cls = _class_of("arch", opt[name])
        if path and cls is not None and is_our_own(cls):
            label = name.removeprefix("network_")
            key, strict = opt["path"].get(f"param_key_{label}", "params"), opt["path"].get(f"strict_load_{label}", True)
            yield from _trial(
                lambda name=name, path=path, where=where, key=key, strict=strict: checkpoint.read_for(
                    _on_no_device(opt[name]), path, key, where=where, strict=strict
                )
            )
    yield from _prior(opt)


def _prior(opt: Mapping) -> Iterator[GPENError]:
    """The weights that become the decoder."""
    path, where = opt["path"].get("pretrain_prior"), "path:pretrain_prior"
    if path and is_our_own(_class_of("arch", opt["network_g"])):
        decoder, key = _on_no_device(opt["network_g"]).decoder, opt["path"].get("param_key_prior")
        yield from _trial(lambda: checkpoint.read_for(decoder, path, key, where=where))


def _trial(build: Callable[[], object], prefix: str = "") -> list[GPENError]:
    """What goes wrong when `build` is called: nothing, or one error, with `prefix` before its key."""
    try:
        build()
    except GPENError as error:
        return [error.under(prefix) if prefix and not error.where.startswith(f"{prefix}:") else error]
    return []


def _on_no_device(section: Mapping) -> torch.nn.Module:
    """The network of an option section, with shapes and without values: built in no time at any size."""
    with torch.device("meta"):
        return resolve("arch", section["type"])(**_without(section, {"type"}))


def _section(target: type, given: object, where: str) -> list[GPENError]:
    """Problems of a section whose data class is `target`: its keys and types, and then its values."""
    return schema.validate(target, given, where) or _trial(lambda: target(**given), where)


def _type_of(kind: str, section: object, where: str) -> Iterator[OptionError]:
    """Problems of the ``type`` of a section; `kind` is that of the registry."""
    if not isinstance(section, Mapping) or "type" not in section:
        yield OptionError(f"{where}:type", "missing", "the name of a class", "Add the key.")
    elif _class_of(kind, section) is None:
        yield schema.unknown_name(section["type"], list(registered(kind)), f"{where}:type")


def _class_of(kind: str, section: object) -> Callable | None:
    """The class that a section names; None if none of that name is registered."""
    return resolve(kind, section.get("type")) if isinstance(section, Mapping) else None


def _keys_of_class(kind: str, section: Mapping, where: str) -> Iterator[OptionError]:
    """Problems of the keys of a section whose class is found; of a class that is not ours the types are its own."""
    cls = _class_of(kind, section)
    yield from schema.validate(cls, _without(section, {"type"}), where, typed=is_our_own(cls))


def _network_names(opt: Mapping) -> list[str]:
    return [name for name in opt if name.startswith("network_") and opt[name]]


def _without(mapping: object, keys: set[str]) -> object:
    """A mapping less some keys; what is no mapping is left for the schema to complain about."""
    if not isinstance(mapping, Mapping):
        return mapping
    return {key: value for key, value in mapping.items() if key not in keys}
