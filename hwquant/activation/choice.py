"""Which unit a layer gets: the kind that was asked for, or the cheapest that is near enough."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, assert_never

import numpy as np

from hwquant.activation.cost import cost, table_cost
from hwquant.activation.linear import fit_linear
from hwquant.activation.newton import fit_newton
from hwquant.activation.pade import fit_pade
from hwquant.activation.table import fit_table
from hwquant.activation.window import Domain, domains
from hwquant.ir import Activation, IntArray, Layer, MacLayer, Thresholds

Kind = Literal["thresholds", "table", "pade", "newton", "auto"]


def choose_units(
    layers: Sequence[Layer], kind: Kind, max_code_error: int, orders: Mapping[str, IntArray]
) -> tuple[Layer, ...]:
    """Give MAC layers, whose staircases are exact, the unit called ``kind``.

    Staircases of equally many comparisons share a unit. A layer keeps its exact staircase where
    the kind has no unit for it. ``auto`` takes for each unit the kind of least `cost`. ``orders``
    are the codes there are in each layer's output, see `fit`.
    """
    shared: dict[int, dict[Thresholds, IntArray]] = {}
    for layer in layers:
        if isinstance(layer, MacLayer) and isinstance(layer.activation, Thresholds):
            unit = shared.setdefault(len(layer.activation.thresholds).bit_length(), {})
            unit.setdefault(layer.activation, orders[layer.name])
    chosen: dict[Thresholds, Activation] = {}
    for unit in shared.values():
        made = fit(list(unit), kind, max_code_error, list(unit.values()))
        chosen |= zip(unit, made, strict=True)
    return tuple(
        replace(layer, activation=chosen[layer.activation])
        if isinstance(layer, MacLayer) and isinstance(layer.activation, Thresholds)
        else layer
        for layer in layers
    )


def in_words(layers: Sequence[Layer]) -> str:
    """Return which units the MAC layers have: the names of layers, or how many where most do."""
    named: dict[str, list[str]] = {}
    for layer in layers:
        if isinstance(layer, MacLayer) and layer.activation is not None:
            named.setdefault(type(layer.activation).__name__, []).append(layer.name)
    most = max(map(len, named.values()), default=0)
    return ", ".join(
        f"{kind} in {f'{most} layers' if len(names) == most else ', '.join(names)}"
        for kind, names in named.items()
    )


def fit(
    oracles: Sequence[Thresholds],
    kind: Kind,
    max_code_error: int = 0,
    orders: Sequence[IntArray] | None = None,
) -> list[Activation]:
    """Build the activations of one unit: of ``kind``, or the oracles where it has none for them.

    ``orders`` are the packed codes that there are for each oracle, which may skip some, rising and
    so in the order of their values; by default all integers.

    Error
    -----
    At most ``max_code_error`` places in that order, for every integer v.
    """
    if orders is None:
        orders = [np.arange(max(oracle.codes) + 1) for oracle in oracles]
    return _fit(domains(oracles, max_code_error, orders), kind)


def _fit(given: Sequence[Domain], kind: Kind) -> list[Activation]:
    exact = [domain.oracle for domain in given]
    match kind:
        case "thresholds":
            return [*exact]
        case "table":
            constant, linear = fit_table(given), fit_linear(given)
            return [*min(constant, linear or constant, key=table_cost)]
        case "pade":
            return [*(fit_pade(given) or exact)]
        case "newton":
            return [*(fit_newton(given) or exact)]
        case "auto":
            kinds: tuple[Kind, ...] = ("thresholds", "table", "pade", "newton")
            return min((_fit(given, each) for each in kinds), key=lambda unit: sum(map(cost, unit)))
        case _:
            assert_never(kind)
