import numpy as np
import pytest
from basicsr.metrics import calculate_metric

from gpen_plugin.errors import OptionError
from gpen_plugin.metrics.rmse import calculate_rmse


def flat(value: int) -> np.ndarray:
    return np.full((4, 4, 3), value, np.uint8)


def test_rmse_is_the_root_of_the_mean_over_the_set():
    metric = {"type": "calculate_rmse", "better": "lower"}
    pairs = [calculate_metric({"img": flat(value), "img2": flat(100)}, metric) for value in (97, 104)]
    assert sum(pairs) / 2 == pytest.approx(np.sqrt((3**2 + 4**2) / 2))
    assert calculate_rmse(flat(255), flat(0)) / 1 == 255


def test_higher_is_not_better():
    with pytest.raises(OptionError, match="better: got 'higher'; expected lower"):
        calculate_rmse(flat(1), flat(1), better="higher")
