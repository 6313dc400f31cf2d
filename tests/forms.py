"""Activation units of every form, also where another is cheaper."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from hwquant.activation import Kind, fit
from hwquant.activation.linear import fit_linear
from hwquant.activation.window import domains
from hwquant.ir import Activation, IntArray, Thresholds

Form = Kind | Literal["slopes"]
GUESSES: list[Form] = ["table", "slopes", "pade", "newton"]
FORMS: list[Form] = ["thresholds", *GUESSES]


def fitted(
    oracles: Sequence[Thresholds],
    form: Form,
    max_code_error: int = 0,
    orders: Sequence[IntArray] | None = None,
) -> list[Activation]:
    """Do as `fit`; ``slopes`` are tables that have some."""
    if form != "slopes":
        return fit(oracles, form, max_code_error, orders)
    if orders is None:
        orders = [np.arange(max(oracle.codes) + 1) for oracle in oracles]
    made = fit_linear(domains(oracles, max_code_error, orders))
    assert made is not None
    return [*made]
