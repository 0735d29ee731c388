"""The start of a run of BasicSR: reading and checking options, folders, devices, processes, the lock of its folder.

A run that names no class of this package changes only where BasicSR would otherwise raise an error.
"""

import logging
import os
import random
import socket
import sys
import sysconfig
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from types import SimpleNamespace

import yaml

from gpen_plugin.errors import GPENError, OptionError, plain_message
from gpen_plugin.host.data_cursor import supports_resume_index
from gpen_plugin.host.distributed import broadcast_object
from gpen_plugin.host.option_text import is_seed, read_command_line, seed_error
from gpen_plugin.host.patches import HostPatch
from gpen_plugin.host.registry import is_ours, names_ours, resolve, trains_ours
from gpen_plugin.host.resume import patch_script

try:
    import fcntl
except ImportError:  # not on Windows, where nothing is locked
    fcntl = None

_checks: list[Callable[[Mapping], None]] = []
_claims = True


def before_run(check: Callable[[Mapping], None]) -> None:
    """Call `check` with the parsed options of every run, before BasicSR creates, renames or writes anything."""
    if check not in _checks:
        _checks.append(check)


# raised by BasicSR's parser where a section is empty or a key missing
READING_ERRORS = (KeyError, TypeError, AttributeError)
READ_BY_THE_PARSER = ("name", "num_gpu", "datasets", "path", "val", "logger")


class _Options(OrderedDict):
    """Options whose experiment folders never lie in site-packages.

    `train_pipeline` writes `root_path` into the options itself, after they were parsed.
    """

    def __setitem__(self, key: str, value: object) -> None:
        super().__setitem__(key, _outside_site_packages(value) if key == "root_path" else value)


def _outside_site_packages(root: str) -> str:
    installed = {os.path.realpath(sysconfig.get_path(scheme)) for scheme in ("purelib", "platlib")}
    return os.getcwd() if os.path.realpath(root) in installed else root


def _check_options(original: Callable) -> Callable:
    from basicsr.utils import options as host_options
    from basicsr.utils import set_random_seed

    @wraps(original)
    def parse_options(root_path: str, is_train: bool = True) -> tuple[dict, object]:
        try:
            text = read_command_line()
            if text is not None:
                text.import_modules()
        except OptionError:
            _print_errors_without_traceback()
            raise
        if text is None or not names_ours(text.outline()):
            return original(root_path, is_train=is_train)
        _print_errors_without_traceback()
        text.check()
        forced_values, paths = host_options._postprocess_yml_value, host_options.osp
        host_options._postprocess_yml_value = _read_as_yaml(forced_values, text.forced)
        host_options.osp = SimpleNamespace(**{**vars(paths), "expanduser": _expand_user})
        try:
            opt, arguments = original(_outside_site_packages(root_path), is_train=is_train)
        except (*READING_ERRORS, ValueError, LookupError, yaml.YAMLError) as error:
            text.check_forced()
            if not isinstance(error, READING_ERRORS):
                raise
            if isinstance(error, KeyError) and error.args[0] not in READ_BY_THE_PARSER:
                raise  # of the environment, say: --launcher pytorch without torchrun
            raise _explain(error) from error
        finally:
            host_options._postprocess_yml_value, host_options.osp = forced_values, paths
        opt = _Options(opt)
        opt["manual_seed"] = broadcast_object(
            _checked_seed(opt["manual_seed"])
        )  # if the file has none, the host draws one per rank
        set_random_seed(opt["manual_seed"] + opt["rank"])  # BasicSR does so before it reads --force_yml manual_seed=N
        _restore_forced_none(opt)
        if trains_ours(opt):
            _fill_in_paths(opt)
        train_set = opt["datasets"].get("train") or {}
        if opt["num_gpu"] == 0 and train_set.get("prefetch_mode") == "cuda":
            train_set["prefetch_mode"] = None  # a CUDA stream cannot exist here; the same file serves a GPU
        for data in opt["datasets"].values():
            if data["phase"] != "train" or data.get("num_worker_per_gpu") == 0:
                data.pop("persistent_workers", None)  # PyTorch refuses it without workers, which validation never has
        if supports_resume_index(resolve("dataset", train_set.get("type"))):
            train_set.setdefault("seed", opt["manual_seed"])  # else another manual_seed would change nothing there
        for check in _checks:
            check(opt)
        patch_script()
        return opt, arguments

    return parse_options


