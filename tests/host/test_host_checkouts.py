"""The host's own scripts, unmodified, in processes of their own: they must find GPEN and run it."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session", params=["1.4.2", "master"])
def checkout(request, tmp_path_factory) -> Path:
    """A checkout of the host, made of the installed one. Master differs in what it imports from torchvision."""
    folder = tmp_path_factory.mktemp(f"BasicSR-{request.param}")
    installed = Path(find_spec("basicsr").submodule_search_locations[0])
    shutil.copytree(installed, folder / "basicsr", ignore=shutil.ignore_patterns("__pycache__"))
    if request.param == "master":
        degradations = folder / "basicsr" / "data" / "degradations.py"
        degradations.write_text(degradations.read_text().replace("functional_tensor", "functional"))
    return folder


def run(*command: str, cwd: Path, checkout: Path | None = None) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if checkout:
        environment["PYTHONPATH"] = str(checkout)
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, text=True, capture_output=True, timeout=300, check=False
    )


def test_train_and_test_scripts_of_a_checkout(checkout, options, test_options, write_options):
    before = {path: path.read_bytes() for path in checkout.rglob("*.py")}
    trained = run("basicsr/train.py", "-opt", str(write_options(options)), cwd=checkout, checkout=checkout)
    assert trained.returncode == 0, trained.stderr
    weights = checkout / "experiments" / "small" / "models" / "net_g_latest.pth"
    assert torch.load(weights, weights_only=True)["params_ema"]

    test_options["path"]["pretrain_network_g"] = str(weights)
    tested = run("basicsr/test.py", "-opt", str(write_options(test_options)), cwd=checkout, checkout=checkout)
    assert tested.returncode == 0, tested.stderr
    results = checkout / "results" / "small_test"
    assert len(list((results / "visualization" / "test").glob("*.png"))) == 2
    assert "# psnr:" in next(results.glob("test_*.log")).read_text()
    assert before == {path: path.read_bytes() for path in checkout.rglob("*.py")}


def test_a_mistake_is_one_message_and_the_earlier_experiment_stays(options, write_options, tmp_path):
    (tmp_path / "experiments" / "small").mkdir(parents=True)
    options["network_g"]["out_size"] = 500
    result = run("-m", "gpen_plugin.train", "-opt", str(write_options(options)), cwd=tmp_path)
    assert result.returncode == 1
    assert "network_g:out_size: got 500" in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in (tmp_path / "experiments").iterdir()] == ["small"]


def test_modules_write_below_the_current_folder(options, test_options, write_options, tmp_path):
    """`python -m basicsr.train` of an installed 1.4.2 would write into site-packages; it finds GPEN and does not."""
    options["train"]["total_iter"] = 1
    result = run("-m", "basicsr.train", "-opt", str(write_options(options)), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    weights = tmp_path / "experiments" / "small" / "models" / "net_g_latest.pth"
    assert weights.is_file()
    assert (tmp_path / "tb_logger" / "small").is_dir()

    test_options["path"]["pretrain_network_g"] = str(weights)
    result = run("-m", "gpen_plugin.test", "-opt", str(write_options(test_options)), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "results" / "small_test" / "visualization" / "test").glob("*.png"))) == 2


def test_two_processes_under_torchrun(options, write_options, tmp_path):
    """Distributed over gloo on the CPU, loader workers spawned, from any folder."""
    options["train"]["total_iter"] = 3
    options["datasets"]["train"] |= {"batch_size_per_gpu": 1, "num_worker_per_gpu": 1}
    launch = ("-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29511", "-m", "gpen_plugin.train")
    result = run(*launch, "-opt", str(write_options(options)), "--launcher", "pytorch", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "experiments" / "small" / "models" / "net_g_3.pth").is_file()
