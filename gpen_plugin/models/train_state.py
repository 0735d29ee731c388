"""The training state: options and random states, the files on disk, and what changes on resume."""

import random
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed
from basicsr.utils import get_root_logger

from gpen_plugin.checkpoints import checkpoint
from gpen_plugin.config.train_options import AdversarialOptions
from gpen_plugin.errors import CheckpointError
from gpen_plugin.host import before_first_batch

SECTIONS = ("model_type", "manual_seed", "datasets", "network_g", "network_d", "network_identity", "val")
WITHOUT_EFFECT = {  # on what is learnt and measured
    "num_worker_per_gpu",
    "prefetch_mode",
    "num_prefetch_queue",
    "pin_memory",
    "persistent_workers",
    "pbar",
}
NO_SETTINGS = ("params", "name", "lr", "fused", "foreach", "capturable")  # of a group of an optimizer
# of a schedule; the other public entries of its state are its settings
POSITION = ("last_epoch", "base_lrs", "T_cur", "T_i")

Optimizers = Sequence[torch.optim.Optimizer]
Schedulers = Sequence[torch.optim.lr_scheduler.LRScheduler]


class Change(NamedTuple):
    """A setting that differs between a state and an option file."""

    key: str
    old: object
    new: object

    def __str__(self) -> str:
        old, new = ("~" if value is None else value for value in (self.old, self.new))
        return f"{self.key}: {old} -> {new}"


def recorded_options(opt: Mapping, train: AdversarialOptions) -> dict:
    """The options that decide what is learnt and measured, as a weights-only loader reads them."""
    return _plain({**{name: opt.get(name) for name in SECTIONS}, "train": asdict(train)})


def changes_between(saved: Mapping, wanted: Mapping) -> list[Change]:
    """Differences between two results of `recorded_options`, by key path. A missing key counts as ~."""
    old, new = dict(_flatten(saved)), dict(_flatten(wanted))
    keys = dict.fromkeys([*old, *new])  # a set would lose the order
    return [Change(key, old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)]


def load_optimizers(
    state: Mapping,  # ``optimizers`` and ``schedulers``, state dicts
    optimizers: Optimizers,  # with named groups
    schedulers: Schedulers,  # one per optimizer
    advance: Callable[[], None],  # steps the schedulers to the state's iteration, if they or the rates have changed
    *,
    where: str,  # names the state in an error
    same_warmup: bool = True,  # whether the warm-up, which schedulers do not contain, is the state's
) -> list[Change]:
    """Load a training state into optimizers and schedulers that were built from the option file.

    Groups and parameters that the state lacks start without moments; those that only the state has are dropped. So are
    all moments if the optimizer is of another class.
    Returns the settings that the state has otherwise. CheckpointError: the state is of another model or network.
    """
    saved_optimizers, saved_schedulers = state["optimizers"], state["schedulers"]
    if not len(saved_optimizers) == len(saved_schedulers) == len(optimizers):
        got = f"holds {len(saved_optimizers)} optimizers"
        raise CheckpointError(where, got, f"a training state of this model, which has {len(optimizers)}")
    pairs = [*zip(optimizers, saved_optimizers, strict=True)]
    classes = state.get("optimizer_classes", class_names(optimizers))  # states of earlier versions are of Adam
    same_class = [old == new for old, new in zip(classes, class_names(optimizers), strict=True)]
    of_groups = [
        change
        for (own, saved), same in zip(pairs, same_class, strict=True)
        for change in _diff_groups(saved["param_groups"], own.param_groups, same)
    ]
    of_schedules = [
        change
        for scheduler, saved in zip(schedulers, saved_schedulers, strict=True)
        for change in _diff(saved, _settings(scheduler.state_dict()), "scheduler:{}")
    ]
    same_rates = all(_rates(saved["param_groups"]) == _rates(own.param_groups) for own, saved in pairs)
    for (optimizer, saved), same in zip(pairs, same_class, strict=True):
        optimizer.load_state_dict(_fit_state(saved if same else {**saved, "state": {}}, optimizer, where))
    if of_schedules or not same_rates or not same_warmup:
        advance()
    else:
        for scheduler, saved in zip(schedulers, saved_schedulers, strict=True):
            scheduler.load_state_dict(saved)
        for optimizer, saved in pairs:
            for group, saved_group in zip(optimizer.param_groups, saved["param_groups"], strict=True):
                group["lr"] = saved_group["lr"]
    return of_groups + of_schedules


