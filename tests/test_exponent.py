"""Claims about the search for exponents."""

import numpy as np
import pytest

from hwquant.exponent import (
    HIGHEST,
    LOWEST,
    Search,
    Site,
    SortedWeights,
    act_noise,
    find_exponents,
    find_minimum,
    weight_error,
    weight_noise,
)
from hwquant.ir import FloatArray
from hwquant.power import Grid

WEIGHT_TOP, ACT_TOP = 7, 15
SWEEP = np.linspace(LOWEST, HIGHEST, 151)


def site(seed: int, groups: int = 1) -> Site:
    """Eight input channels that are half zeros, as behind a ReLU."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(16, 8 // groups, 3, 3))
    samples = np.clip(rng.normal(0, 0.3, (8, 250)), 0, 1)
    return Site(weight, groups, samples, rng.uniform(0.5, 4, 8))


SITES = [site(1), site(2, groups=2), site(3, groups=8)]


def dense(of: Site) -> FloatArray:
    """Weights of all groups among zeros, ``float[M, C, KH, KW]``."""
    (count, each, *_), channels = of.weight.shape, len(of.scale)
    filled = np.zeros((count, channels, 3, 3))
    for output in range(count):
        first = output // (count // of.groups) * each
        filled[output, first : first + each] = of.weight[output]
    return filled


def rounded(weight: FloatArray, exponent: float) -> FloatArray:
    scale = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    grid = Grid("power", exponent, WEIGHT_TOP)
    return np.sign(weight) * grid.levels[grid.encode(np.abs(weight) / scale)] * scale


def signal(of: Site) -> float:
    """Variance of the sums of inputs that are independent of each other."""
    power = of.samples.var(axis=1) * of.scale**2
    return float(np.einsum("mckl,c->", dense(of) ** 2, power))


@pytest.mark.parametrize("exponent", [0.25, 0.5, 0.71, 1.0])
def test_errors_are_those_of_rounded_weights_and_activations(exponent: float) -> None:
    errors = [0.0, 0.0, 0.0]
    grid = Grid("power", exponent, ACT_TOP)
    for of in SITES:
        lost = rounded(dense(of), exponent) - dense(of)
        errors[0] += float(np.sqrt((lost**2).sum()))
        power = of.samples.var(axis=1) * of.scale**2
        errors[1] += float(np.einsum("mckl,c->", lost**2, power)) / signal(of)
        noise = (grid.levels[grid.encode(of.samples)] - of.samples).var(axis=1) * of.scale**2
        errors[2] += float(np.einsum("mckl,c->", dense(of) ** 2, noise)) / signal(of)
    found = [
        weight_error(SITES, WEIGHT_TOP)(exponent),
        weight_noise(SITES, WEIGHT_TOP)(exponent),
        act_noise(SITES, ACT_TOP)(exponent),
    ]
    np.testing.assert_allclose(found, errors, rtol=1e-9)


def test_square_error_of_weights_on_the_grid_is_zero() -> None:
    grid = Grid("power", 0.6, WEIGHT_TOP)
    weight = np.tile(grid.levels, 4).reshape(4, 8, 1, 1)
    assert SortedWeights.of(weight, np.ones((4, 8))).square_error(grid) < 1e-12


@pytest.mark.parametrize("search", ["weights", "both", "separate"])
def test_chosen_exponents_make_the_least_error_of_a_sweep(search: Search) -> None:
    weights, acts = find_exponents(SITES, WEIGHT_TOP, ACT_TOP, search)
    paper = weight_error(SITES, WEIGHT_TOP)
    of_weights, of_acts = weight_noise(SITES, WEIGHT_TOP), act_noise(SITES, ACT_TOP)
    pairs = {
        "weights": [(paper, weights)],
        "both": [(lambda a: of_weights(a) + of_acts(a), weights)],
        "separate": [(of_weights, weights), (of_acts, acts)],
    }
    for error, exponent in pairs[search]:
        assert LOWEST <= exponent <= HIGHEST
        assert error(exponent) < 1.01 * min(error(at) for at in SWEEP)
    assert (weights == acts) == (search != "separate")


@pytest.mark.parametrize("at", [0.25, 0.31, 0.8, 1.0])
def test_minimum_is_found_at_the_ends_too(at: float) -> None:
    assert abs(find_minimum(lambda exponent: abs(exponent - at)) - at) < 2e-3


def test_noise_over_signal_does_not_depend_on_units() -> None:
    scaled = [Site(100 * of.weight, of.groups, of.samples, of.scale / 7) for of in SITES]
    for noise, top in ((weight_noise, WEIGHT_TOP), (act_noise, ACT_TOP)):
        np.testing.assert_allclose(noise(SITES, top)(0.6), noise(scaled, top)(0.6), rtol=1e-9)


def test_layer_of_zeros_does_not_spoil_the_search() -> None:
    nothing = Site(0 * SITES[0].weight, 1, 0 * SITES[0].samples, SITES[0].scale)
    with_it = find_exponents([*SITES, nothing], WEIGHT_TOP, ACT_TOP, "separate")
    assert with_it == find_exponents(SITES, WEIGHT_TOP, ACT_TOP, "separate")


@pytest.mark.parametrize("norm", [1.0, 2.0, 4.0, np.inf])
def test_weight_error_is_the_norm_of_the_rounding_errors(norm: float) -> None:
    for exponent in (0.3, 0.6, 1.0):
        lost = [(rounded(of.weight, exponent) - of.weight).ravel() for of in SITES]
        want = sum(np.linalg.norm(error, norm) for error in lost)
        found = weight_error(SITES, WEIGHT_TOP, norm)(exponent)
        np.testing.assert_allclose(found, want, rtol=1e-9)


@pytest.mark.parametrize("norm", [1.0, 4.0, np.inf])
def test_exponent_of_another_norm_makes_that_norm_least(norm: float) -> None:
    found, _ = find_exponents(SITES, WEIGHT_TOP, ACT_TOP, "weights", norm)
    error = weight_error(SITES, WEIGHT_TOP, norm)
    assert error(found) < 1.02 * min(error(at) for at in SWEEP)
