"""Everything about an option file that can be known before a run creates, renames or writes anything.

BasicSR moves an earlier experiment of the same name aside as soon as it has read the options. So whatever is wrong
with them is found here, all of it at once, and told by key path.
"""

import os
from collections.abc import Callable, Iterator, Mapping

import torch
from basicsr.models import lr_scheduler

from gpen_plugin import checkpoint, schema
from gpen_plugin.errors import DataError, GPENError, OptionError, join_errors
from gpen_plugin.host import registered
from gpen_plugin.models.train_options import (
    FileOptions,
    LoggerOptions,
    OptimOptions,
    PathOptions,
    TrainOptions,
    ValOptions,
)

ADDED_BY_THE_HOST = {"dist", "rank", "world_size", "auto_resume", "is_train", "root_path"}
PATHS_ADDED_BY_THE_HOST = {"models", "training_states", "log", "visualization"}
SCHEDULERS = {
    "MultiStepLR": lr_scheduler.MultiStepRestartLR,
    "MultiStepRestartLR": lr_scheduler.MultiStepRestartLR,
    "CosineAnnealingRestartLR": lr_scheduler.CosineAnnealingRestartLR,
}
NIQE_BLOCK = 96  # pixels; the host's NIQE divides pictures into blocks of this side


def check_run(opt: Mapping) -> None:
    """Raise one error that lists all that is wrong with the options of a run.

    A run with another model of the host is checked only where it names a network or data set of ours.

    Args:
        opt: options as the host parsed them.
    Raises:
        GPENError: one line per problem: key path, value, what was expected, the way out.
    """
    problems = [*_structure(opt)] if opt.get("model_type") == "GPENModel" else []
    if not problems:
        problems = [*_networks(opt), *_datasets(opt), *_weights(opt)]
        if opt.get("model_type") == "GPENModel":
            problems += [*_training(opt), *_metrics(opt), *_agreement(opt)]
    if problems:
        raise join_errors(problems)


def _structure(opt: Mapping) -> Iterator[GPENError]:
    """Unknown and missing keys of the sections."""
    yield from schema.problems_of(FileOptions, _without(opt, ADDED_BY_THE_HOST))
    sections = {"path": PathOptions, "val": ValOptions}
    if opt["is_train"]:
        sections |= {"train": TrainOptions, "logger": LoggerOptions}
        for name in ("network_d", "train", "logger"):
            if not opt.get(name):
                yield OptionError(name, "missing", "a section of every training", "See options/gpen_finetune.yml.")
        if "train" not in (opt.get("datasets") or {}):
            yield OptionError("datasets:train", "missing", "the training set", "See options/gpen_finetune.yml.")
    elif not opt.get("val"):
        yield OptionError("val", "missing", "a section of every test", "See options/gpen_test.yml.")
    for name, target in sections.items():
        if opt.get(name):
            yield from schema.problems_of(target, _without(opt[name], PATHS_ADDED_BY_THE_HOST), name)


def _training(opt: Mapping) -> Iterator[GPENError]:
    """Optimiser, scheduler and losses."""
    if not opt["is_train"]:
        return
    train = opt["train"]
    yield from _trial(lambda: TrainOptions(**train), "train")
    yield from schema.problems_of(OptimOptions, train["optim"], "train:optim") or _trial(
        lambda: OptimOptions(**train["optim"]), "train:optim"
    )
    yield from _named(SCHEDULERS, train["scheduler"], "train:scheduler", given={"optimizer", "last_epoch"})
    losses = registered("loss")
    for name in ("pixel_opt", "gan_opt", "feature_matching_opt"):
        if train.get(name):
            yield from _named(losses, train[name], f"train:{name}")


