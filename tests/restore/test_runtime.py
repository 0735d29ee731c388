"""Runtime and precision by measurement: what is measured, remembered and chosen."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from helpers.published_folders import lonely_machine
from helpers.small_networks import SMALL, built

from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.checkpoints import checkpoint, metadata
from gpen_plugin.checkpoints.metadata import Conventions
from gpen_plugin.cli import restore
from gpen_plugin.cli.restore import main, parser
from gpen_plugin.errors import CheckpointError, OptionError
from gpen_plugin.restore import benchmark, runtime
from gpen_plugin.restore.network import open_network
from gpen_plugin.restore.runtime import PLAIN, Choice, Speed, fastest, measure, memory_file, recall, remember

CPU = torch.device("cpu")
HALF, ONNX = Choice("torch", "bf16"), Choice("onnxruntime", "fp32")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    return lonely_machine(tmp_path, monkeypatch)


def speed(choice: Choice, seconds: float, rms: float = 0.0) -> Speed:
    return Speed(*choice, seconds, seconds, rms)


def refuse(precision):
    raise AssertionError(f"{precision} was opened")


def gains(monkeypatch, factor: float) -> None:
    monkeypatch.setattr(runtime, "gain_of_bf16", lambda device: factor)


def test_without_measurements_auto_is_pytorch_in_fp32(monkeypatch):
    gains(monkeypatch, 1.0)
    assert fastest(Choice("auto", "auto"), "net", CPU, refuse) == PLAIN
    assert fastest(Choice("auto", "bf16"), "net", CPU, refuse) == HALF
    assert fastest(Choice("onnxruntime", "auto"), "net", CPU, refuse) == ONNX


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (Choice("auto", "fp32"), ONNX),
        (Choice("auto", "auto"), HALF),
        (Choice("torch", "auto"), HALF),
        (Choice("auto", "bf16"), HALF),
        (Choice("torch", "fp32"), PLAIN),
    ],
)
def test_fastest_that_is_remembered_is_chosen(wanted, chosen):
    remember([speed(PLAIN, 3), speed(HALF, 1, rms=0.009), speed(ONNX, 2)], "net", CPU)
    assert fastest(wanted, "net", CPU, refuse) == chosen


def test_inexact_bf16_is_chosen_only_by_name():
    remember([speed(PLAIN, 3), speed(HALF, 1, rms=0.011)], "net", CPU)
    assert fastest(Choice("torch", "auto"), "net", CPU, refuse) == PLAIN
    assert fastest(Choice("auto", "bf16"), "net", CPU, refuse) == HALF


def test_precision_is_measured_once_where_bf16_gains(monkeypatch):
    gains(monkeypatch, 2.0)
    opened = []

    def open_in(precision):
        opened.append(precision)
        return lambda faces: [np.linspace(0, 1, 48, dtype=np.float32) * (1 + 1e-3 * (precision == "bf16"))] * len(faces)

    first = fastest(Choice("auto", "auto"), "net", CPU, open_in)
    known = {each.choice: each for each in recall("net", CPU)}
    assert set(known) == {PLAIN, HALF}
    assert known[HALF].rms == pytest.approx(1e-3 * 0.58 / 0.29, rel=0.1)  # rms over deviation of a ramp
    assert fastest(Choice("auto", "auto"), "net", CPU, open_in) == first
    assert opened == ["fp32", "bf16"]


def test_measurements_hold_for_one_machine_and_one_network(monkeypatch):
    remember([speed(PLAIN, 3), speed(ONNX, 2)], "net", CPU)
    assert recall("another", CPU) == []
    monkeypatch.setattr(runtime, "_version", lambda package: "99")
    assert recall("net", CPU) == []
    assert fastest(Choice("auto", "fp32"), "net", CPU, refuse) == PLAIN


def test_measurements_are_forgotten_without_what_writes_the_onnx_file(monkeypatch):
    monkeypatch.setattr(runtime, "_version", lambda package: "1")
    remember([speed(PLAIN, 3), speed(ONNX, 2)], "net", CPU)
    assert fastest(Choice("auto", "fp32"), "net", CPU, refuse) == ONNX
    monkeypatch.setattr(runtime, "_version", lambda package: "" if package == "onnx" else "1")
    assert fastest(Choice("auto", "fp32"), "net", CPU, refuse) == PLAIN


def test_new_measurements_replace_those_of_the_same_choice():
    remember([speed(PLAIN, 3), speed(ONNX, 2)], "net", CPU)
    remember([speed(ONNX, 4)], "net", CPU)
    assert recall("net", CPU) == [speed(PLAIN, 3), speed(ONNX, 4)]


@pytest.mark.parametrize("content", ["", "[1]", '{"a": 1}', "{", '{"MACHINE": {"net": [{"seconds": 1}]}}'])
def test_damaged_file_is_measured_anew(content):
    memory_file().parent.mkdir(parents=True)
    memory_file().write_text(content.replace("MACHINE", runtime.machine(CPU)))
    assert recall("net", CPU) == []
    remember([speed(PLAIN, 3)], "net", CPU)
    assert recall("net", CPU) == [speed(PLAIN, 3)]


def test_cache_that_cannot_be_written_is_no_error(tmp_path):
    memory_file().parent.parent.mkdir(parents=True, exist_ok=True)
    memory_file().parent.write_text("a file, not a folder")
    assert remember([speed(PLAIN, 3)], "net", CPU) == [speed(PLAIN, 3)]
    assert recall("net", CPU) == []


def test_gain_of_bf16_is_a_ratio_of_times(monkeypatch):
    seconds = {torch.float32: 3.0, torch.bfloat16: 2.0}
    monkeypatch.setattr(runtime, "_seconds_of", lambda call, x, weight: seconds[x.dtype])
    assert runtime.gain_of_bf16(CPU) == pytest.approx(1.5)
    monkeypatch.undo()
    assert runtime.gain_of_bf16(CPU) > 0


def test_times_are_per_face():
    sizes = []

    def network(faces):
        sizes.append(len(faces))
        return [np.ones(3, np.float32)] * len(faces)

    (result,) = measure({PLAIN: network}, batch=4, rounds=2)
    assert sizes == [1, 1, 4, 1, 4]
    assert (result.choice, result.rms) == (PLAIN, 0)


needs_onnx = pytest.mark.skipif(
    not all(find_spec(name) for name in ("onnx", "onnxruntime", "onnxslim")), reason="needs onnx and onnxruntime"
)


@pytest.fixture
def weights(tmp_path):
    """A file of a network with conventions of its own."""
    net = built(lambda: GPEN(16, value_range=(0, 1), **SMALL))
    conventions = metadata.stated(Conventions((0, 1), template="dlib", alpha=0.5))
    path = tmp_path / "net_g.pth"
    checkpoint.write(path, {"params": net.state_dict()}, checkpoint.describe(net, conventions=conventions))
    return path


@needs_onnx
def test_onnxruntime_gives_the_faces_of_pytorch(weights, capsys):
    plain = open_network(weights, device="cpu", runtime="torch")
    other = open_network(weights, device="cpu", runtime="onnxruntime")
    face = np.random.default_rng(0).random((16, 16, 3), dtype=np.float32)
    for ours, theirs in zip(other([face, 1 - face]), plain([face, 1 - face]), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    for name in ("in_size", "out_size", "template", "alpha", "task", "file", "stated", "released"):
        assert getattr(other, name) == getattr(plain, name)
    assert other.description.endswith("net_g.pth; fp32 in onnxruntime on CPU")
    assert capsys.readouterr().err.count("writing the network for onnxruntime to") == 1
    open_network(weights, device="cpu", runtime="onnxruntime")
    assert "writing" not in capsys.readouterr().err


@needs_onnx
def test_cache_without_room_for_the_onnx_file(weights):
    memory_file().parent.parent.mkdir(parents=True, exist_ok=True)
    memory_file().parent.write_text("a file, not a folder")
    with pytest.raises(
        CheckpointError, match=r"cannot be written \(.*\); expected a writable folder. Set XDG_CACHE_HOME"
    ):
        open_network(weights, device="cpu", runtime="onnxruntime")


@needs_onnx
def test_provider_runs_weights_in_onnxruntime(weights):
    assert open_network(weights, device="cpu", provider="cpu").description.endswith("in onnxruntime on CPU")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "tensorflow"}, "runtime: got 'tensorflow'; expected one of auto, torch, onnxruntime, openvino"),
        ({"precision": "fp16"}, "precision: got 'fp16'; expected one of auto, fp32, bf16"),
        ({"runtime": "onnxruntime", "precision": "bf16"}, "precision: got bf16 with the runtime onnxruntime"),
        ({"runtime": "torch", "provider": "cpu"}, "provider: got cpu with the runtime torch; expected none"),
    ],
)
def test_options_that_do_not_go_together(options, message, weights):
    with pytest.raises(OptionError, match=message):
        open_network(weights, device="cpu", **options)


def test_benchmark_is_remembered_and_used(weights, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "gain_of_bf16", lambda device: 2.0)
    assert main(["--benchmark", "-m", str(weights), "--device", "cpu", "--batch", "2"]) == 0
    printed = capsys.readouterr().out
    assert "torch        fp32" in printed
    assert "torch        bf16" in printed
    assert f"Remembered in {memory_file()}" in printed
    (network,) = next(iter(json.loads(memory_file().read_text()).values())).values()
    assert {Choice(each["runtime"], each["precision"]) for each in network} >= {PLAIN, HALF}
    plain = open_network(weights, device="cpu", runtime="torch")
    remember([speed(HALF, 0.0)], plain.name, CPU)
    assert open_network(weights, device="cpu", precision="auto").description.endswith("bf16 on cpu")


def test_bf16_is_not_timed_where_it_cannot_gain(weights, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "gain_of_bf16", lambda device: 0.5)
    main(["--benchmark", "-m", str(weights), "--device", "cpu", "--batch", "1"])
    assert "torch bf16: not measured: a convolution runs 0.50 times as fast in bf16 as in fp32 here" in (
        capsys.readouterr().out
    )


def test_benchmark_takes_weights_and_no_input(capsys):
    assert main(["--benchmark", "photo.jpg"]) == 1
    assert "--benchmark: got it with the input photo.jpg; expected no input" in capsys.readouterr().err
    assert main(["--benchmark", "-m", "model.onnx"]) == 1
    assert "model: got model.onnx; expected weights" in capsys.readouterr().err


def test_variants_are_made_in_pytorch(weights):
    arguments = parser().parse_args(["a.png", "-m", str(weights), "--variants", "2"])
    assert restore._restorer_options(arguments)["runtime"] == "torch"
