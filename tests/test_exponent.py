"""Claims about the search for exponents."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import product

import numpy as np
import pytest

from hwquant.ir import FloatArray
from hwquant.power import Grid
from hwquant.quantizer.exponent import (
    HIGHEST,
    LOWEST,
    WHOLE_EXPONENTS,
    Search,
    Site,
    Sorted,
    act_noise,
    find_grids,
    find_minimum,
    full_scales_of,
    search_errors,
    weight_error,
    weight_noise,
)
from hwquant.quantizer.rounding import SCALES

WEIGHT_TOP, ACT_TOP = TOPS = 7, 15
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


def rounded(weight: FloatArray, exponent: float, share: float = 1.0) -> FloatArray:
    scale = share * np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    grid = Grid("power", exponent, WEIGHT_TOP)
    return np.sign(weight) * grid.levels[grid.encode(np.abs(weight) / scale)] * scale


def both_noises(weights: Grid, acts: Grid) -> float:
    return search_errors(SITES, weights, acts)["both noises"]


def geometric_mean(noises: Sequence[float] | FloatArray) -> float:
    return float(np.prod(noises) ** (1 / len(noises)))


def signal(of: Site) -> float:
    """Variance of the sums of inputs that are independent of each other."""
    power = of.samples.var(axis=1) * of.scale**2
    return float(np.einsum("mckl,c->", dense(of) ** 2, power))


@pytest.mark.parametrize("exponent", [0.25, 0.5, 0.71, 1.0])
def test_errors_are_those_of_rounded_weights_and_activations(exponent: float) -> None:
    grid = Grid("power", exponent, ACT_TOP)
    errors, of_weights, of_acts = list[float](), list[float](), list[float]()
    for of in SITES:
        errors.append(float(np.linalg.norm(rounded(dense(of), exponent) - dense(of))))
        power = of.samples.var(axis=1) * of.scale**2
        clipped = [rounded(dense(of), exponent, share) - dense(of) for share in SCALES]
        made = [float(np.einsum("mckl,c->", lost**2, power)) for lost in clipped]
        of_weights.append(min(made) / signal(of))
        lost = grid.levels[grid.encode(of.samples)] - of.samples
        noise = (lost**2).mean(axis=1) * of.scale**2
        of_acts.append(float(np.einsum("mckl,c->", dense(of) ** 2, noise)) / signal(of))
    weights = Grid("power", exponent, WEIGHT_TOP)
    np.testing.assert_allclose(weight_error(SITES, WEIGHT_TOP)(exponent), sum(errors), rtol=1e-9)
    np.testing.assert_allclose(weight_noise(SITES)([weights])[0], of_weights, rtol=1e-9)
    np.testing.assert_allclose(act_noise(SITES)([grid])[0], of_acts, rtol=1e-9)
    assert search_errors(SITES, weights, grid) == pytest.approx(
        {
            "weight error": sum(errors),
            "weight noise": geometric_mean(of_weights),
            "act noise": geometric_mean(of_acts),
            "both noises": geometric_mean(np.add(of_weights, of_acts)),
        },
        rel=1e-9,
    )


def test_errors_of_many_grids_are_those_of_each() -> None:
    grids = [Grid("power", 0.4, 7), Grid("uniform", 1.0, 7), Grid("power", 0.6, 7, 10)]
    layer = Sorted.of_weights(SITES[0].weight, np.ones((16, 8)))
    levels, edges = np.array([g.levels for g in grids]), np.array([g.edges for g in grids])
    each = [layer.square_errors(grid.levels, grid.edges) for grid in grids]
    assert layer.square_errors(levels, edges).tolist() == each
    noises = weight_noise(SITES)(grids)
    assert noises.shape == (3, len(SITES))
    np.testing.assert_array_equal(noises[2:], weight_noise(SITES)(grids[2:]))


@pytest.mark.parametrize("search", ["weights", "both", "separate"])
def test_chosen_exponents_make_the_least_error_of_a_sweep(search: Search) -> None:
    weights, acts = (grid.exponent for grid in find_grids(SITES, TOPS, search))
    paper = weight_error(SITES, WEIGHT_TOP)

    def of(name: str, at: float) -> float:
        grids = Grid("power", at, WEIGHT_TOP), Grid("power", at, ACT_TOP)
        return search_errors(SITES, *grids)[name]

    pairs = {
        "weights": [(paper, weights)],
        "both": [(partial(of, "both noises"), weights)],
        "separate": [(partial(of, "weight noise"), weights), (partial(of, "act noise"), acts)],
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
        grid = Grid("power", 0.6, top)
        np.testing.assert_allclose(noise(SITES)([grid]), noise(scaled)([grid]), rtol=1e-9)


def test_layer_of_zeros_does_not_spoil_the_search() -> None:
    nothing = Site(0 * SITES[0].weight, 1, 0 * SITES[0].samples, SITES[0].scale)
    with_it = find_grids([*SITES, nothing], TOPS, "separate")
    assert with_it == find_grids(SITES, TOPS, "separate")


@pytest.mark.parametrize("norm", [1.0, 2.0, 4.0, np.inf])
def test_weight_error_is_the_norm_of_the_rounding_errors(norm: float) -> None:
    for exponent in (0.3, 0.6, 1.0):
        lost = [(rounded(of.weight, exponent) - of.weight).ravel() for of in SITES]
        want = sum(np.linalg.norm(error, norm) for error in lost)
        found = weight_error(SITES, WEIGHT_TOP, norm)(exponent)
        np.testing.assert_allclose(found, want, rtol=1e-9)


@pytest.mark.parametrize("norm", [1.0, 4.0, np.inf])
def test_exponent_of_another_norm_makes_that_norm_least(norm: float) -> None:
    found, _ = find_grids(SITES, TOPS, "weights", norm)
    error = weight_error(SITES, WEIGHT_TOP, norm)
    assert error(found.exponent) < 1.02 * min(error(at) for at in SWEEP)


@pytest.mark.parametrize("search", ["weights", "both", "separate"])
@pytest.mark.parametrize("product_bits", [7, 8, 10])
def test_whole_levels_of_least_noise_fit_the_product(search: Search, product_bits: int) -> None:
    weights, acts = find_grids(SITES, TOPS, search, product_bits=product_bits)
    assert weights.full_scale * acts.full_scale < 2**product_bits
    assert weights.is_gapless(3, is_signed=True) or search == "weights"
    assert acts.is_gapless(3, is_signed=False) or search == "weights"
    assert (weights.exponent == acts.exponent) or search == "separate"
    uniform = Grid("uniform", 1.0, WEIGHT_TOP), Grid("uniform", 1.0, ACT_TOP)
    assert both_noises(weights, acts) <= both_noises(*uniform)


@pytest.mark.parametrize("search", ["both", "separate"])
@pytest.mark.parametrize("product_bits", [7, 8, 9])
def test_whole_levels_have_the_least_noise_of_all_pairs(search: Search, product_bits: int) -> None:
    least = math.inf
    for full_scales in full_scales_of(TOPS, product_bits).items():
        tried = [
            [Grid("power", at, top, to) for at in WHOLE_EXPONENTS]
            for top, to in zip(TOPS, full_scales, strict=True)
        ]
        for weights, acts in product(*tried):
            is_gapless = weights.is_gapless(3, is_signed=True) and acts.is_gapless(
                3, is_signed=False
            )
            if is_gapless and (search == "separate" or weights.exponent == acts.exponent):
                least = min(least, both_noises(weights, acts))
    found = find_grids(SITES, TOPS, search, product_bits=product_bits)
    assert both_noises(*found) == pytest.approx(least, rel=1e-12)


def test_full_scales_are_the_largest_that_fit() -> None:
    assert full_scales_of((7, 15), 7) == {7: 18, 8: 15}
    assert full_scales_of((7, 15), 6) == {}
    assert full_scales_of((1, 3), 4) == {1: 12, 2: 7, 3: 5, 4: 3}


def test_given_exponent_is_that_of_both_grids() -> None:
    for product_bits in (None, 8):
        grids = find_grids(SITES, TOPS, "both", exponent=0.55, product_bits=product_bits)
        assert [grid.exponent for grid in grids] == [0.55, 0.55]
