"""Power-activation units equal golden over every value."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from hwquant.activation import function_thresholds, thresholds
from hwquant.functions import bounds
from hwquant.gateware.power_activation import create
from hwquant.golden.staircase import staircase_of
from hwquant.ir import Activation, PowerNewton, PowerPade, PowerTable, Slopes, Thresholds
from hwquant.power import Grid, activation_codebook, detail_codebook
from hwquant.scheduler.plan import PARALLEL_DELAY, PARALLEL_THRESHOLDS, activation_delay
from tests.float_graphs import FUNCTIONS
from tests.forms import FORMS, GUESSES, Form, fitted
from tests.gateware_bench import run_unit
from tests.random_units import KINDS, random_guess

VALUE_BITS = 11
VALUES = np.arange(-(1 << VALUE_BITS - 1), 1 << VALUE_BITS - 1)


def golden(record: Activation, values: np.ndarray) -> list[int]:
    return staircase_of(record)(values.copy()).tolist()


def computed(record: Activation, values: np.ndarray, value_bits: int = VALUE_BITS) -> list[int]:
    inputs: list[dict[str, object]] = [{"value": value} for value in values.tolist()]
    dut = create([record], value_bits, max(record.codes).bit_length())
    return run_unit(dut, inputs, "code", activation_delay(record))


def assert_any_may_follow_any(
    records: list[Activation],
    oracles: Sequence[Activation],
    values: np.ndarray,
    value_bits: int,
    rng: np.random.Generator,
) -> None:
    """Give each value to a record of its own, as where layers overlap."""
    chosen = rng.integers(len(records), size=len(values))
    inputs: list[dict[str, object]] = [
        {"value": value, "select": at}
        for value, at in zip(values.tolist(), chosen.tolist(), strict=True)
    ]
    code_bits = max(max(record.codes) for record in records).bit_length()
    dut = create(records, value_bits, code_bits)
    codes = np.array([golden(oracle, values) for oracle in oracles])
    found = run_unit(dut, inputs, "code", activation_delay(records[0]))
    assert found == codes[chosen, np.arange(len(values))].tolist()


def drawn_steps(rng: np.random.Generator, count: int) -> Thresholds:
    thresholds = np.sort(rng.choice(VALUES, count, replace=False))
    codes = rng.integers(0, 32, count + 1)  # not even monotone
    return Thresholds(tuple(thresholds.tolist()), tuple(codes.tolist()))


@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 15, 20])
def test_thresholds_are_exact_for_every_value(count: int, seed: int) -> None:
    record = drawn_steps(np.random.default_rng(seed), count)
    assert computed(record, VALUES) == golden(record, VALUES), f"seed {seed}"
    is_compared = activation_delay(record) == PARALLEL_DELAY
    assert is_compared == (count <= PARALLEL_THRESHOLDS)


@pytest.mark.parametrize("counts", [(1, 2), (4, 7), (8, 16)])
def test_many_staircases_share_a_unit(counts: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    records: list[Activation] = [drawn_steps(rng, int(n)) for n in rng.integers(*counts, 20)]
    assert_any_may_follow_any(records, records, np.repeat(VALUES, 3), VALUE_BITS, rng)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", KINDS)
def test_any_unit_that_guesses_equals_golden_for_every_value(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    record = random_guess(rng, kind, drawn_steps(rng, int(rng.integers(1, 20))))
    assert computed(record, VALUES) == golden(record, VALUES), f"seed {seed}"


def small(bits: int, exponent: float) -> Thresholds:
    """Return the staircase of ReLU at a scale of 2**9, so that all values are few."""
    book = activation_codebook(Grid("power", exponent, 2**bits - 1), 1, 0)
    steps, first = np.unique(np.ceil(book.edges[::-1] * 512).astype(int), return_index=True)
    codes = np.arange(len(book.edges), 0, -1)[first]
    return Thresholds(tuple(steps.tolist()), (0, *codes.tolist()))


@pytest.mark.parametrize("exponent", [0.25, 0.55, 1.0])
@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("kind", FORMS)
def test_fitted_units_equal_golden_for_every_value(kind: Form, bits: int, exponent: float) -> None:
    oracle = small(bits, exponent)
    (record,) = fitted([oracle], kind)
    got = computed(record, VALUES)
    assert got == golden(record, VALUES)
    assert got == golden(oracle, VALUES)


@pytest.mark.parametrize("kind", GUESSES)
def test_staircases_of_a_function_share_a_unit(kind: Form) -> None:
    """Ranges of their own, so lows, coefficients, ranks and thresholds of their own."""
    silu = FUNCTIONS["silu"]
    book = activation_codebook(Grid("power", 0.55, 15), 1, 0)
    zero = bounds(silu)[0]
    oracles = [function_thresholds(silu, book, zero, scale, 4)[0] for scale in (3.0, 4.0, 7.0)]
    records = fitted(oracles, kind)
    rng = np.random.default_rng(5)
    ends = np.array([t + d for o in oracles for t in o.thresholds for d in (-1, 0)])
    values = np.concatenate([ends, rng.integers(-(1 << 18), 1 << 18, 500)])
    assert_any_may_follow_any(records, oracles, np.repeat(values, 3), 19, rng)


def test_detailed_codes_are_exact_at_every_step() -> None:
    oracle = thresholds(detail_codebook(Grid("power", 0.55, 15)), 4)
    steps = np.array(oracle.thresholds)
    values = np.concatenate([steps - 1, steps, [-(1 << 19), -1, 0, (1 << 19) - 1]])
    for kind in GUESSES:
        (record,) = fitted([oracle], kind)
        assert computed(record, values, 20) == golden(oracle, values), kind


def sabotaged(record: Activation) -> Activation:
    """Change one coefficient, threshold, rank or slope."""
    match record:
        case Thresholds(steps, codes):
            return Thresholds((*steps[:-1], steps[-1] + 1), codes)
        case PowerTable(slopes=Slopes(values) as slopes):  # each is the least that serves
            at = int(np.flatnonzero(values)[-1])
            changed = (*values[:at], values[at] - 1, *values[at + 1 :])
            return replace(record, slopes=replace(slopes, values=changed))
        case PowerTable():
            changed = (*record.window.ranks[:-1], record.window.ranks[-1] - 1)
            return replace(record, window=replace(record.window, ranks=changed))
        case PowerPade():
            return replace(record, numerator=(record.numerator[0], record.numerator[1] // 2))
        case PowerNewton():
            return replace(record, iterations=1)


@pytest.mark.parametrize(("kind", "bits"), [*((kind, 4) for kind in FORMS), ("thresholds", 2)])
def test_a_sabotaged_unit_is_seen(kind: Form, bits: int) -> None:
    (record,) = fitted([small(bits, 0.55)], kind)
    changed = sabotaged(record)
    assert type(changed) is type(record)
    got = computed(changed, VALUES)
    assert got == golden(changed, VALUES)
    assert got != golden(record, VALUES)