def _metrics(opt: Mapping) -> Iterator[GPENError]:
    """Metrics of the validation, and what they need."""
    metrics = (opt.get("val") or {}).get("metrics") or {}
    known = registered("metric")
    without_truth = [name for name, data in opt["datasets"].items() if _is_validation(name) and not _has_truth(data)]
    for name, metric in metrics.items():
        where = f"val:metrics:{name}"
        yield from _type_of(known, metric, where)
        kind = metric.get("type")
        if kind in known and "crop_border" not in metric:
            yield OptionError(f"{where}:crop_border", "missing", "a number of pixels", "Add crop_border: 0.")
        if kind == "calculate_niqe" and opt["network_g"].get("out_size", NIQE_BLOCK) < NIQE_BLOCK:
            size = opt["network_g"]["out_size"]
            yield OptionError(
                where, f"NIQE of pictures of {size} px", f"at least {NIQE_BLOCK} px", "Remove this metric."
            )
        if kind in ("calculate_psnr", "calculate_ssim") and without_truth:
            yield OptionError(
                where,
                f"needs ground truth, which datasets:{without_truth[0]} has not",
                "sets with dataroot_gt",
                "Remove the metric or the set.",
            )


def _networks(opt: Mapping) -> Iterator[GPENError]:
    """Networks of ours: keys by their signature, values by building them without memory."""
    archs = registered("arch")
    for name in _network_names(opt):
        problems = [*_type_of(archs, opt[name], name)]
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
        if problems:
            yield from problems
        elif _ours(known[data["type"]]):
            yield from _trial(lambda data=data, where=where: known[data["type"]].check_options(data, where))
        else:
            for key in ("dataroot_gt", "dataroot_lq"):
                if data.get(key) and not os.path.exists(data[key]):
                    yield DataError(f"{where}:{key}", f"{data[key]} is not there", "a folder or LMDB", "Mend the path.")


def _weights(opt: Mapping) -> Iterator[GPENError]:
    """Weight files of our networks: readable, safe, of this size and width."""
    archs = registered("arch")
    if opt.get("auto_resume") or opt["path"].get("resume_state"):
        return  # the host will put the files of the resumed state in their place
    for name in _network_names(opt):
        path = opt["path"].get(f"pretrain_{name}")
        label = name.removeprefix("network_")
        strict = opt["path"].get(f"strict_load_{label}", True)
        if not path or opt[name].get("type") not in archs or not _ours(archs[opt[name]["type"]]):
            continue
        if strict:
            key = opt["path"].get(f"param_key_{label}", "params")
            yield from _trial(
                lambda path=path, key=key, name=name: checkpoint.read_for(
                    _on_no_device(opt[name]), path, key, where=f"path:pretrain_{name}"
                )
            )
        elif not os.path.isfile(path):
            yield OptionError(f"path:pretrain_{name}", f"{path} is not there", "a weight file", "Mend the path.")


def _agreement(opt: Mapping) -> Iterator[GPENError]:
    """Sizes and ranges that have to be the same in several sections."""
    expected = {"out_size": opt["network_g"].get("out_size"), "value_range": opt["network_g"].get("value_range")}
    others = {f"datasets:{phase}": data for phase, data in opt["datasets"].items() if "out_size" in data}
    if opt["is_train"]:
        others["network_d"] = opt["network_d"]
    for where, section in others.items():
        if section.get("out_size") != expected["out_size"]:
            yield OptionError(
                f"{where}:out_size",
                f"got {section.get('out_size')}",
                f"network_g:out_size, {expected['out_size']}",
                "Give both the same value.",
            )
        wanted = list(expected["value_range"] or (-1, 1))
        if where != "network_d" and list(section.get("value_range") or (-1, 1)) != wanted:
            yield OptionError(
                f"{where}:value_range",
                f"got {list(section.get('value_range') or (-1, 1))}",
                f"network_g:value_range, {wanted}",
                "Give both the same value.",
            )


def _trial(build: Callable[[], object], prefix: str = "") -> list[GPENError]:
    """What goes wrong when `build` is called: nothing, or one error, with `prefix` before its key."""
    try:
        build()
    except GPENError as error:
        return [error.under(prefix) if prefix and not error.where.startswith(prefix) else error]
    return []


def _on_no_device(section: Mapping) -> torch.nn.Module:
    """The network of an option section, with shapes and without values: built in no time at any size."""
    cls = registered("arch")[section["type"]]
    with torch.device("meta"):
        return cls(**_without(section, {"type"}))


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


def _is_validation(phase: str) -> bool:
    return phase.split("_")[0] in ("val", "test")


def _has_truth(data: Mapping) -> bool:
    return bool(data.get("dataroot_gt"))


def _without(mapping: Mapping, keys: set[str]) -> dict:
    return {key: value for key, value in mapping.items() if key not in keys}
