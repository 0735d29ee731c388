"""What several tests share: faces that the tests draw themselves, and option files small enough for a test."""

import gc
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

import gpen_plugin  # noqa: F401 - before BasicSR, which 1.4.2 cannot be imported without


def pytest_configure(config):
    gc.disable()  # while collecting, which only adds objects that stay
    # Kernels that torch.compile built on another processor, or before a change, may be wrong here. PyTorch makes the
    # folder when it is imported.
    folder = os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(prefix="gpen_plugin_kernels_")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    # What gpen-restore --benchmark has measured on this machine decides nothing here. Matplotlib keeps its fonts.
    os.environ.setdefault("MPLCONFIGDIR", os.path.expanduser("~/.cache/matplotlib"))
    os.environ["XDG_CACHE_HOME"] = folder


# Files of the longest time come first, or one process would still be busy with them when all others have ended.
SLOW = ("test_distributed", "test_crash_safety", "test_exporter", "test_precision", "test_web_browser")
SLOW += ("test_preflight", "test_embedding", "test_gan_prior_model", "test_video_writer", "test_gpen_model")
SLOW += ("test_page_browser", "test_restore_outputs", "test_inference", "test_dfdnet")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: SLOW.index(item.path.stem) if item.path.stem in SLOW else len(SLOW))


def pytest_collection_finish(session):
    gc.freeze()
    gc.enable()


# Files on one process because of what takes seconds to start: the browser, and the Python that forks fresh ones.
TOGETHER = {
    name: group
    for group, names in {
        "clean_python": (
            *("test_distributed", "test_doctor", "test_restore_ranks", "test_start_up", "test_without_host"),
            *("test_foreign_runs", "test_host_checkouts"),
        ),
        "browser": ("test_web_browser", "test_report_browser", "test_page_browser", "test_web", "test_web_serving"),
    }.items()
    for name in names
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return TOGETHER.get(Path(file).stem, file)

    return Scheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def one_thread_and_own_uploads(tmp_path_factory):
    import torch  # here, because the process that hands out the files needs none

    # small networks: threads cost more than they bring, and results stay the same
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    for name in ("cuda", "xpu", "mtia"):  # for each that is not there, each torch.manual_seed formats its whole stack
        device = getattr(torch, name, None)
        if hasattr(device, "manual_seed_all") and not device.is_available():
            device.manual_seed_all = lambda seed: None
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("gradio"))  # or uploads stay behind


