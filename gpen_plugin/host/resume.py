"""Resuming a run of BasicSR: which training state it takes, and that it trains to its last iteration."""

import logging
import math
import os
import sys
import zipfile
from collections.abc import Callable, Mapping
from functools import wraps

from gpen_plugin.errors import CheckpointError, OptionError
from gpen_plugin.host.data_cursor import resumed_from, set_resume_iteration
from gpen_plugin.host.distributed import all_gather_object
from gpen_plugin.host.patches import HostPatch
from gpen_plugin.host.registry import trains_ours


def state_to_resume(opt: Mapping) -> str | None:
    """The training state that a run with these options resumes from, if any."""
    if opt.get("auto_resume"):
        states = _states(opt["path"]["training_states"])
        whole = next((path for path in states if not _incomplete(path, opt)), None)
        if states and not whole:
            raise CheckpointError(
                f"--auto_resume: {opt['path']['training_states']}",
                f"of {len(states)} states none is complete: {' and '.join(_incomplete(states[0], opt))} missing or cut",
                "a training state and its networks",
                "Restore the files, or omit --auto_resume to start from scratch: BasicSR then renames the earlier run.",
            )
        return whole
    return opt["path"].get("resume_state")


def _states(folder: str) -> list[str]:
    """The training states in a folder, the newest first."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    numbers = [int(stem) for stem, suffix in map(os.path.splitext, names) if suffix == ".state" and stem.isdigit()]
    return [os.path.join(folder, f"{number}.state") for number in sorted(numbers, reverse=True)]


def _incomplete(state: str, opt: Mapping) -> list[str]:
    """The files of a checkpoint that are missing or truncated; a file of torch.save ends with a zip table."""
    number = os.path.splitext(os.path.basename(state))[0]
    models = os.path.join(os.path.dirname(os.path.dirname(state)), "models")
    labels = [name.removeprefix("network_") for name in _saved_networks(opt)]
    networks = [os.path.join(models, f"net_{label}_{number}.pth") for label in labels]
    return [path for path in (state, *networks) if not zipfile.is_zipfile(path)]


def _saved_networks(opt: Mapping) -> list[str]:
    """The sections of the networks that our models save; a derived model handles its others."""
    return [name for name in ("network_g", "network_d") if opt.get(name)]


def _load_resume_state_on_cpu(original: Callable) -> Callable:
    @wraps(original)
    def load_resume_state(opt: dict) -> dict | None:
        import torch
        from basicsr.utils import check_resume

        set_resume_iteration(epoch=0, images=0, iteration=0)
        if not trains_ours(opt):
            return original(opt)
        path = opt["path"]["resume_state"] = _check_same_on_all_ranks(state_to_resume(opt))
        if opt["auto_resume"] and opt["rank"] == 0:
            _warn_of_incomplete_states(opt, path)
        if not path:
            return None
        if not os.path.isfile(path):
            got = f"{path} is not there"
            raise CheckpointError("path:resume_state", got, "a .state file of a training", "Check the path.")
        try:
            # on the CPU: an optimizer moves its moments itself, and its counters would be read from a GPU at each step
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(
                f"path:resume_state: {path}",
                f"cannot be read ({type(error).__name__})",
                "a whole .state file that a training wrote",
                "Name an earlier one of the same folder; or delete this one, and --auto_resume takes the previous one.",
            ) from error
        _check_total_iter(state["iter"], opt["train"]["total_iter"], path)
        identity = opt["path"].get("pretrain_network_identity")
        check_resume(opt, state["iter"])
        opt["path"]["pretrain_network_identity"] = identity  # never saved: it does not learn
        for name in _saved_networks(opt):
            # check_resume changes params_ema alone; a run that began with a flat file (~) now resumes from ours
            opt["path"][name.replace("network_", "param_key_")] = "params"
            if name not in (opt["path"].get("ignore_resume_networks") or ()):
                _check_network(opt["path"][f"pretrain_{name}"], path)
        # a state of our models has the position of the sampler; BasicSR's own restart the epoch
        position = state.get("sampler", {"epoch": state["epoch"], "images": 0})
        set_resume_iteration(position["epoch"], position["images"] // opt["world_size"], state["iter"])
        return state

    return load_resume_state


def _check_same_on_all_ranks(path: str | None) -> str | None:
    """`path`, if all ranks found it: several machines may not share the folder."""
    paths = set(all_gather_object(path))
    if len(paths) > 1:
        got = "the ranks found " + " and ".join(sorted(map(str, paths)))
        raise CheckpointError("path:resume_state", got, "one state for all", "Put experiments/ on a shared disk.")
    return path


def _warn_of_incomplete_states(opt: Mapping, chosen: str | None) -> None:
    """Called before BasicSR sets up its log: without a handler, a warning goes to the screen."""
    for state in _states(opt["path"]["training_states"]):
        if state == chosen:
            return
        files = " and ".join(_incomplete(state, opt))
        logging.getLogger("basicsr").warning(f"{state} is skipped: {files} missing or cut short.")


def _check_total_iter(done: int, wanted: int, path: str) -> None:
    if done > wanted:
        got = f"got {wanted}, and {path} is of iteration {done}"
        raise OptionError("train:total_iter", got, f"at least {done}", "Raise it.")


def _check_network(network: str, state: str) -> None:
    if not os.path.isfile(network):
        raise CheckpointError(
            f"path:resume_state: {state}",
            f"{network} is not there",
            "the networks that were saved with this state in the folder of this experiment",
            "Keep the name and the folder of the experiment, or move its models there.",
        )


def _count_remaining_epochs(original: Callable) -> Callable:
    @wraps(original)
    def create_train_val_dataloader(opt: Mapping, logger: logging.Logger) -> tuple:
        loader, sampler, val_loaders, last, total_iter = original(opt, logger)
        if not trains_ours(opt):
            return loader, sampler, val_loaders, last, total_iter
        epoch, iteration = resumed_from()
        # BasicSR's loop ends after the epoch of this number; the first one may be nearly over
        last = epoch + math.ceil((total_iter - iteration) / max(1, len(loader)))
        return loader, sampler, val_loaders, last, total_iter

    return create_train_val_dataloader


RESUME_PATCHES = (
    HostPatch(
        "resuming needs a GPU",
        "load_resume_state calls CUDA; --auto_resume searches only below the current directory and otherwise starts "
        "from scratch, renaming the earlier run",
        "1.4.2, master",
        "basicsr.train",
        "load_resume_state",
        _load_resume_state_on_cpu,
    ),
    HostPatch(
        "training ends too early",
        "the number of epochs is counted from the start and with the incomplete batches that the loader drops: a run "
        "resumed with smaller batches or fewer ranks ends before its last iteration, without a message",
        "1.4.2, master",
        "basicsr.train",
        "create_train_val_dataloader",
        _count_remaining_epochs,
    ),
)


def patch_script() -> None:
    """Patch the script too: `python basicsr/train.py` runs a second copy of the module `basicsr.train`."""
    script = sys.modules["__main__"]
    if hasattr(script, "train_pipeline"):
        for patch in RESUME_PATCHES:
            original = getattr(script, patch.attribute, None)
            if original is not None and not hasattr(original, "__gpen_original__"):
                replacement = patch.remedy(original)
                replacement.__gpen_original__ = original
                setattr(script, patch.attribute, replacement)
