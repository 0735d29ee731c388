"""The host's own scripts, unmodified, in processes of their own: they must find GPEN and run it."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import torch


def make_checkout(folder: Path, master: bool) -> Path:
    """A checkout of the host, made of the installed one. Master differs in what it imports from torchvision."""
    installed = Path(find_spec("basicsr").submodule_search_locations[0])
    shutil.copytree(installed, folder / "basicsr")  # with its compiled files: compiling takes seconds
    if master:
        degradations = folder / "basicsr" / "data" / "degradations.py"
        degradations.write_text(degradations.read_text().replace("functional_tensor", "functional"))
    return folder


def sources(*checkouts: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for folder in checkouts for path in folder.rglob("*.py")}


def test_scripts_of_checkouts_of_master_and_of_1_4_2(clean_python, options, test_options, write_options, tmp_path):
    master, release = (make_checkout(tmp_path / name, name == "master") for name in ("master", "1.4.2"))
    before = sources(master, release)
    options["train"]["total_iter"] = 1
    options["logger"]["use_tb_logger"] = False
    words = ("basicsr/train.py", "-opt", str(write_options(options)))
    trained = clean_python.run(*words, cwd=master, PYTHONPATH=str(master))
    assert trained.returncode == 0, trained.stderr
    weights = master / "experiments" / "small" / "models" / "net_g_latest.pth"
    assert torch.load(weights, weights_only=True)["params_ema"]

    test_options["path"]["pretrain_network_g"] = str(weights)
    words = ("basicsr/test.py", "-opt", str(write_options(test_options)))
    tested = clean_python.run(*words, cwd=release, PYTHONPATH=str(release))
    assert tested.returncode == 0, tested.stderr
    results = release / "results" / "small_test"
    assert len(list((results / "visualization" / "test").glob("*.png"))) == 2
    assert "# psnr:" in next(results.glob("test_*.log")).read_text()
    assert before == sources(master, release)


def test_installed_host_under_a_launcher_writes_below_the_current_folder(
    clean_python, options, write_options, tmp_path
):
    """`basicsr.train` of an installed 1.4.2 would write into site-packages. Several ranks: test_distributed.py."""
    options["train"]["total_iter"] = 1
    command = ("-m", "basicsr.train", "-opt", str(write_options(options)), "--launcher", "pytorch")
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}  # with the next line, what torchrun sets
    result = clean_python.run(*command, cwd=tmp_path, RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", **address)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "experiments" / "small"
    assert (folder / "models/net_g_latest.pth").is_file()
    (log,) = folder.glob("*.log")
    assert "dist: True" in log.read_text()
    assert log.read_text().count("Validation val") == 1
    assert (tmp_path / "tb_logger" / "small").is_dir()
