"""Claims about units that guess, as data: their distance to the exact staircase, and the choice."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from hwquant.activation import (
    Kind,
    choose_units,
    cost,
    fit,
    function_thresholds,
    in_words,
    thresholds,
)
from hwquant.activation.cost import table_cost
from hwquant.errors import BadInput
from hwquant.functions import bounds, evaluate
from hwquant.golden.staircase import staircase_of
from hwquant.ir import (
    Activation,
    IntArray,
    MacLayer,
    PowerNewton,
    PowerPade,
    PowerTable,
    Slopes,
    Thresholds,
    Window,
)
from hwquant.power import Codebook, Grid, activation_codebook, detail_codebook
from tests.float_graphs import FUNCTIONS
from tests.forms import GUESSES, Form, fitted
from tests.random_graphs import random_graph

UNITS = {"table": PowerTable, "slopes": PowerTable, "pade": PowerPade, "newton": PowerNewton}
EXPONENTS = [0.25, 0.4, 0.55, 0.7, 0.85, 1.0]
STEPS = Thresholds((2, 5, 9), (1, 0, 2, 3))


def codebook(exponent: float, bits: int, kind: str) -> Codebook:
    grid = Grid("power", exponent, 2**bits - 1)
    if kind == "detailed":
        return detail_codebook(grid)
    return activation_codebook(grid, 2 if kind == "wide" else 1, 3 if kind == "wide" else 0)


def oracle(exponent: float, bits: int, kind: str = "plain", name: str = "relu") -> Thresholds:
    book = codebook(exponent, bits, kind)
    if name == "relu":
        return thresholds(book, bits)
    function = FUNCTIONS[name]
    low, high = bounds(function)
    ends = evaluate(function, np.array([-4.0, 4.0]))
    zero = low if np.isfinite(low) else float(ends.min())
    return function_thresholds(function, book, zero, min(high, float(ends.max())) - zero, bits)[0]


def codes_apart(unit: Activation, given: Thresholds, order: IntArray | None = None) -> int:
    """Largest distance to the oracle, in codes of ``order``, over all values and some beyond."""
    values = np.arange(given.thresholds[0] - 9, given.thresholds[-1] + 9)
    order = np.arange(max(given.codes) + 1) if order is None else order
    found, exact = (
        np.searchsorted(order, staircase_of(each)(values.copy())) for each in (unit, given)
    )
    return int(np.abs(found - exact).max())


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("kind", GUESSES)
def test_units_of_relu_are_exact_for_every_value(kind: Form, bits: int, exponent: float) -> None:
    given = oracle(exponent, bits)
    (unit,) = fitted([given], kind)
    assert codes_apart(unit, given) == 0


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("codes", ["plain", "wide", "detailed"])
@pytest.mark.parametrize("kind", GUESSES)
def test_units_of_every_function_and_codebook_are_exact(kind: Form, codes: str, name: str) -> None:
    given = oracle(0.55, 4, codes, name)
    (unit,) = fitted([given], kind)
    assert codes_apart(unit, given) == 0
    assert isinstance(unit, UNITS[kind])


@pytest.mark.parametrize(
    ("name", "exponent", "kind"),
    [
        case
        for case in product(["silu", "leaky", "hard swish"], [0.25, 1.0], GUESSES)
        # where these turn they are so steep that 256 segments a range are too few
        if case not in {("silu", 0.25, "slopes"), ("hard swish", 0.25, "slopes")}
    ],
)
def test_units_of_functions_are_exact_at_eight_bits(kind: Form, exponent: float, name: str) -> None:
    given = oracle(exponent, 8, "plain", name)
    (unit,) = fitted([given], kind)
    assert codes_apart(unit, given) == 0
    assert isinstance(unit, UNITS[kind])


@pytest.mark.parametrize("allowed", [1, 2, 3])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", GUESSES)
def test_a_permitted_error_is_kept_and_used(kind: Form, bits: int, allowed: int) -> None:
    given = oracle(0.55, bits)
    (unit,) = fitted([given], kind, allowed)
    assert 0 < codes_apart(unit, given) <= allowed
    assert cost(unit) <= cost(fitted([given], kind, allowed - 1)[0])


@pytest.mark.parametrize("kind", GUESSES)
def test_a_permitted_error_counts_codes_where_steps_skip_some(kind: Form) -> None:
    given = oracle(0.25, 8)
    assert np.abs(np.diff(given.codes)).max() > 1
    assert codes_apart(fitted([given], kind, 1)[0], given) <= 1


@pytest.mark.parametrize("codes", ["wide", "detailed"])
@pytest.mark.parametrize("kind", GUESSES)
def test_a_permitted_error_of_two_digits_counts_codes_there_are(kind: Form, codes: str) -> None:
    given, order = oracle(0.7, 4, codes), codebook(0.7, 4, codes).packed(4)
    (unit,) = fitted([given], kind, 1, [order])
    assert codes_apart(unit, given, order) == 1
    as_integers = fitted([given], kind, 1)[0]  # where integers that are no code count too
    assert codes_apart(as_integers, given) == 1
    assert cost(unit) <= cost(as_integers) < cost(fitted([given], kind)[0])


def test_oracles_together_get_units_that_are_alike_but_for_constants() -> None:
    given = [oracle(exponent, 4) for exponent in (0.4, 0.55, 0.7)]
    tables = [unit for unit in fitted(given, "table") if isinstance(unit, PowerTable)]
    assert len({(t.value_bits, t.index_bits, t.shifts, t.window.stages) for t in tables}) == 1
    assert len(set(tables)) == len(given)


@pytest.mark.parametrize("bits", [4, 8])
def test_auto_takes_the_cheapest(bits: int) -> None:
    given = oracle(0.55, bits)
    (chosen,) = fit([given], "auto")
    kinds: list[Kind] = ["thresholds", "table", "pade", "newton"]
    assert cost(chosen) == min(cost(fit([given], kind)[0]) for kind in kinds)
    assert cost(chosen) < cost(given)


@pytest.mark.parametrize("bits", [2, 4, 6, 8])
@pytest.mark.parametrize("name", ["relu", "silu"])
def test_auto_takes_what_has_the_fewest_luts_in_the_price_table(name: str, bits: int) -> None:
    (chosen,) = fit([oracle(0.55, bits, "plain", name)], "auto")
    assert isinstance(chosen, PowerTable)


@pytest.mark.parametrize(
    ("name", "bits", "exponents", "has_slopes"),
    [
        ("relu", 4, [0.55], False),
        ("relu", 6, [0.55], False),
        ("relu", 8, [0.55], True),
        ("silu", 8, [0.55], True),
        ("relu", 8, [0.55, 0.58, 0.61, 0.64], True),
    ],
)
def test_tables_have_slopes_where_that_is_cheaper(
    name: str, bits: int, exponents: list[float], has_slopes: bool
) -> None:
    given = [oracle(exponent, bits, "plain", name) for exponent in exponents]
    unit = [made for made in fit(given, "table") if isinstance(made, PowerTable)]
    sloped = [made for made in fitted(given, "slopes") if isinstance(made, PowerTable)]
    assert [made.slopes is not None for made in unit] == [has_slopes] * len(given)
    assert (table_cost(unit) < table_cost(sloped)) != has_slopes


def test_every_layer_gets_the_unit_of_its_staircase() -> None:
    graph = random_graph(np.random.default_rng(4))
    macs = [layer for layer in graph.layers if isinstance(layer, MacLayer)]
    plain, silu = oracle(0.55, 4), oracle(0.55, 4, "plain", "silu")
    layers = [replace(macs[0], activation=made) for made in (plain, silu, None, plain)]
    order = {macs[0].name: np.arange(16)}
    chosen = choose_units(layers, "newton", 0, order)
    made = [layer.activation for layer in chosen if isinstance(layer, MacLayer)]
    assert made == [fit([it], "newton")[0] if it else None for it in (plain, silu, None, plain)]
    kept = choose_units(layers, "thresholds", 0, order)
    made = [layer.activation for layer in kept if isinstance(layer, MacLayer)]
    assert made == [plain, silu, None, plain]
    assert in_words(chosen) == "PowerNewton in 3 layers"
    mixed = [chosen[0], kept[1], chosen[2], chosen[3]]
    assert in_words(mixed) == "PowerNewton in 2 layers, Thresholds in layer0"


# ---------------------------------------------------------------- records


WINDOW = Window((0, 1, 2, 2), 1, STEPS)


def sloped(*values: int) -> PowerTable:
    return PowerTable(0, 4, WINDOW, 2, (2,), Slopes(values, 1, 2, 0))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Window((0,), 3, STEPS), r"stages=3; permitted 0\.\.2 of 4 codes"),
        (lambda: Window((3,), 1, STEPS), r"permitted one or more, in 0\.\.2"),
        (lambda: Window((), 0, STEPS), "permitted one or more"),
        (lambda: PowerTable(0, 4, WINDOW, 2, (1,)), r"shifts=\(1,\); permitted 0\.\.2"),
        (lambda: PowerTable(0, 4, WINDOW, 2, (0, 2)), "4 ranks; permitted 8, one a guess"),
        (lambda: PowerTable(0, 4, WINDOW, 9, (2,)), r"index_bits=9; permitted 0\.\.4"),
        (lambda: PowerTable(0, 99, WINDOW, 2, (97,)), r"value_bits=99; permitted 1\.\.20"),
        (lambda: PowerTable(2, 4, WINDOW, 2, (2,)), r"permitted 3\.\.17"),
        (lambda: Slopes((0,), 0, 1, 0), r"Slopes: bits=0; permitted 1\.\.8"),
        (lambda: Slopes((0,), 1, 9, 0), r"offset_bits=9; permitted 1\.\.8"),
        (lambda: Slopes((0,), 1, 1, 17), r"shift=17; permitted 0\.\.16"),
        (lambda: Slopes((4, -1), 2, 1, 0), r"values=\(4, -1\); permitted 0\.\.3"),
        (lambda: sloped(0, 0, 1), "3 slopes; permitted 4, one a guess"),
        (lambda: sloped(0, 0, 0, 1), r"ranks of segment 3 rise to 5; permitted 0\.\.2"),
        (lambda: PowerPade(0, 4, WINDOW, 0, (1, 6), (0, 1), 3), "denominator begins with 0"),
        (lambda: PowerPade(0, 4, WINDOW, 0, (1, -6), (1, 1), 3), r"numerator=\(1, -6\); permitted"),
        (lambda: PowerPade(0, 4, WINDOW, 4, (1, 6), (1, 1), 3), r"drop=4; permitted 0\.\.3"),
        (lambda: PowerPade(0, 4, WINDOW, 0, (1, 6), (1, 1), 2), "quotient_bits=2; permitted 3"),
        (lambda: PowerNewton(0, 4, WINDOW, 0, 1, 5, 2), r"root=5; permitted 2\.\.4"),
        (lambda: PowerNewton(0, 4, WINDOW, 0, 2, 2, 2), r"power=2; permitted 1\.\.1"),
        (lambda: PowerNewton(0, 4, WINDOW, 0, 1, 2, 0), r"iterations=0; permitted 1\.\.4"),
    ],
)
def test_records_that_cannot_be_are_refused(build, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        build()
