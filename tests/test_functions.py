"""Activation functions compute their formulas, and their lowest values are exact."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from hwquant.float_graph import (
    Elu,
    Function,
    Gelu,
    HardSigmoid,
    HardSwish,
    HardTanh,
    LeakyRelu,
    Mish,
    Relu,
    Sigmoid,
    Silu,
    Softplus,
    Tanh,
)
from hwquant.functions import bounds, evaluate, turning_point
from tests.float_model import function

FUNCTIONS: tuple[Function, ...] = (
    Relu(None),
    Relu(6.0),
    Relu(0.5),
    LeakyRelu(0.1),
    Elu(1.0),
    Elu(2.5),
    Softplus(),
    Silu(),
    Silu(1.702),
    Mish(),
    Gelu(is_tanh=False),
    Gelu(is_tanh=True),
    HardSwish(),
    HardSigmoid(0.2, 0.5),
    HardSigmoid(1.5, 0.25),
    HardTanh(-1.0, 2.0),
    HardTanh(-0.5, math.inf),
    Sigmoid(),
    Tanh(),
)
X = np.linspace(-20, 20, 40_001)


@pytest.mark.parametrize("kind", FUNCTIONS, ids=repr)
def test_function_is_its_formula_in_both_precisions(kind: Function) -> None:
    wanted = function(kind, X)
    np.testing.assert_allclose(evaluate(kind, X), wanted, rtol=1e-12, atol=1e-13)
    single = evaluate(kind, X.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, wanted, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("kind", FUNCTIONS, ids=repr)
def test_bounds_hold_and_are_reached(kind: Function) -> None:
    low, high = bounds(kind)
    values = function(kind, X)
    assert low - 1e-15 <= values.min()
    assert values.max() <= high
    if np.isfinite(low):
        assert values.min() <= low + 1e-6
    if np.isfinite(high):
        assert values.max() >= high - 1e-6


@pytest.mark.parametrize("kind", FUNCTIONS, ids=repr)
def test_function_falls_before_its_turning_point_and_nowhere_else(kind: Function) -> None:
    turn = turning_point(kind)
    steps = np.diff(function(kind, X))
    if turn is None:
        assert (steps >= 0).all()
        return
    assert (steps[X[1:] < turn] <= 1e-15).all()  # GELU is all rounding far below 0
    assert (steps[X[:-1] > turn] >= 0).all()
    found = minimize_scalar(lambda x: function(kind, np.array([x])).item(), (-3, -1, 0), tol=1e-12)
    assert abs(found.x - turn) < 1e-6
    assert abs(found.fun - bounds(kind)[0]) < 1e-15


def test_minima_are_those_of_the_literature() -> None:
    wanted = {Silu(): -0.27846454, Gelu(is_tanh=False): -0.16997121, HardSwish(): -0.375}
    for kind, low in wanted.items():
        assert bounds(kind)[0] == pytest.approx(low, abs=5e-9)