@pytest.fixture(scope="session")
def clean_python():
    """Starts fresh Pythons at once."""
    from helpers.clean_python import CleanPython

    with CleanPython() as python:
        yield python


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """A headless browser for the tests of all pages in one process; its logs hold everything."""
    webdriver = pytest.importorskip("selenium.webdriver")
    program, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not (program and driver):
        pytest.skip("needs Chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for name in ("headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking"):
        options.add_argument(f"--{name}")
    profile = tmp_path_factory.mktemp("browser")
    for name in ("disable-component-update", "disable-sync", "hide-scrollbars", f"user-data-dir={profile}"):
        options.add_argument(f"--{name}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def browser(request, chromium):
    """The browser with a window of the size that the module's `WINDOW` names and empty logs."""
    chromium.set_window_size(*request.module.WINDOW)
    for log in ("browser", "performance"):
        chromium.get_log(log)
    yield chromium
    chromium.get("about:blank")  # a page that has lost its server would go on looking for it


@pytest.fixture(scope="session")
def faces(tmp_path_factory) -> Path:
    """A folder with eight 32 px images of ellipses on gradients: a face as far as a test is concerned."""
    folder = tmp_path_factory.mktemp("faces")
    for i in range(8):
        rng = np.random.default_rng(i)
        ramp = np.linspace(40, 200, 32, dtype=np.uint8)
        image = np.stack([np.tile(ramp, (32, 1))] * 3, axis=2).copy()
        cv2.ellipse(image, (16, 16), (9, 12), 0, 0, 360, tuple(map(int, rng.integers(90, 240, 3))), -1)
        for x in (12, 20):
            cv2.circle(image, (x, 13), 2, tuple(map(int, rng.integers(0, 80, 3))), -1)
        cv2.imwrite(str(folder / f"face_{i}.png"), image)
    return folder


@pytest.fixture(scope="session")
def tried_metrics() -> dict[tuple, list]:
    """Problems that the check before a run found with a metric, by metric, size and key path."""
    return {}


@pytest.fixture
def each_metric_tried_once(tried_metrics, monkeypatch):
    """The option files have their metrics in common, and NIQE and SSIM of 1024 px take seconds: of 256 px they do."""
    from gpen_plugin import preflight

    try_metric = preflight.try_metric

    def once(function, metric, size, where):
        size = min(size, 256)
        key = repr(metric), size, where
        if key not in tried_metrics:
            tried_metrics[key] = list(try_metric(function, metric, size, where))
        return tried_metrics[key]

    monkeypatch.setattr(preflight, "try_metric", once)


@pytest.fixture
def options(faces) -> dict:
    """Options of a training of six iterations at 32 px on the CPU."""
    data = {
        "type": "GPENDegradationDataset",
        "dataroot_gt": str(faces),
        "io_backend": {"type": "disk"},
        "out_size": 32,
        "degradation": {"kernel_size": [3, 5], "downsample_range": [1, 4]},
    }
    return {
        "name": "small",
        "model_type": "GPENModel",
        "num_gpu": 0,
        "manual_seed": 3,
        "datasets": {
            "train": {**data, "name": "train", "num_worker_per_gpu": 0, "batch_size_per_gpu": 2, "use_hflip": True},
            "val": {**data, "name": "val", "num_images": 2},
        },
        "network_g": {"type": "GPEN", "out_size": 32, "num_style_feat": 16, "num_mlp": 2, "narrow": 0.03125},
        "network_d": {"type": "GPENDiscriminator", "out_size": 32, "narrow": 0.03125},
        "path": {"pretrain_network_g": None, "resume_state": None},
        "train": {
            "total_iter": 6,
            "warmup_iter": 3,
            "ema_decay": 0.9,
            "optim": {"type": "Adam", "lr": 0.002, "lr_ratio": [100, 10, 1], "betas": [0, 0.99]},
            "scheduler": {"type": "MultiStepLR", "milestones": [5], "gamma": 0.5},
            "gan_opt": {"type": "GANLoss", "gan_type": "wgan_softplus", "loss_weight": 1.0},
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
            "feature_matching_opt": {"type": "DiscriminatorFeatureMatchingLoss", "loss_weight": 0.02},
            "r1_reg_weight": 10,
            "net_d_reg_every": 2,
        },
        "val": {
            "val_freq": 3,
            "save_img": False,
            "grid_images": 2,
            "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}},
        },
        "logger": {"print_freq": 1, "save_checkpoint_freq": 3, "use_tb_logger": True},
    }


@pytest.fixture
def prior_options(options, faces) -> dict:
    """Options of a training of a prior that `options` can embed, as long and of the same size."""
    size = options["network_g"]["out_size"]
    data = {"type": "GPENFaceDataset", "dataroot_gt": str(faces), "io_backend": {"type": "disk"}, "out_size": size}
    loader = {"num_worker_per_gpu": 0, "batch_size_per_gpu": 2, "use_hflip": True}
    adam = {"type": "Adam", "lr": 0.002, "betas": [0, 0.99]}
    return {
        **options,
        "name": "small_prior",
        "model_type": "GPENPriorModel",
        "datasets": {"train": {**data, **loader, "name": "train"}, "val": {**data, "name": "val", "num_images": 4}},
        "network_g": {**options["network_g"], "type": "GPENPrior"},
        "path": {"resume_state": None},
        "train": {
            "total_iter": options["train"]["total_iter"],
            "optim_g": adam,
            "optim_d": dict(adam),
            "scheduler": dict(options["train"]["scheduler"]),
            "gan_opt": options["train"]["gan_opt"],
            "net_d_reg_every": 2,
            "net_g_reg_every": 2,
            "ema_half_life": 10,
            "augment_opt": {"ramp_images": 100, "every": 2},
        },
        "val": {
            "val_freq": options["val"]["val_freq"],
            "save_img": False,
            "grid_images": 4,
            "metrics": {"swd": {"type": "calculate_swd", "better": "lower"}},
        },
    }


@pytest.fixture
def rival_options(options) -> dict:
    """A Pix2PixHD small enough for a test."""
    adam = {"type": "Adam", "lr": 0.002, "betas": [0.5, 0.999]}
    train = {key: options["train"][key] for key in ("total_iter", "warmup_iter", "ema_decay", "scheduler")}
    return options | {
        "model_type": "RestorationGANModel",
        "network_g": {"type": "Pix2PixHD", "num_feat": 4, "num_down": 2, "num_block": 1},
        "network_d": {"type": "Pix2PixHDDiscriminator", "num_feat": 4},
        "path": {"pretrain_network_g": None, "resume_state": None},
        "train": train
        | {
            "optim_g": adam,
            "optim_d": dict(adam),
            "conditional_d": True,
            "gan_opt": {"type": "GANLoss", "gan_type": "lsgan", "loss_weight": 1.0},
            "feature_matching_opt": {"type": "DiscriminatorFeatureMatchingLoss", "loss_weight": 5.0, "norm": "l1"},
        },
    }


@pytest.fixture
def random_vgg(monkeypatch):
    """Lets losses be built with random weights of VGG-19."""

    from gpen_plugin.host.patches import vgg_offline

    @contextmanager
    def random(*_):
        with vgg_offline():
            yield

    for module in ("models.adversarial_model", "models.trials"):
        monkeypatch.setattr(f"gpen_plugin.{module}.vgg19_of", random)


@pytest.fixture
def random_fan(monkeypatch):
    """Lets `HeatmapLoss` be built with random weights."""
    from gpen_plugin.nets.fan import FAN

    monkeypatch.setattr("gpen_plugin.losses.fan.load_fan", lambda *_: FAN(1, 16).eval().requires_grad_(False))


@pytest.fixture
def random_arcface(monkeypatch):
    """Lets `IdentityLoss` be built with a random network."""
    import torch

    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 8, stride=8), torch.nn.Flatten()).requires_grad_(False)
    monkeypatch.setattr("gpen_plugin.losses.arcface.load_recognizer", lambda *_: network)


