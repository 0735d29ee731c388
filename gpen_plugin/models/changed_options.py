"""What a resumed training does where its option file was changed since: the file rules, and the log says so.

A training state holds rates, betas and the schedule's settings, and loading it would quietly put them back in place of
the file's, so that the advice "resume with a lower rate" could not be followed.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from basicsr.utils import get_root_logger

OF_A_GROUP = ("initial_lr", "betas", "eps")
MOVING = ("last_epoch", "_step_count", "_last_lr", "base_lrs")  # a schedule's place; all else is its settings

Optimizers = Sequence[torch.optim.Optimizer]
Schedulers = Sequence[torch.optim.lr_scheduler.LRScheduler]


def settings_of(optimizers: Optimizers, schedulers: Schedulers) -> dict:
    """The settings as the option file gives them; to be taken before a state is loaded."""
    return {
        "groups": [[{key: group[key] for key in OF_A_GROUP} for group in one.param_groups] for one in optimizers],
        "schedules": [_without_place(one.state_dict()) for one in schedulers],
    }


def take_from_file(settings: Mapping, optimizers: Optimizers, schedulers: Schedulers) -> None:
    """Put the file's settings in place of the state's, where they differ.

    A changed rate scales the present one, wherever the schedule is. A changed schedule acts from here on.

    Args:
        settings: from `settings_of`, before the state was loaded.
        optimizers: with their state.
        schedulers: one per optimiser, with their state.
    """
    changes: list[str] = []
    for optimizer, scheduler, groups in zip(optimizers, schedulers, settings["groups"], strict=True):
        for index, (group, given) in enumerate(zip(optimizer.param_groups, groups, strict=True)):
            for key, held, wanted in _differences(group, given):
                if key == "initial_lr":
                    group["lr"] *= wanted / held if held else 0.0
                    scheduler.base_lrs[index] = wanted
                group[key] = wanted
                changes.append(f"{key} of {group['name']}: {wanted} (was {held})")
    for scheduler, given in zip(schedulers, settings["schedules"], strict=True):
        for key, held, wanted in _differences(scheduler.state_dict(), given):
            setattr(scheduler, key, wanted)
            changes.append(f"scheduler:{key}: {wanted} (was {held})")
    if changes:
        get_root_logger().warning("The option file was changed since the state was saved: " + "; ".join(changes))


def _without_place(state: Mapping) -> dict:
    return {key: value for key, value in state.items() if key not in MOVING and not key.startswith("_")}


def _differences(held: Mapping, wanted: Mapping) -> Iterator[tuple]:
    for key, value in wanted.items():
        same = tuple(held[key]) == tuple(value) if isinstance(value, (list, tuple)) else held[key] == value
        if not same:
            yield key, held[key], value
