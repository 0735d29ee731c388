"""What a resumed training does where its option file was changed since: the option file wins, and the log says so.

A training state holds rates, betas and a schedule of its own. Loading them would put them back in place of the option
file's, so that the advice "resume with a lower rate" could not be followed. Taken from the state are the moments of the
optimisers and, while the schedule is the same, its place; under another schedule or rate, the training goes on with the
rate that the option file gives at this iteration.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import NamedTuple

import torch

from gpen_plugin.errors import CheckpointError
from gpen_plugin.models.train_options import AdversarialOptions

SECTIONS = ("model_type", "manual_seed", "datasets", "network_g", "network_d", "val")
WITHOUT_EFFECT = {  # on what is learnt and measured
    "num_worker_per_gpu",
    "prefetch_mode",
    "num_prefetch_queue",
    "pin_memory",
    "persistent_workers",
    "pbar",
}
OF_A_GROUP = ("initial_lr", "betas", "eps")
POSITION = ("last_epoch", "base_lrs")  # of a schedule; the other public entries of its state are its settings

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
    """The options that decide what is learnt and measured, for a training state.

    Args:
        opt: the options of the run.
        train: its section ``train:``, defaults included.
    Returns:
        Nested dicts and lists of numbers, texts and None, which a loader of weights alone reads.
    """
    return _plain({**{name: opt.get(name) for name in SECTIONS}, "train": asdict(train)})


def changes_between(held: Mapping, wanted: Mapping) -> list[Change]:
    """What differs between two results of `recorded_options`, by key path. A missing key is as good as ~."""
    old, new = dict(_flat(held)), dict(_flat(wanted))
    keys = dict.fromkeys([*old, *new])  # a set would lose the order
    return [Change(key, old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)]


def load_optimizers(
    state: Mapping,
    optimizers: Optimizers,
    schedulers: Schedulers,
    advance: Callable[[], None],
    *,
    where: str,
    same_warmup: bool = True,
) -> list[Change]:
    """Take up optimisers and schedules as built from the option file, from a training state.

    Args:
        state: ``optimizers`` and ``schedulers``, state dicts; ``iter``.
        optimizers: fresh; their groups have names. A group or parameter that the state does not know starts without
            moments, and what the state alone knows is dropped.
        schedulers: one per optimiser, fresh.
        advance: moves the schedulers from the start to ``iter``; called where they or the rates are not the state's.
        where: names the state in an error.
        same_warmup: whether the warm-up, of which the schedulers do not know, is the state's.
    Returns:
        The settings of groups and schedules in which the state differs.
    Raises:
        CheckpointError: the state is of another model or network.
    """
    held_optimizers, held_schedulers = state["optimizers"], state["schedulers"]
    if not len(held_optimizers) == len(held_schedulers) == len(optimizers):
        got = f"holds {len(held_optimizers)} optimizers"
        raise CheckpointError(where, got, f"a training state of this model, which has {len(optimizers)}")
    pairs = [*zip(optimizers, held_optimizers, strict=True)]
    of_groups = [change for own, held in pairs for change in _changes_of_groups(held["param_groups"], own.param_groups)]
    of_schedules = [
        change
        for scheduler, held in zip(schedulers, held_schedulers, strict=True)
        for change in _differences(held, _settings(scheduler.state_dict()), "scheduler:{}")
    ]
    same_rates = all(_rates(held["param_groups"]) == _rates(own.param_groups) for own, held in pairs)
    for optimizer, held in pairs:
        optimizer.load_state_dict(_fitted(held, optimizer, where))
    if of_schedules or not same_rates or not same_warmup:
        advance()
    else:
        for scheduler, held in zip(schedulers, held_schedulers, strict=True):
            scheduler.load_state_dict(held)
        for optimizer, held in pairs:
            for group, held_group in zip(optimizer.param_groups, held["param_groups"], strict=True):
                group["lr"] = held_group["lr"]
    return of_groups + of_schedules


def _rates(groups: Sequence[Mapping]) -> list[tuple[str, float]]:
    return [(group["name"], group["initial_lr"]) for group in groups]


def _changes_of_groups(held: Sequence[Mapping], groups: Sequence[Mapping]) -> list[Change]:
    names = [[group["name"] for group in one] for one in (held, groups)]
    if names[0] != names[1]:
        return [Change("groups of the optimizer", *names)]
    return [
        change
        for old, new in zip(held, groups, strict=True)
        for change in _differences(old, {key: new[key] for key in OF_A_GROUP}, f"{{}} of {new['name']}")
    ]


def _fitted(held: Mapping, optimizer: torch.optim.Optimizer, where: str) -> dict:
    """The option file's settings with the state's moments, which are matched by group name and place in the group."""
    own = optimizer.state_dict()
    numbers = {group["name"]: group["params"] for group in held["param_groups"]}
    moments = {}
    for group, described in zip(optimizer.param_groups, own["param_groups"], strict=True):
        known = numbers.get(group["name"], ())
        for number, old_number, parameter in zip(described["params"], known, group["params"], strict=False):
            if old_number in held["state"]:
                moments[number] = held["state"][old_number]
                shape = moments[number].get("exp_avg", parameter).shape
                if shape != parameter.shape:
                    got = f"a moment of shape {tuple(shape)} in group {group['name']}"
                    raise CheckpointError(where, got, f"{tuple(parameter.shape)}, as the parameter has")
    return {**own, "state": moments}


def _settings(state: Mapping) -> dict:
    """A schedule's settings, without its position."""
    return {key: value for key, value in state.items() if key not in POSITION and not key.startswith("_")}


def _differences(held: Mapping, wanted: Mapping, name: str) -> list[Change]:
    """Entries of `wanted` that `held` lacks or has otherwise. `name` has a place for the key."""
    pairs = [(key, _plain(held.get(key)), _plain(value)) for key, value in wanted.items()]
    return [Change(name.format(key), old, new) for key, old, new in pairs if old != new]


def _flat(options: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}:")
        else:
            yield f"{prefix}{key}", value


def _plain(value: object) -> object:
    """Options as a loader of weights alone reads them, without those that have no effect."""
    if isinstance(value, Mapping):
        kept = [(key if isinstance(key, (str, int)) else str(key), item) for key, item in value.items()]
        return {key: _plain(item) for key, item in kept if key not in WITHOUT_EFFECT}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
