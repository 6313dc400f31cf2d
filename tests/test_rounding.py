"""Claims about how weights are rounded to codes."""

import numpy as np
import pytest

from hwquant.ir import FloatArray, IntArray
from hwquant.power import Codebook, Grid, weight_codebook
from hwquant.rounding import DAMPING, SCALES, Rounding, round_weights

BOOKS = {
    "plain": weight_codebook(Grid("power", 0.7, 7), 1, 0),
    "edge": weight_codebook(Grid("power", 0.7, 7), 2, 3),
    "uniform": weight_codebook(Grid("uniform", 1.0, 7), 1, 0),
    "two bits": weight_codebook(Grid("power", 0.6, 1), 1, 0),
}
GROUPS, OUTPUTS, INPUTS = 2, 8, 24
KINDS: tuple[Rounding, ...] = ("nearest", "second_order")


def weights(seed: int, inputs: int = INPUTS) -> FloatArray:
    return np.random.default_rng(seed).normal(size=(GROUPS, OUTPUTS, inputs))


def covariance(seed: int, inputs: int = INPUTS) -> FloatArray:
    """Covariance of inputs that share a few causes, each with a power of its own."""
    rng = np.random.default_rng(1000 + seed)
    causes = rng.normal(size=(GROUPS, inputs, 3)) @ rng.normal(size=(GROUPS, 3, 500))
    seen = causes + rng.normal(size=(GROUPS, inputs, 500))
    seen *= rng.uniform(0.2, 2, (GROUPS, inputs, 1))
    return seen @ seen.transpose(0, 2, 1) / 500


def errors(
    weight: FloatArray, book: Codebook, moment: FloatArray, ranks: IntArray, scale: FloatArray
) -> FloatArray:
    """Mean square error of every channel's sum: ``float[G, M]``."""
    error = book.values[ranks] * scale[:, :, None] - weight
    return np.einsum("gmk,gkl,gml->gm", error, moment, error)


@pytest.mark.parametrize("name", BOOKS)
def test_second_order_has_less_error_at_the_sums_than_nearest(name: str) -> None:
    book, total = BOOKS[name], {"nearest": 0.0, "second_order": 0.0}
    for seed in range(8):
        weight, moment = weights(seed), covariance(seed)
        found = {kind: round_weights(weight, book, moment, kind) for kind in KINDS}
        for kind, (ranks, scale) in found.items():
            total[kind] += float(errors(weight, book, moment, ranks, scale).sum())
    assert total["second_order"] < 0.8 * total["nearest"]


@pytest.mark.parametrize("name", BOOKS)
def test_second_order_is_nearest_where_inputs_are_uncorrelated(name: str) -> None:
    moment = np.stack([np.diag(np.diag(part)) for part in covariance(1)])
    nearest, second = (round_weights(weights(1), BOOKS[name], moment, kind) for kind in KINDS)
    np.testing.assert_array_equal(second[0], nearest[0])
    np.testing.assert_array_equal(second[1], nearest[1])


@pytest.mark.parametrize("inputs", [2, INPUTS, 150])
def test_second_order_is_optimal_brain_surgeon_in_the_order_of_power(inputs: int) -> None:
    """The textbook's loop, which takes one input after the other out of the inverse Hessian."""
    book, weight, moment = BOOKS["plain"], weights(2, inputs), covariance(2, inputs)
    ranks, scale = round_weights(weight, book, moment, "second_order")
    for group in range(GROUPS):
        damping = DAMPING * np.trace(moment[group]) / inputs
        inverse = np.linalg.inv(moment[group] + damping * np.eye(inputs))
        rest = weight[group] / scale[group][:, None]
        want = np.zeros_like(ranks[group])
        for at in np.argsort(-np.diag(moment[group]), kind="stable"):
            want[:, at] = book.rank(rest[:, at])
            error = (rest[:, at] - book.values[want[:, at]]) / inverse[at, at]
            rest -= error[:, None] * inverse[at]
            inverse -= np.outer(inverse[at], inverse[at]) / inverse[at, at]
        np.testing.assert_array_equal(ranks[group], want)


@pytest.mark.parametrize("kind", KINDS)
def test_groups_are_rounded_apart(kind: Rounding) -> None:
    weight, moment = weights(3), covariance(3)
    ranks, scale = round_weights(weight, BOOKS["edge"], moment, kind)
    for group in range(GROUPS):
        one = slice(group, group + 1)
        alone = round_weights(weight[one], BOOKS["edge"], moment[one], kind)
        np.testing.assert_array_equal(ranks[one], alone[0])
        np.testing.assert_array_equal(scale[one], alone[1])


@pytest.mark.parametrize("kind", KINDS)
def test_channel_of_zeros_has_codes_and_scale_of_zero(kind: Rounding) -> None:
    weight = weights(4)
    weight[1, 3] = 0
    book = BOOKS["edge"]
    ranks, scale = round_weights(weight, book, covariance(4), kind)
    assert not book.digits[ranks[1, 3]].any()
    assert scale[1, 3] == 0
    assert (np.delete(scale.ravel(), OUTPUTS + 3) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_that_never_vary_are_rounded_all_the_same(kind: Rounding) -> None:
    ranks, scale = round_weights(weights(5), BOOKS["plain"], 0 * covariance(5), kind)
    unit = weights(5) / scale[:, :, None]
    np.testing.assert_array_equal(ranks, BOOKS["plain"].rank(unit))


def test_scale_is_that_of_least_error_among_the_trials() -> None:
    weight, moment, book = weights(6), covariance(6), BOOKS["plain"]
    moment = np.stack([np.diag(np.diag(part)) for part in moment])
    ranks, scale = round_weights(weight, book, moment, "nearest")
    largest = np.abs(weight).max(axis=2)
    damped = moment + np.stack(
        [DAMPING * np.trace(part) / INPUTS * np.eye(INPUTS) for part in moment]
    )
    trials = [
        errors(
            weight, book, damped, book.rank(weight / (trial * largest)[:, :, None]), trial * largest
        )
        for trial in SCALES
    ]
    share = scale / largest
    assert np.abs(share[:, :, None] - SCALES).min(axis=2).max() < 1e-9
    assert (errors(weight, book, damped, ranks, scale) <= 1.01 * np.min(trials, axis=0)).all()


def test_signs_of_weights_do_not_matter() -> None:
    weight, moment, book = weights(7), covariance(7), BOOKS["edge"]
    (ranks, scale), (other, same) = (
        round_weights(sign * weight, book, moment, "second_order") for sign in (1, -1)
    )
    np.testing.assert_array_equal(scale, same)
    np.testing.assert_array_equal(book.values[ranks], -book.values[other])
