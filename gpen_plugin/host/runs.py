"""How a run of the host begins and spreads over processes: options, folders, devices."""

import itertools
import os
import random
import sys
import sysconfig
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import wraps

import yaml

from gpen_plugin.errors import GPENError, OptionError, plain_message
from gpen_plugin.host.data import knows_places
from gpen_plugin.host.mend import Mend
from gpen_plugin.host.registration import registered
from gpen_plugin.host.resumption import mend_script

_checks: list[Callable[[Mapping], None]] = []


def before_run(check: Callable[[Mapping], None]) -> None:
    """Have `check` called with the parsed options of a run, before the host creates, renames or writes anything."""
    if check not in _checks:
        _checks.append(check)


READING_ERRORS = (FileNotFoundError, IsADirectoryError, yaml.YAMLError, KeyError, TypeError, AttributeError)
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


def _checked_parse_options(original: Callable) -> Callable:
    from basicsr.utils import set_random_seed

    @wraps(original)
    def parse_options(root_path: str, is_train: bool = True) -> tuple[dict, object]:
        _speak_plainly()
        try:
            opt, arguments = original(_outside_site_packages(root_path), is_train=is_train)
        except (OSError, yaml.YAMLError, LookupError, TypeError, AttributeError, ValueError) as error:
            if "--force_yml" in sys.argv:
                _check_forced()
            if not isinstance(error, READING_ERRORS):
                raise
            if isinstance(error, KeyError) and error.args[0] not in READ_BY_THE_PARSER:
                raise  # of the environment, say: --launcher pytorch without torchrun
            raise _told(error) from error
        opt = _Options(opt)
        opt["manual_seed"] = _of_rank_0(_seed(opt["manual_seed"]))  # if the file has none, the host draws one per rank
        set_random_seed(opt["manual_seed"] + opt["rank"])  # the host does so before it reads --force_yml manual_seed=N
        _restore_forced_none(opt)
        _fill_in_paths(opt)
        train_set = opt["datasets"].get("train") or {}
        if opt["num_gpu"] == 0 and train_set.get("prefetch_mode") == "cuda":
            train_set["prefetch_mode"] = None  # a CUDA stream cannot exist here; the same file serves a GPU
        if knows_places(registered("dataset").get(train_set.get("type"))):
            train_set.setdefault("seed", opt["manual_seed"])  # else another manual_seed would change nothing there
        for check in _checks:
            check(opt)
        mend_script()
        return opt, arguments

    return parse_options


def _seed(given: object) -> int:
    """The seed; one that is drawn where ~ was forced, which comes after the host's own drawing."""
    if given is None:
        return random.SystemRandom().randint(1, 10000)  # the usual generator has just been seeded
    if not isinstance(given, int) or given < 0:
        raise OptionError("manual_seed", f"got {given!r}", "a whole number from 0", "Or write ~ to have one drawn.")
    return given


def _of_rank_0(value: object) -> object:
    import torch.distributed

    values = [value]
    if torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(values)
    return values[0]


def _restore_forced_none(opt: Mapping) -> None:
    """``--force_yml network_g:noise_mode=none`` comes as ~: the parser takes it for nothing, YAML for a text."""
    if _generator(opt).get("noise_mode", "") is None:
        opt["network_g"]["noise_mode"] = "none"


def _generator(opt: Mapping) -> Mapping:
    return opt["network_g"] if isinstance(opt.get("network_g"), Mapping) else {}


def _fill_in_paths(opt: Mapping) -> None:
    """Names in braces of a weight file's path stand for keys of the generator: ``prior_{out_size}_{noise_mode}``."""
    for key, path in opt["path"].items():
        if isinstance(path, str) and key.startswith("pretrain_"):
            try:
                opt["path"][key] = os.path.expanduser(path.format(**_generator(opt)))
            except (KeyError, IndexError, ValueError, AttributeError) as error:
                expected = "in braces only keys of network_g that the option file gives"
                raise OptionError(f"path:{key}", f"got {path}", expected, "Mend the path.") from error