def class_names(optimizers: Optimizers) -> list[str]:
    """For the training state."""
    return [type(optimizer).__name__ for optimizer in optimizers]


def _rates(groups: Sequence[Mapping]) -> list[tuple[str, float]]:
    return [(group["name"], group["initial_lr"]) for group in groups]


def _diff_groups(saved: Sequence[Mapping], groups: Sequence[Mapping], same_class: bool) -> list[Change]:
    names = [[group["name"] for group in one] for one in (saved, groups)]
    if names[0] != names[1]:
        return [Change("groups of the optimizer", *names)]
    return [
        change
        for old, new in zip(saved, groups, strict=True)
        for change in _diff(old, _group_settings(old, new, same_class), f"{{}} of {new['name']}")
    ]


def _group_settings(old: Mapping, new: Mapping, same_class: bool) -> dict:
    """Settings of a group that a state holds, too; of another class of optimizer only the rate."""
    return {
        key: value
        for key, value in new.items()
        if key == "initial_lr" or (same_class and key in old and key not in NO_SETTINGS)
    }


def _fit_state(saved: Mapping, optimizer: torch.optim.Optimizer, where: str) -> dict:
    """The option file's settings with the state's moments, matched by group name and index in the group."""
    own = optimizer.state_dict()
    numbers = {group["name"]: group["params"] for group in saved["param_groups"]}
    moments = {}
    for group, described in zip(optimizer.param_groups, own["param_groups"], strict=True):
        known = numbers.get(group["name"], ())
        for number, old_number, parameter in zip(described["params"], known, group["params"], strict=False):
            if old_number in saved["state"]:
                moments[number] = saved["state"][old_number]
                for moment in moments[number].values():
                    if torch.is_tensor(moment) and moment.ndim and moment.shape != parameter.shape:
                        got = f"a moment of shape {tuple(moment.shape)} in group {group['name']}"
                        raise CheckpointError(where, got, f"{tuple(parameter.shape)}, as the parameter has")
    return {**own, "state": moments}


def _settings(state: Mapping) -> dict:
    """A schedule's settings, without its position."""
    return {key: value for key, value in state.items() if key not in POSITION and not key.startswith("_")}


def _diff(saved: Mapping, wanted: Mapping, name: str) -> list[Change]:
    """Entries of `wanted` that `saved` lacks or has with another value. `name` is a format for the key."""
    pairs = [(key, _plain(saved.get(key)), _plain(value)) for key, value in wanted.items()]
    return [Change(name.format(key), old, new) for key, old, new in pairs if old != new]


def _flatten(options: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}:")
        else:
            yield f"{prefix}{key}", value


def _plain(value: object) -> object:
    """Options as a weights-only loader reads them, without those that have no effect."""
    if isinstance(value, Mapping):
        kept = [(key if isinstance(key, (str, int)) else str(key), item) for key, item in value.items()]
        return {key: _plain(item) for key, item in kept if key not in WITHOUT_EFFECT}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


AFTER_A_FULL_DISK = "Make room, then resume with --auto_resume: the earlier checkpoint is complete."


def rng_state() -> dict:
    """The global generators of this process, for other code than our steps (`StepRNG`), for a weights-only loader."""
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,  # this rank's GPU only
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest),
        "python": random.getstate(),
    }


def set_rng_state(state: Mapping) -> None:
    """Restore a `rng_state`; that of CUDA if there is a GPU."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))


def restore_rng_states(states: Sequence[Mapping], rank: int, world_size: int) -> None:
    """Restore this rank's entry of `states` before the first batch; with another number of ranks, only warn."""
    if len(states) == world_size:
        before_first_batch(lambda: set_rng_state(states[rank]))
    else:
        get_root_logger().warning(
            f"The state is of {len(states)} ranks, and there are {world_size}: global random generators start anew. "
            "Our own steps do not use them."
        )


@contextmanager
def preserve_rng_state() -> Iterator[None]:
    """Restore the global generators at the end."""
    before = rng_state()
    try:
        yield
    finally:
        set_rng_state(before)


def to_builtin(value: object) -> object:
    """Nested dicts with NumPy scalars as Python's, which a weights-only loader accepts."""
    if isinstance(value, dict):
        return {key: to_builtin(item) for key, item in value.items()}
    return value.item() if hasattr(value, "item") else value


