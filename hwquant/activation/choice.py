"""Which unit a layer gets: the kind that was asked for, or the cheapest that is near enough."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, assert_never

from hwquant.activation.cost import cost
from hwquant.activation.newton import fit_newton
from hwquant.activation.pade import fit_pade
from hwquant.activation.table import fit_table
from hwquant.ir import Activation, Layer, MacLayer, Thresholds

Kind = Literal["thresholds", "table", "pade", "newton", "auto"]


def choose_units(layers: Sequence[Layer], kind: Kind, max_code_error: int) -> tuple[Layer, ...]:
    """Give MAC layers, whose staircases are exact, the unit called ``kind``.

    Staircases of equally many comparisons share a unit. A layer keeps its exact staircase where
    the kind has no unit for it. ``auto`` takes for each unit the kind of least `cost`.
    """
    shared: dict[int, list[Thresholds]] = {}
    for layer in layers:
        if isinstance(layer, MacLayer) and isinstance(layer.activation, Thresholds):
            unit = shared.setdefault(len(layer.activation.thresholds).bit_length(), [])
            if layer.activation not in unit:
                unit.append(layer.activation)
    chosen: dict[Thresholds, Activation] = {}
    for unit in shared.values():
        chosen |= zip(unit, fit(unit, kind, max_code_error), strict=True)
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


def fit(oracles: Sequence[Thresholds], kind: Kind, max_code_error: int = 0) -> list[Activation]:
    """Build the activations of one unit: of ``kind``, or the oracles where it has none for them.

    Error
    -----
    At most ``max_code_error`` steps of the oracle, for every integer v.
    """
    found: Sequence[Activation] | None
    match kind:
        case "thresholds":
            found = oracles
        case "table":
            found = fit_table(oracles, max_code_error)
        case "pade":
            found = fit_pade(oracles, max_code_error)
        case "newton":
            found = fit_newton(oracles, max_code_error)
        case "auto":
            kinds: tuple[Kind, ...] = ("thresholds", "table", "pade", "newton")
            return min(
                (fit(oracles, each, max_code_error) for each in kinds),
                key=lambda unit: sum(map(cost, unit)),
            )
        case _:
            assert_never(kind)
    return list(oracles if found is None else found)