def _expand_user(root: object) -> object:
    """``~`` in a path, or in the paths of a list of roots, which BasicSR does not know."""
    if isinstance(root, list):
        return [_expand_user(entry) for entry in root]
    if isinstance(root, Mapping):
        return {**root, "path": _expand_user(root["path"])} if "path" in root else root
    return os.path.expanduser(root) if isinstance(root, str) else root


def _checked_seed(given: object) -> int:
    """The seed; a random one where ~ was forced, because BasicSR draws its own before it reads --force_yml."""
    if given is None:
        return random.SystemRandom().randint(1, 10000)  # the usual generator has just been seeded
    if not is_seed(given):
        raise seed_error(repr(given))
    return given


def _restore_forced_none(opt: Mapping) -> None:
    """``--force_yml network_g:noise_mode=none``: BasicSR's parser reads none as ~, YAML as a text."""
    if is_ours(resolve("arch", _generator(opt).get("type"))) and _generator(opt).get("noise_mode", "") is None:
        opt["network_g"]["noise_mode"] = "none"


def _generator(opt: Mapping) -> Mapping:
    return opt["network_g"] if isinstance(opt.get("network_g"), Mapping) else {}


def _fill_in_paths(opt: Mapping) -> None:
    """Names in braces of a weight file's path stand for keys of the generator: ``prior_{out_size}_{noise_mode}``."""
    for key, path in opt["path"].items():
        if isinstance(path, str) and key.startswith(("pretrain_network", "pretrain_prior")):
            try:
                opt["path"][key] = os.path.expanduser(path.format(**_generator(opt)))
            except (KeyError, IndexError, ValueError, AttributeError) as error:
                expected = "in braces only keys of network_g that the option file gives"
                raise OptionError(f"path:{key}", f"got {path}", expected, "Check the path.") from error


def _explain(error: Exception) -> OptionError:
    """Our error for an exception of BasicSR's parser."""
    if isinstance(error, KeyError):
        return OptionError(str(error).strip("'"), "missing", "this key in every option file", "Add it.")
    got, expected = " ".join(str(error).split()), "sections with keys, as in options/gpen_finetune.yml"
    return OptionError("-opt", got, expected, "Look for an empty section.")


def _print_errors_without_traceback() -> None:
    """Print our own errors as one message instead of a traceback; ``--debug`` keeps the traceback."""
    if "--debug" in sys.argv or hasattr(sys.excepthook, "__gpen_original__"):
        return
    original = sys.excepthook

    def excepthook(kind: type, error: BaseException, traceback: object) -> None:
        if isinstance(error, GPENError):
            print(f"gpen_plugin: error: {plain_message(error)}", file=sys.stderr, flush=True)
        else:
            original(kind, error, traceback)

    excepthook.__gpen_original__ = original
    sys.excepthook = excepthook


def _read_as_yaml(original: Callable[[str], object], entries: Sequence[str]) -> Callable[[str], object]:
    """Read values of ``--force_yml`` as in an option file. BasicSR calls this for one entry after the other."""
    keys = iter([entry.partition("=")[0].strip() for entry in entries])

    def _postprocess_yml_value(value: str) -> object:
        if next(keys, None) == "name":
            return value  # always a text, even 512
        try:
            read = original(value)
        except (SyntaxError, NameError):  # it evaluates lists as Python
            read = value
        if isinstance(read, str):
            read = yaml.safe_load(read)
        with suppress(ValueError, TypeError):
            return float(read) if isinstance(read, str) else read  # 1e-4, which YAML takes for a text
        return read

    return _postprocess_yml_value


def _make_no_folder_of_files(original: Callable) -> Callable:
    @wraps(original)
    def make_exp_dirs(opt: Mapping) -> None:
        folders = {key: path for key, path in opt["path"].items() if path is not None}
        if trains_ours(opt):
            folders.pop("pretrain_prior", None)  # a file
        original({**opt, "path": folders})

    return make_exp_dirs