def check_complete(state: Mapping, path: str | None, own: Mapping) -> None:
    """Raise a `CheckpointError` unless a training state has all that resume reads, and the entries of `own`."""
    wanted = {"optimizers", "schedulers", "best_metric_results", "sampler", "random", *own} - {"augmentation"}
    missing = sorted(wanted - set(state))
    if missing:
        raise CheckpointError(
            f"path:resume_state: {path}",
            f"has no {', '.join(missing)}",
            "a training state of this model, written by this version",
            "Start from its networks: name them as pretrain_network_g and pretrain_network_d.",
        )


def best_iteration(saved: Mapping, metrics: Mapping) -> dict:
    """BasicSR's records by data set and metric, for ``val:metrics``: new ones or another ``better`` start anew."""
    best = {}
    for dataset, records in saved.items():
        best[dataset] = {}
        for name, options in metrics.items():
            better = options.get("better", "higher")
            worst = float("-inf") if better == "higher" else float("inf")
            record = records.get(name, {})
            same = record.get("better") == better
            best[dataset][name] = dict(record) if same else {"better": better, "val": worst, "iter": -1}
    return best


def write_state(folders: Mapping[str, str], state: Mapping) -> None:
    """Write a training state as ``N.state``, N its ``iter``; on a CheckpointError an earlier file is intact.

    `folders` is ``path:`` of the options, as in all below.
    """
    checkpoint.write(_state_file(folders, state["iter"]), state, hint=AFTER_A_FULL_DISK)


def delete_checkpoint(folders: Mapping[str, str], iteration: int) -> None:
    """Delete the state of this iteration, because its networks are about to be overwritten."""
    _state_file(folders, iteration).unlink(missing_ok=True)


def finish_interrupted_save(
    folders: Mapping[str, str], iteration: int, keep_last: int | None, best: Collection[int] = ()
) -> None:
    """On resume, delete files that a killed process left unfinished; warn of states of later iterations."""
    for name in ("models", "training_states"):
        for unfinished in Path(folders[name]).glob(".*.tmp"):
            unfinished.unlink(missing_ok=True)
    prune_checkpoints(folders, iteration, keep_last, best)
    later = [number for number in _saved_iterations(folders) if number > iteration]
    if later:
        get_root_logger().warning(
            f"Resuming from iteration {iteration}, but there are states of {', '.join(map(str, later))}. "
            "--auto_resume would take the last of them. Move them to another folder."
        )


def prune_checkpoints(
    folders: Mapping[str, str], iteration: int, keep_last: int | None, best: Collection[int] = ()
) -> None:
    """Delete all but the last `keep_last` checkpoints (None: no limit) and those of the iterations `best`.

    States are deleted before their networks.
    """
    # states after `iteration` are of another run: they are neither counted nor deleted
    numbers = [number for number in _saved_iterations(folders) if number <= iteration]
    if not keep_last or len(numbers) < keep_last:
        return
    for number in {*numbers[:-keep_last]} - {*best}:
        delete_checkpoint(folders, number)
    for path in Path(folders["models"]).glob("net_*.pth"):
        found = re.fullmatch(r"net_[^_]+_(\d+)\.pth", path.name)
        if found and int(found[1]) < numbers[-keep_last] and int(found[1]) not in best:
            path.unlink(missing_ok=True)


def best_iterations(validations: Mapping, metrics: Mapping, count: int) -> set[int]:
    """Iterations of the `count` best values of each metric on each data set; of equal ones the later is better."""
    best = set()
    for of_set in validations.values():
        for name, options in metrics.items():
            sign = 1 if options.get("better", "higher") == "higher" else -1
            values = {number: value for number, value in of_set.get(name, {}).items() if value == value}  # no NaN
            ranked = sorted(values, key=lambda number: (sign * values[number], number))
            best |= {*ranked[len(ranked) - min(count, len(ranked)) :]}
    return best


def validations_on_disk(folders: Mapping[str, str], validations: Mapping) -> dict:
    """Without those of checkpoints that were deleted."""
    held = {*_saved_iterations(folders)}
    return {
        name: {
            metric: {number: value for number, value in values.items() if number in held}
            for metric, values in of_set.items()
        }
        for name, of_set in validations.items()
    }


def _state_file(folders: Mapping[str, str], iteration: int) -> Path:
    return Path(folders["training_states"], f"{iteration}.state")


def _saved_iterations(folders: Mapping[str, str]) -> list[int]:
    """Iterations of the states on the disk, in order."""
    return sorted(int(path.stem) for path in Path(folders["training_states"]).glob("*.state") if path.stem.isdigit())
