"""Operations of a training, held against those of the step that the benchmark of trainings counts."""

import pytest
import torch
import yaml
from helpers import REPOSITORY
from training_cost import Cost, cost_of, main
from training_step import arithmetic, model_of


def options(name):
    return yaml.safe_load((REPOSITORY / "options" / name).read_text())


def test_a_step_of_fine_tuning_is_that_of_the_benchmark(monkeypatch):
    opt = options("gpen_finetune_256.yml")
    for name in ("network_g", "network_d"):
        opt[name]["narrow"] = 1 / 16
    monkeypatch.setattr(yaml, "safe_load", lambda text: opt)
    model = model_of(256, "cpu")
    usual, lazy = arithmetic(model)
    assert cost_of(opt).per_image * len(model.gt) == pytest.approx(usual + lazy / opt["train"]["net_d_reg_every"])


def test_prior_cost_includes_path_length():
    opt = options("gpen_prior_256.yml")
    whole = cost_of(opt)
    opt["train"]["path_reg_weight"] = 0
    assert cost_of(opt).per_image < whole.per_image
    assert whole.images == opt["train"]["total_iter"] * opt["datasets"]["train"]["batch_size_per_gpu"]


def test_hours():
    assert Cost(3600, 1e12, 0).hours(1e12) == 1
    assert Cost(3600, 1e12, 0).hours(1e12, 8) == 0.125
    assert torch.get_default_device().type == "cpu"


def test_images_may_be_given_and_an_evaluation_is_no_training(monkeypatch, capsys):
    file = str(REPOSITORY / "options" / "evidence" / "prior_64.yml")
    monkeypatch.setattr("sys.argv", ["training_cost.py", "-opt", file, "--rate", "1e12", "--images", "2e6"])
    main()
    assert "2.00 M images" in capsys.readouterr().out
    evaluation = str(REPOSITORY / "options" / "evaluate" / "table1.yml")
    monkeypatch.setattr("sys.argv", ["training_cost.py", "-opt", evaluation, "--rate", "1e12"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "table1.yml is no training" in capsys.readouterr().err