def _check_forced() -> None:
    """Raise an `OptionError` for an entry of ``--force_yml`` that the host cannot put into the option file."""
    words = sys.argv[sys.argv.index("--force_yml") + 1 :]
    file = sys.argv[sys.argv.index("-opt") + 1] if "-opt" in sys.argv[:-1] else os.devnull
    with open(file) as stream:
        options = yaml.safe_load(stream)
    for entry in itertools.takewhile(lambda word: not word.startswith("-"), words):
        where = f"--force_yml {entry}"
        if entry.count("=") != 1:
            raise OptionError(where, f"{entry.count('=')} signs =", "key=value or section:key=value", "Write one.")
        section, path = options, []
        for key in entry.partition("=")[0].split(":")[:-1]:
            path.append(key)
            section = section.get(key) if isinstance(section, Mapping) else None
            if not isinstance(section, Mapping):
                came = f"the option file has no section {':'.join(path)}"
                raise OptionError(where, came, "a key of a section that is there", "Write it into the option file.")


def _told(error: Exception) -> OptionError:
    """What the host's parser stumbled over, in words."""
    if isinstance(error, KeyError):
        return OptionError(str(error).strip("'"), "missing", "this key in every option file", "Add it.")
    if isinstance(error, OSError):  # no such file, or a folder
        return OptionError("-opt", str(error), "an option file", "Mend the path.")
    came = " ".join(str(error).split())  # YAML's messages have lines
    if isinstance(error, yaml.YAMLError):
        return OptionError("-opt", f"is no YAML: {came}", "an option file", "Mend that line.")
    return OptionError(
        "-opt", came, "sections with keys, as in options/gpen_finetune.yml", "Look for an empty section."
    )


def _speak_plainly() -> None:
    """Print our own errors as one message instead of a traceback; ``--debug`` keeps the traceback."""
    if "--debug" in sys.argv or hasattr(sys.excepthook, "__gpen_mends__"):
        return
    original = sys.excepthook

    def excepthook(kind: type, error: BaseException, traceback: object) -> None:
        if isinstance(error, GPENError):
            print(f"gpen_plugin: error: {plain_message(error)}", file=sys.stderr, flush=True)
        else:
            original(kind, error, traceback)

    excepthook.__gpen_mends__ = original
    sys.excepthook = excepthook


def _as_yaml_reads_it(original: Callable) -> Callable:
    @wraps(original)
    def _postprocess_yml_value(value: str) -> object:
        read = original(value)
        if isinstance(read, str):
            read = yaml.safe_load(read)
        with suppress(ValueError, TypeError):
            return float(read) if isinstance(read, str) else read  # 1e-4, which YAML takes for a text
        return read

    return _postprocess_yml_value


def _folders_without_weights(original: Callable) -> Callable:
    @wraps(original)
    def make_exp_dirs(opt: Mapping) -> None:
        folders = {key: path for key, path in opt["path"].items() if path is not None and "pretrain" not in key}
        original({**opt, "path": folders})

    return make_exp_dirs


def _init_dist_with_gloo(original: Callable) -> Callable:
    @wraps(original)
    def _init_dist_pytorch(backend: str, **kwargs: object) -> None:
        import torch.distributed

        torch.distributed.init_process_group(backend="gloo", **kwargs)

    return _init_dist_pytorch


def _model_to_device_without_ids(original: Callable) -> Callable:
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


RUN_MENDS = (
    Mend(
        "option files are not checked",
        "a misspelt key is ignored or ends in a KeyError, after the earlier experiment was renamed; 1.4.2 started as "
        "`python -m basicsr.train` writes experiments into site-packages; `prefetch_mode: cuda` needs a GPU; "
        "--force_yml manual_seed=N does not reach the networks' first weights",
        "1.4.2, master",
        "basicsr.utils.options",
        "parse_options",
        _checked_parse_options,
    ),
    Mend(
        "--force_yml reads few values",
        "negative numbers, 1e-4 and mappings stay texts",
        "1.4.2, master",
        "basicsr.utils.options",
        "_postprocess_yml_value",
        _as_yaml_reads_it,
    ),
    Mend(
        "every path is made a folder",
        "make_exp_dirs makes a folder of each key under path: whose name it does not know, so also of pretrain_prior, "
        "and fails at one that is ~",
        "1.4.2, master",
        "basicsr.utils.misc",
        "make_exp_dirs",
        _folders_without_weights,
    ),
    Mend(
        "distributed training needs a GPU",
        "--launcher pytorch divides by the number of GPUs and knows nccl only",
        "1.4.2, master",
        "basicsr.utils.dist_util",
        "_init_dist_pytorch",
        _init_dist_with_gloo,
        _no_cuda,
    ),
    Mend(
        "DistributedDataParallel needs a GPU",
        "device_ids is the current CUDA device",
        "1.4.2, master",
        "basicsr.models.base_model",
        "BaseModel.model_to_device",
        _model_to_device_without_ids,
        _no_cuda,
    ),
)
