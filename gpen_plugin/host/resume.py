"""How a run of the host goes on from a training state: which one, and to its last iteration."""

import logging
import math
import os
import sys
import zipfile
from collections.abc import Callable, Mapping
from functools import wraps

from gpen_plugin.errors import CheckpointError, OptionError
from gpen_plugin.host.data_cursor import resumed_from, set_resume_iteration
from gpen_plugin.host.named_classes import trains_ours
from gpen_plugin.host.patch import HostPatch


def state_to_resume(opt: Mapping) -> str | None:
    """The training state that a run with these options goes on from, if any."""
    if opt.get("auto_resume"):
        states = _states(opt["path"]["training_states"])
        whole = next((path for path in states if not _incomplete(path, opt)), None)
        if states and not whole:
            raise CheckpointError(
                f"--auto_resume: {opt['path']['training_states']}",
                f"of {len(states)} states none is whole: {' and '.join(_incomplete(states[0], opt))} missing or cut",
                "a training state and its networks",
                "Put the files back; or leave --auto_resume out to start anew: the host then renames the earlier run.",
            )
        return whole
    return opt["path"].get("resume_state")


def _states(folder: str) -> list[str]:
    """The training states in a folder, the newest first."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    numbers = [int(stem) for stem, suffix in map(os.path.splitext, names) if suffix == ".state" and stem.isdigit()]
    return [os.path.join(folder, f"{number}.state") for number in sorted(numbers, reverse=True)]


def _incomplete(state: str, opt: Mapping) -> list[str]:
    """Those of a checkpoint's files that are not there or were cut short; a file of torch.save's ends with a table."""
    number = os.path.splitext(os.path.basename(state))[0]
    models = os.path.join(os.path.dirname(os.path.dirname(state)), "models")
    labels = [name.removeprefix("network_") for name in _saved_networks(opt)]
    networks = [os.path.join(models, f"net_{label}_{number}.pth") for label in labels]
    return [path for path in (state, *networks) if not zipfile.is_zipfile(path)]


def _saved_networks(opt: Mapping) -> list[str]:
    """The sections of the networks that our models save; others are the business of a model that is derived of ours."""
    return [name for name in ("network_g", "network_d") if opt.get(name)]


def _load_resume_state_anywhere(original: Callable) -> Callable:
    @wraps(original)
    def load_resume_state(opt: dict) -> dict | None:
        import torch
        from basicsr.utils import check_resume

        set_resume_iteration(epoch=0, images=0, iteration=0)
        if not trains_ours(opt):
            return original(opt)
        path = opt["path"]["resume_state"] = _agreed(state_to_resume(opt))
        if opt["auto_resume"] and opt["rank"] == 0:
            _tell_what_is_passed_over(opt, path)
        if not path:
            return None
        if not os.path.isfile(path):
            got = f"{path} is not there"
            raise CheckpointError("path:resume_state", got, "a .state file of a training", "Check the path.")
        try:
            # on the CPU: an optimiser moves its moments itself, and its counters would be read from a GPU at each step
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(
                f"path:resume_state: {path}",
                f"cannot be read ({type(error).__name__})",
                "a whole .state file that a training wrote",
                "Name an earlier one of the same folder; or delete this one, and --auto_resume takes the one before.",
            ) from error
        _expect_something_to_do(state["iter"], opt["train"]["total_iter"], path)
        check_resume(opt, state["iter"])
        for name in _saved_networks(opt):
            # check_resume changes params_ema alone; a run that began with a flat file (~) now resumes from ours
            opt["path"][name.replace("network_", "param_key_")] = "params"
            if name not in (opt["path"].get("ignore_resume_networks") or ()):
                _expect_network(opt["path"][f"pretrain_{name}"], path)
        # a state of our models knows the place of the sampler; the host's own begin the epoch again
        place = state.get("sampler", {"epoch": state["epoch"], "images": 0})
        set_resume_iteration(place["epoch"], place["images"] // opt["world_size"], state["iter"])
        return state

    return load_resume_state


def _agreed(path: str | None) -> str | None:
    """`path`, if all ranks have found it: on several machines a folder that they do not share would part them."""
    import torch.distributed

    if torch.distributed.is_initialized():
        paths: list[str | None] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(paths, path)
        if len(set(paths)) > 1:
            got = "the ranks found " + " and ".join(sorted(map(str, set(paths))))
            hint = "Put the experiments on a disk that all machines share."
            raise CheckpointError("path:resume_state", got, "one state for all", hint)
    return path


def _tell_what_is_passed_over(opt: Mapping, chosen: str | None) -> None:
    """Called before the host sets its log up: without a handler a warning goes to the screen."""
    for state in _states(opt["path"]["training_states"]):
        if state == chosen:
            return
        files = " and ".join(_incomplete(state, opt))
        logging.getLogger("basicsr").warning(f"{state} is passed over: {files} missing or cut short.")


def _expect_something_to_do(done: int, wanted: int, path: str) -> None:
    if done > wanted:
        got = f"got {wanted}, and {path} is of iteration {done}"
        raise OptionError("train:total_iter", got, "no fewer iterations than were made", "Raise it.")


def _expect_network(network: str, state: str) -> None:
    if not os.path.isfile(network):
        raise CheckpointError(
            f"path:resume_state: {state}",
            f"{network} is not there",
            "the networks that were saved with this state in the folder of this experiment",
            "Keep the experiment's name and its folder, or move its models there.",
        )


def _epochs_that_suffice(original: Callable) -> Callable:
    @wraps(original)
    def create_train_val_dataloader(opt: Mapping, logger: logging.Logger) -> tuple:
        loader, sampler, val_loaders, last, total_iter = original(opt, logger)
        if not trains_ours(opt):
            return loader, sampler, val_loaders, last, total_iter
        epoch, iteration = resumed_from()
        # the host's loop ends after the epoch of this number, so the one that it begins with may be nearly over
        last = epoch + math.ceil((total_iter - iteration) / max(1, len(loader)))
        return loader, sampler, val_loaders, last, total_iter

    return create_train_val_dataloader


RESUME_PATCHES = (
    HostPatch(
        "resuming needs a GPU",
        "load_resume_state calls CUDA; --auto_resume looks only below the current directory and otherwise starts "
        "again, renaming the earlier run",
        "1.4.2, master",
        "basicsr.train",
        "load_resume_state",
        _load_resume_state_anywhere,
    ),
    HostPatch(
        "training ends too early",
        "the number of epochs is reckoned from the start and with the incomplete batches that the loader drops: a run "
        "that is resumed with smaller batches or fewer ranks ends without a word before its last iteration",
        "1.4.2, master",
        "basicsr.train",
        "create_train_val_dataloader",
        _epochs_that_suffice,
    ),
)


def patch_script() -> None:
    """Mend the script too: `python basicsr/train.py` runs a second copy of the module `basicsr.train`."""
    script = sys.modules["__main__"]
    if hasattr(script, "train_pipeline"):
        for mend in RESUME_PATCHES:
            original = getattr(script, mend.attribute, None)
            if original is not None and not hasattr(original, "__gpen_mends__"):
                replacement = mend.remedy(original)
                replacement.__gpen_mends__ = original
                setattr(script, mend.attribute, replacement)