@pytest.fixture
def test_options(options) -> dict:
    """Options of a test of the network that `options` trains."""
    return {
        **{key: options[key] for key in ("model_type", "num_gpu", "manual_seed", "network_g")},
        "name": "small_test",
        "datasets": {"test_1": {**options["datasets"]["val"], "name": "test"}},
        "path": {"pretrain_network_g": None, "param_key_g": "params_ema"},
        "val": {"save_img": True, "suffix": None, "metrics": options["val"]["metrics"]},
    }


@pytest.fixture
def write_options(tmp_path):
    """Writes options to a YAML file and returns its path."""

    def write(options: dict, name: str = "options.yml") -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(options, sort_keys=False))
        return path

    return write


@pytest.fixture
def train(tmp_path, monkeypatch, write_options):
    """Runs the host's `train_pipeline` in this process, as `basicsr/train.py` does; returns the experiment's folder."""
    import basicsr.train
    from basicsr.utils import logger as host_logger

    def run(options: dict, root: Path = tmp_path, *arguments: str) -> Path:
        import logging

        host_logger.initialized_logger.clear()  # the host sets up its log file once in a process
        logging.getLogger("basicsr").handlers.clear()
        monkeypatch.setattr(sys, "argv", ["train.py", "-opt", str(write_options(options)), *arguments])
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        root.mkdir(exist_ok=True)
        basicsr.train.train_pipeline(str(root))
        return root / "experiments" / options["name"]

    return run
