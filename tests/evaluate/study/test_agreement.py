import numpy as np
import pytest
from scipy import stats

from gpen_plugin.evaluate.study.votes import concordance, kendall_w, pairwise_spearman, position_bias


def random_ranks(seed, voters, methods):
    rng = np.random.default_rng(seed)
    return np.array([rng.permutation(methods) + 1.0 for _ in range(voters)])


def tied_ranks(seed, voters, methods):
    values = np.random.default_rng(seed).integers(0, 3, (voters, methods))
    return stats.rankdata(values, axis=1)


@pytest.mark.parametrize("ranks", [random_ranks(0, 5, 7), random_ranks(1, 4, 4), tied_ranks(2, 6, 5)])
def test_w_is_friedmans_statistic(ranks):
    voters, methods = ranks.shape
    expected = stats.friedmanchisquare(*ranks.T)
    assert voters * (methods - 1) * kendall_w(ranks) == pytest.approx(expected.statistic)
    assert concordance([ranks])[1] == pytest.approx(expected.pvalue)


def test_equal_voters_agree_wholly():
    images = [np.tile(random_ranks(image, 1, 7), (17, 1)) for image in range(3)]
    w, p = concordance(images)
    assert w == pytest.approx(1)
    assert p < 1e-30
    assert pairwise_spearman(images) == pytest.approx(1)


def test_opposite_voters():
    images = [np.array([[1.0, 2, 3, 4], [4, 3, 2, 1]])]
    assert concordance(images) == pytest.approx((0, 1))
    assert pairwise_spearman(images) == pytest.approx(-1)


def test_random_voters_do_not_agree():
    images = [random_ranks(image, 17, 7) for image in range(113)]
    w, p = concordance(images)
    assert w == pytest.approx(1 / 17, abs=0.01)
    assert 0.01 < p < 0.99
    assert pairwise_spearman(images) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("ranks", [random_ranks(3, 5, 6), tied_ranks(4, 5, 6)])
def test_spearman_is_scipys(ranks):
    matrix = stats.spearmanr(ranks, axis=1).statistic
    assert pairwise_spearman([ranks]) == pytest.approx(matrix[np.triu_indices(len(ranks), 1)].mean())


def test_spearman_follows_from_w_without_ties():
    ranks = random_ranks(5, 6, 7)
    assert pairwise_spearman([ranks]) == pytest.approx((6 * kendall_w(ranks) - 1) / 5)


def test_single_voters_and_full_ties_have_no_agreement():
    silent = [np.array([[1.0, 2, 3]]), np.full((2, 3), 2.0)]
    assert np.isnan(concordance(silent)).all()
    assert np.isnan(pairwise_spearman(silent))
    telling = np.array([[1.0, 2, 3], [1, 3, 2]])
    assert concordance([*silent, telling]) == concordance([telling])


def test_position_bias():
    assert position_bias(np.full(7, 20.0)) == pytest.approx(1)
    assert position_bias(np.array([90.0, 10, 10, 10, 10, 10, 10])) < 1e-6
    assert np.isnan(position_bias(np.zeros(3)))
