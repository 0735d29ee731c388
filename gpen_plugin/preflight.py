"""Everything about an option file that can be known before a run creates, renames or writes anything.

BasicSR moves an earlier experiment of the same name aside as soon as it has read the options. So whatever is wrong
with them is found here, as much of it at once as makes sense, and told by key path.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from basicsr.models import lr_scheduler

from gpen_plugin import checkpoint, schema
from gpen_plugin.errors import CheckpointError, DataError, GPENError, OptionError, join_errors
from gpen_plugin.host import registered, state_to_resume
from gpen_plugin.models.augmentation import AugmentOptions
from gpen_plugin.models.file_options import FileOptions, LoggerOptions, PathOptions, PriorValOptions, ValOptions
from gpen_plugin.models.train_options import AdamOptions, OptimOptions, PriorTrainOptions, TrainOptions
from gpen_plugin.preflight_agreement import agreement, metrics
from gpen_plugin.preflight_machine import devices

ADDED_BY_THE_HOST = {"dist", "rank", "world_size", "auto_resume", "is_train", "root_path"}
PATHS_ADDED_BY_THE_HOST = {"models", "training_states", "log", "visualization"}
SCHEDULERS = {
    "MultiStepLR": lr_scheduler.MultiStepRestartLR,
    "MultiStepRestartLR": lr_scheduler.MultiStepRestartLR,
    "CosineAnnealingRestartLR": lr_scheduler.CosineAnnealingRestartLR,
}
PRIOR_FILES = "options/gpen_prior_1024.yml (_512, _256; the demo's is gpen_demo_prior.yml)"
HOST_REFUSALS = (NotImplementedError, ValueError, AssertionError)  # how the host's losses refuse a value


@dataclass(frozen=True)
class Stage:
    """What the option file of one of our models holds.

    Attributes:
        train: data class of ``train:``.
        val: data class of ``val:``.
        networks: the classes whose parts or features the model uses.
        sections: data classes of the sections of ``train:``.
        losses: sections of ``train:`` that name a loss.
        example: an option file to look into.
    """

    train: type
    val: type
    networks: Mapping[str, str]
    sections: Mapping[str, type]
    losses: tuple[str, ...]
    example: str


STAGES = {
    "GPENPriorModel": Stage(
        PriorTrainOptions,
        PriorValOptions,
        {"network_g": "GPENPrior", "network_d": "GPENDiscriminator"},
        {"optim_g": AdamOptions, "optim_d": AdamOptions, "augment_opt": AugmentOptions},
        ("gan_opt",),
        "options/gpen_prior_512.yml",
    ),
    "GPENModel": Stage(
        TrainOptions,
        ValOptions,
        {"network_g": "GPEN", "network_d": "GPENDiscriminator"},
        {"optim": OptimOptions},
        ("pixel_opt", "gan_opt", "feature_matching_opt"),
        "options/gpen_finetune.yml",
    ),
}


def check_run(opt: Mapping) -> None:
    """Raise one error that lists what is wrong with the options of a run.

    A run with another model of the host is checked only where it names a network or data set of ours. What has to
    agree is compared once each part is right in itself.

    Args:
        opt: options as the host parsed them.
    Raises:
        GPENError: one line per problem: key path, value, what was expected, the way out.
    """
    ours = opt.get("model_type") in STAGES
    stages: list[Callable[[Mapping], Iterator[GPENError]]] = [_model, _structure] if ours else [_model]
    stages += [lambda opt: [*_networks(opt), *_datasets(opt), *_files(opt), *(_training(opt) if ours else [])]]
    stages += [lambda opt: [*_weights(opt), *agreement(opt), *(metrics(opt) if ours else [])]]
    for stage in stages:
        problems = [*stage(opt)]
        if problems:
            raise join_errors(problems)


def _model(opt: Mapping) -> Iterator[GPENError]:
    if opt.get("model_type") not in registered("model"):
        yield schema.unknown_name(opt.get("model_type"), list(registered("model")), "model_type")


def _structure(opt: Mapping) -> Iterator[GPENError]:
    """Unknown and missing keys of the sections, and the values of those that have no class of their own."""
    yield from schema.problems_of(FileOptions, _without(opt, ADDED_BY_THE_HOST))
    stage = STAGES[opt["model_type"]]
    sections = {"path": PathOptions, "val": stage.val}
    if opt["is_train"]:
        sections |= {"train": stage.train, "logger": LoggerOptions}
        for name in ("network_d", "train", "logger"):
            if not opt.get(name):
                yield OptionError(name, "missing", "a section of every training", f"See {stage.example}.")
        if "train" not in (opt.get("datasets") or {}):
            yield OptionError("datasets:train", "missing", "the training set", f"See {stage.example}.")
    elif not opt.get("val"):
        yield OptionError("val", "missing", "a section of every test", "See options/gpen_test.yml.")
    for name, target in sections.items():
        if opt.get(name):
            yield from _section(target, _without(opt[name], PATHS_ADDED_BY_THE_HOST), name)
    yield from devices(opt)


def _training(opt: Mapping) -> Iterator[GPENError]:
    """Optimisers, scheduler and losses."""
    if not opt["is_train"]:
        return
    train, stage = opt["train"], STAGES[opt["model_type"]]
    for name, target in stage.sections.items():
        if train.get(name) is not None:
            yield from _section(target, train[name], f"train:{name}")
    yield from _named(SCHEDULERS, train["scheduler"], "train:scheduler", given={"optimizer", "last_epoch"})
    losses = registered("loss")
    for name in stage.losses:
        options, where = train.get(name), f"train:{name}"
        if options:
            problems = _named(losses, options, where)
            yield from problems or _trial(lambda options=options: _loss_for(opt, options), where)


def _loss_for(opt: Mapping, options: Mapping) -> object:
    """Build a loss as the model will, and ask it for its layers if it has any."""
    try:
        loss = registered("loss")[options["type"]](**_without(options, {"type"}))
    except HOST_REFUSALS as error:
        if isinstance(error, GPENError):
            raise
        came = " ".join(str(error).split())
        raise OptionError(options["type"], came, "values that this loss takes", "Change them.") from error
    if hasattr(loss, "chosen_layers") and _is_size(opt["network_d"].get("out_size")):
        loss.chosen_layers(int(opt["network_d"]["out_size"]).bit_length() - 2)  # as many as D has: log2(size) - 1
    return loss


def _networks(opt: Mapping) -> Iterator[GPENError]:
    """Networks of ours: keys by their signature, values by building them without memory."""
    archs = registered("arch")
    for name in _network_names(opt):
        problems = [*_type_of(archs, opt[name], name)]
        needed = STAGES[opt["model_type"]].networks.get(name) if opt.get("model_type") in STAGES else None
        if not problems and needed and not issubclass(archs[opt[name]["type"]], archs[needed]):
            came = f"got {opt[name]['type']}"
            problems = [OptionError(f"{name}:type", came, needed, "Other networks run under BasicSR's own models.")]
        if not problems and _ours(archs[opt[name]["type"]]):
            arguments = _without(opt[name], {"type"})
            problems = schema.problems_of(archs[opt[name]["type"]], arguments, name) or [
                *_trial(lambda name=name: _on_no_device(opt[name]), name)
            ]
        yield from problems


def _datasets(opt: Mapping) -> Iterator[GPENError]:
    """Data sets: ours thoroughly, of the others only that their folders exist."""
    known = registered("dataset")
    for phase, data in opt["datasets"].items():
        where = f"datasets:{phase}"
        problems = [*_type_of(known, data, where)]
        if not problems and _ours(known[data["type"]]):
            cls = known[data["type"]]
            problems = _trial(lambda cls=cls, data=data, where=where: cls.check_options(data, where))
            if not problems and phase == "train":
                problems = [*_enough(opt, data, len(cls(data)))]
        elif not problems:
            for key in ("dataroot_gt", "dataroot_lq"):
                if data.get(key) and not os.path.exists(data[key]):
                    came = f"{data[key]} is not there"
                    problems.append(DataError(f"{where}:{key}", came, "a folder or LMDB", "Mend the path."))
        yield from problems


def _enough(opt: Mapping, data: Mapping, pictures: int) -> Iterator[GPENError]:
    """The host drops the last, incomplete batch: a set smaller than one batch would train nothing, without a word."""
    batch = data["batch_size_per_gpu"] * (1 if opt.get("dist") else max(1, opt["num_gpu"]))
    per_epoch = -(-pictures * data.get("dataset_enlarge_ratio", 1) // opt.get("world_size", 1))
    if per_epoch < batch:
        came = f"got {data['batch_size_per_gpu']}, a batch of {batch}"
        expected = f"at most {int(per_epoch)}, the pictures of an epoch"
        way_out = "Lower it, or raise dataset_enlarge_ratio."
        yield OptionError("datasets:train:batch_size_per_gpu", came, expected, way_out)


def _files(opt: Mapping) -> Iterator[GPENError]:
    """Weight files that are not there or contradict each other."""
    paths = opt["path"]
    if "training_states" in opt["path"] and state_to_resume(opt):
        return  # the host will put the files of the resumed state in their place
    if paths.get("pretrain_prior") and opt.get("model_type") != "GPENModel":
        expected = "a training of GPENModel, which embeds it"
        yield OptionError("path:pretrain_prior", f"got {paths['pretrain_prior']}", expected, "Remove it.")
        return
    if paths.get("pretrain_prior") and paths.get("pretrain_network_g"):
        came = "given together with pretrain_network_g, which holds a decoder of its own"
        yield OptionError("path:pretrain_prior", came, "one of the two", "Remove one of them.")
        return
    for key, path in paths.items():
        if key.startswith("pretrain_") and isinstance(path, str) and not os.path.isfile(path):
            came = f"{path} is {'a folder' if os.path.isdir(path) else 'not there'}"
            way_out = "Mend the path" + (", or write ~ to start without one." if opt["is_train"] else ".")
            if key == "pretrain_prior":
                way_out = f"Train it as {PRIOR_FILES} says for this noise_mode, or write ~ to start without one."
            yield CheckpointError(f"path:{key}", came, "a weight file", way_out)


def _weights(opt: Mapping) -> Iterator[GPENError]:
    """Weight files of our networks: readable, safe, of this size and width."""
    archs = registered("arch")
    if "training_states" in opt["path"] and state_to_resume(opt):
        return  # the host will put the files of the resumed state in their place
    for name in _network_names(opt):
        path, where = opt["path"].get(f"pretrain_{name}"), f"path:pretrain_{name}"
        if path and _ours(archs[opt[name]["type"]]):
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
    if path:
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
        return registered("arch")[section["type"]](**_without(section, {"type"}))


def _section(target: type, given: object, where: str) -> list[GPENError]:
    """Problems of a section whose data class is `target`: its keys and types, and then its values."""
    return schema.problems_of(target, given, where) or _trial(lambda: target(**given), where)


def _named(known: Mapping, section: Mapping, where: str, given: set[str] = frozenset()) -> list[GPENError]:
    """Problems of a section that names its class by ``type``; `given` are arguments that the code supplies."""
    problems = [*_type_of(known, section, where)]
    if problems:
        return problems
    supplied = dict.fromkeys(given, None)
    return schema.problems_of(known[section["type"]], {**supplied, **_without(section, {"type"})}, where)


def _type_of(known: Mapping, section: object, where: str) -> Iterator[OptionError]:
    if not isinstance(section, Mapping) or "type" not in section:
        yield OptionError(f"{where}:type", "missing", "the name of a class", "Add the key.")
    elif section["type"] not in known:
        yield schema.unknown_name(section["type"], list(known), f"{where}:type")


def _network_names(opt: Mapping) -> list[str]:
    return [name for name in opt if name.startswith("network_") and opt[name]]


def _ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == __name__.partition(".")[0]


def _is_size(value: object) -> bool:
    return isinstance(value, int) and value > 0


def _without(mapping: object, keys: set[str]) -> object:
    """A mapping less some keys; what is no mapping is left for the schema to complain about."""
    if not isinstance(mapping, Mapping):
        return mapping
    return {key: value for key, value in mapping.items() if key not in keys}
