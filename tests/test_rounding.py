"""Claims about how weights are rounded to codes."""

import numpy as np
import pytest

from hwquant.ir import FloatArray, IntArray
from hwquant.power import Codebook, Grid, weight_codebook
from hwquant.quantizer.rounding import DAMPING, SCALES, Rounding, round_weights, squant

BOOKS = {
    "plain": weight_codebook(Grid("power", 0.7, 7), 1, 0),
    "edge": weight_codebook(Grid("power", 0.7, 7), 2, 3),
    "uniform": weight_codebook(Grid("uniform", 1.0, 7), 1, 0),
    "two bits": weight_codebook(Grid("power", 0.6, 1), 1, 0),
}
GROUPS, OUTPUTS, INPUTS = 2, 8, 24
KINDS: tuple[Rounding, ...] = ("nearest", "second_order", "squant")


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
    book = BOOKS[name]
    total: dict[str, float] = dict.fromkeys(KINDS, 0.0)
    for seed in range(8):
        weight, moment = weights(seed), covariance(seed)
        found = {kind: round_weights(weight, book, moment, kind) for kind in KINDS}
        for kind, (ranks, scale) in found.items():
            total[kind] += float(errors(weight, book, moment, ranks, scale).sum())
    assert total["second_order"] < 0.8 * total["nearest"]


@pytest.mark.parametrize("name", BOOKS)
def test_second_order_is_nearest_where_inputs_are_uncorrelated(name: str) -> None:
    moment = np.stack([np.diag(np.diag(part)) for part in covariance(1)])
    nearest, second = (round_weights(weights(1), BOOKS[name], moment, kind) for kind in KINDS[:2])
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


@pytest.mark.parametrize("kind", KINDS[:2])
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


# ---------------------------------------------------------------- squant


def by_loops(errors: FloatArray, steps: FloatArray) -> tuple[list[int], float, int, float]:
    """Flip codes while the sum gets smaller; then the one flip that would change the sum's sign."""
    total = float(errors.sum())
    side = np.sign(total)
    order = [
        int(at)
        for at in np.argsort(-np.abs(errors) / np.where(steps > 0, steps, 1), kind="stable")
        if errors[at] * side > 0
    ]
    flipped = list[int]()
    for at in order:
        if abs(total - side * steps[at]) >= abs(total):
            break
        total -= side * steps[at]
        flipped.append(at)
    if total * side < 0:
        return flipped, total, flipped[-1], float(steps[flipped[-1]])
    after = order[len(flipped)] if order[len(flipped) :] else 0
    return flipped, total, after, float(steps[after]) if order[len(flipped) :] else 0.0


def by_channel(weight: FloatArray, book: Codebook) -> tuple[IntArray, FloatArray, float]:
    """SQuant of ``float[C, T]`` in loops: ranks, bound of every kernel's sum, and the channel's."""
    ranks = book.rank(weight)
    error = book.values[ranks] - weight
    moved = ranks - np.sign(error).astype(int)
    steps = np.abs(book.values[moved] - book.values[ranks])
    found = [by_loops(*pair) for pair in zip(error, steps, strict=True)]
    for kernel, (flipped, *_) in enumerate(found):
        ranks[kernel, flipped] = moved[kernel, flipped]
    left, last = np.array([f[1] for f in found]), np.array([f[3] for f in found])
    again, _, _, bound = by_loops(left, last)
    for kernel in again:
        at = found[kernel][2]
        is_flipped = at in found[kernel][0]
        ranks[kernel, at] += (1 if is_flipped else -1) * int(np.sign(error[kernel, at]))
    return ranks, last, bound


@pytest.mark.parametrize("taps", [1, 9])
@pytest.mark.parametrize("name", BOOKS)
def test_squant_leaves_no_kernel_a_step_and_no_channel_half_a_step(name: str, taps: int) -> None:
    book = BOOKS[name]
    for seed in range(4):
        weight = np.random.default_rng(seed).normal(0, 0.4, (20, 12, taps)).clip(-1, 1)
        ranks = squant(weight, book)
        assert ranks.min() >= 0
        assert ranks.max() < len(book.values)
        error = book.values[ranks] - weight
        assert np.abs(error).max() <= np.diff(book.values).max()
        for channel in range(len(weight)):
            want, steps, step = by_channel(weight[channel], book)
            np.testing.assert_array_equal(ranks[channel], want)
            sums = np.abs(error[channel].sum(axis=1))
            assert (sums <= steps + 1e-12).all()
            assert sums[steps == 0].max(initial=0) < 1e-12
            assert abs(error[channel].sum()) <= step / 2 + 1e-12


def test_squant_of_one_kernel_leaves_at_most_half_a_step_of_a_uniform_grid() -> None:
    book, weight = BOOKS["uniform"], np.random.default_rng(5).uniform(-1, 1, (200, 1, 9))
    ranks = squant(weight, book)
    error = (book.values[ranks] - weight) * 7
    assert np.abs(error.sum(axis=(1, 2))).max() <= 0.5 + 1e-12
    flips = np.abs(ranks - book.rank(weight)).sum(axis=(1, 2))
    nearest = (book.values[book.rank(weight)] - weight).sum(axis=(1, 2)) * 7
    np.testing.assert_array_equal(flips, np.round(np.abs(nearest)))


def test_squant_flips_by_hand() -> None:
    """Errors in steps of 1/7: -0.4, -0.3, -0.45, 0.1 sum up to -1.05, so one flip: the third."""
    weight = np.array([[[1.4, 2.3, -3.55, 0.9]]]) / 7
    np.testing.assert_array_equal(squant(weight, BOOKS["uniform"]) - 7, [[[1, 2, -3, 1]]])


@pytest.mark.parametrize("name", BOOKS)
def test_squant_never_flips_a_channel_of_zeros(name: str) -> None:
    book, weight = BOOKS[name], np.random.default_rng(6).uniform(-1, 1, (30, 5, 9))
    weight[::3] = 0
    assert not book.values[squant(weight, book)[::3]].any()


def test_squant_keeps_weights_that_are_codes() -> None:
    ranks = np.random.default_rng(7).integers(0, 15, (4, 6, 9))
    np.testing.assert_array_equal(squant(BOOKS["plain"].values[ranks], BOOKS["plain"]), ranks)


def test_squant_takes_its_kernels_from_the_taps() -> None:
    weight, moment, book = weights(8, 27), covariance(8, 27), BOOKS["plain"]
    ranks, scale = round_weights(weight, book, moment, "squant", taps=9)
    np.testing.assert_array_equal(scale, np.abs(weight).max(axis=2))
    unit = (weight / scale[:, :, None]).reshape(GROUPS, OUTPUTS, 3, 9)
    np.testing.assert_array_equal(ranks.reshape(unit.shape), squant(unit, book))


def test_runs_of_inputs_are_rounded_by_themselves() -> None:
    """Where inputs of two runs are not correlated, it is as if one covariance said so."""
    book, weight, half = BOOKS["plain"], weights(9), covariance(9, INPUTS // 2)
    runs = np.repeat(half, 2, axis=0)
    whole = np.zeros((GROUPS, INPUTS, INPUTS))
    for group, moment in enumerate(half):
        whole[group] = np.kron(np.eye(2), moment)
    ranks, scale = round_weights(weight, book, runs, "second_order")
    together = round_weights(weight, book, whole, "second_order")
    np.testing.assert_array_equal(ranks, together[0])
    np.testing.assert_array_equal(scale, together[1])
    assert np.any(ranks != round_weights(weight, book, runs, "nearest")[0])
