"""What the activation functions of a ``FloatGraph`` compute, and where their lowest values lie."""

import math
from typing import Any, TypeVar, assert_never, cast

import numpy as np
import numpy.typing as npt
from scipy.special import erf, expit  # pyright: ignore[reportMissingTypeStubs]

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

Scalar = TypeVar("Scalar", bound=np.floating[Any])

GELU_CUBIC = 0.044715  # of the approximation by tanh

# (x, f(x)) where a function that falls first and rises then turns
_SILU_TURN = (-1.2784645427610737, -0.2784645427610738)
_MISH_TURN = (-1.1924312145154952, -0.3088434130172504)
_GELU_TURN = (-0.7517915246935645, -0.16997120747990366)
_GELU_TANH_TURN = (-0.7524614220710163, -0.17004075057125406)
_HARD_SWISH_TURN = (-1.5, -0.375)


def evaluate(function: Function, values: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """Compute ``function`` of every element, in the precision of ``values``."""
    return cast(npt.NDArray[Scalar], _evaluate(function, values))


def _evaluate(function: Function, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    match function:
        case Relu():
            return np.clip(x, 0, function.ceiling)
        case LeakyRelu():
            return np.maximum(x, x * function.slope)
        case Elu():
            return np.where(x < 0, np.expm1(np.minimum(x, 0)) * function.slope, x)
        case Softplus():
            return np.logaddexp(x, 0)
        case Silu():
            return x * expit(x if function.slope == 1 else x * function.slope)
        case Mish():
            return x * np.tanh(np.logaddexp(x, 0))
        case Gelu(is_tanh=False):
            return x * (1 + erf(x * math.sqrt(0.5))) * 0.5
        case Gelu():
            inner = math.sqrt(2 / math.pi) * (x + GELU_CUBIC * x * x * x)
            return x * (1 + np.tanh(inner)) * 0.5
        case HardSwish():
            return x * np.clip(x * (1 / 6) + 0.5, 0, 1)
        case HardSigmoid():
            return np.clip(x * function.slope + function.offset, 0, 1)
        case HardTanh():
            return np.clip(x, function.low, function.high)
        case Sigmoid():
            return expit(x)
        case Tanh():
            return np.tanh(x)
        case _:
            assert_never(function)


def bounds(function: Function) -> tuple[float, float]:
    """Greatest lower and least upper bound of the function's values, infinite where there is none.

    Error
    -----
    Within 1e-15 of the exact ones.
    """
    match function:
        case Relu():
            return 0.0, math.inf if function.ceiling is None else function.ceiling
        case LeakyRelu():
            return -math.inf, math.inf
        case Elu():
            return -function.slope, math.inf
        case Softplus():
            return 0.0, math.inf
        case Silu() | Mish() | Gelu() | HardSwish():
            return _turn(function)[1], math.inf
        case HardSigmoid() | Sigmoid():
            return 0.0, 1.0
        case HardTanh():
            return function.low, function.high
        case Tanh():
            return -1.0, 1.0
        case _:
            assert_never(function)


def turning_point(function: Function) -> float | None:
    """Return the x where the function stops falling and rises; ``None`` if it never falls."""
    match function:
        case Silu() | Mish() | Gelu() | HardSwish():
            return _turn(function)[0]
        case Relu() | LeakyRelu() | Elu() | Softplus() | HardSigmoid() | HardTanh():
            return None
        case Sigmoid() | Tanh():
            return None
        case _:
            assert_never(function)


def _turn(function: Silu | Mish | Gelu | HardSwish) -> tuple[float, float]:
    match function:
        case Silu():
            return _SILU_TURN[0] / function.slope, _SILU_TURN[1] / function.slope
        case Mish():
            return _MISH_TURN
        case Gelu():
            return _GELU_TANH_TURN if function.is_tanh else _GELU_TURN
        case HardSwish():
            return _HARD_SWISH_TURN
        case _:
            assert_never(function)