def _init_dist_with_gloo(original: Callable) -> Callable:
    @wraps(original)
    def _init_dist_pytorch(backend: str, **kwargs: object) -> None:
        import torch.distributed

        torch.distributed.init_process_group(backend="gloo", **kwargs)

    return _init_dist_pytorch


def _wrap_without_device_ids(original: Callable) -> Callable:
    @wraps(original)
    def model_to_device(self: object, net: object) -> object:
        from torch.nn.parallel import DistributedDataParallel

        if self.device.type == "cuda" or not self.opt["dist"]:
            return original(self, net)
        unused = self.opt.get("find_unused_parameters", False)
        return DistributedDataParallel(net.to(self.device), find_unused_parameters=unused)

    return model_to_device


def _no_cuda() -> bool:
    import torch

    return not torch.cuda.is_available()


RUN_PATCHES = (
    HostPatch(
        "option files are not checked",
        "a misspelt key is ignored or raises a KeyError, after the earlier experiment was renamed; 1.4.2 started as "
        "`python -m basicsr.train` writes experiments into site-packages; `prefetch_mode: cuda` needs a GPU; "
        "--force_yml manual_seed=N does not reach the networks' first weights, and negative numbers, 1e-4 and mappings "
        "stay texts in it",
        "1.4.2, master",
        "basicsr.utils.options",
        "parse_options",
        _check_options,
    ),
    HostPatch(
        "every path is made a folder",
        "make_exp_dirs makes a folder of each unknown key under path:, as pretrain_prior, and fails where one is ~",
        "1.4.2, master",
        "basicsr.utils.misc",
        "make_exp_dirs",
        _make_no_folder_of_files,
    ),
    HostPatch(
        "distributed training needs a GPU",
        "--launcher pytorch divides by the number of GPUs and supports nccl only",
        "1.4.2, master",
        "basicsr.utils.dist_util",
        "_init_dist_pytorch",
        _init_dist_with_gloo,
        _no_cuda,
    ),
    HostPatch(
        "DistributedDataParallel needs a GPU",
        "device_ids is the current CUDA device",
        "1.4.2, master",
        "basicsr.models.base_model",
        "BaseModel.model_to_device",
        _wrap_without_device_ids,
        _no_cuda,
    ),
)


@contextmanager
def no_claims() -> Iterator[None]:
    """Inside, option files are only checked: no folder is reserved or made."""
    global _claims
    _claims = False
    try:
        yield
    finally:
        _claims = True


def claim_run(opt: Mapping) -> None:
    """Reserve the folder of a run while `opt` exists; every rank has to call this, and rank 0 reserves it.

    The lock is on ``.NAME.lock`` beside the folder, because the folder may be renamed. It is a POSIX lock: it ends with
    the process, loader workers do not inherit it, and NFS supports it.

    Args:
        opt: the parsed options of a training or a test.
    Raises:
        OptionError: another process runs in this folder; the message names it.
    """
    if not _claims:
        return
    folder = opt["path"]["experiments_root" if opt["is_train"] else "results_root"]
    holder = broadcast_object(_lock(opt, folder) if opt["rank"] == 0 else None)
    if holder is not None:
        got = f"got {opt['name']!r}, and {folder} is in use by {holder}"
        hint = "Wait for that run or stop it, or change the name."
        raise OptionError("name", got, "a name that no other running training or test has", hint)


def _lock(opt: Mapping, folder: str) -> str | None:
    """Lock, and return None; where another process holds the lock, return its description."""
    if fcntl is None:
        return None
    path = os.path.join(os.path.dirname(folder), f".{os.path.basename(folder)}.lock")
    try:
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        return _warn(path, error)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX allows either
        holder = os.read(file, 1000).decode(errors="replace").strip()
        os.close(file)
        return holder or "another process"
    except OSError as error:  # a file system without locks
        os.close(file)
        return _warn(path, error)
    os.ftruncate(file, 0)
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    os.write(file, f"process {os.getpid()} on {socket.gethostname()} since {started}\n".encode())
    weakref.finalize(opt, os.close, file)  # when BasicSR's pipeline returned and the process continues
    return None


def _warn(path: str, error: OSError) -> None:
    reason = f"{path} cannot be locked ({error.strerror})"
    logging.getLogger("basicsr").warning(f"{reason}: a second run of this name would not be noticed.")
