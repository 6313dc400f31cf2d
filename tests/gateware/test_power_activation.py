"""Power-activation units equal their records over every value."""

import bisect

import numpy as np
import pytest

from hwquant.gateware.power_activation import create
from hwquant.ir import PowerTable, Thresholds
from hwquant.plan import activation_delay
from tests.gateware_bench import run_unit

VALUE_BITS = 11
VALUES = range(-(1 << VALUE_BITS - 1), 1 << VALUE_BITS - 1)


def staircase(record: Thresholds, value: int) -> int:
    return record.codes[bisect.bisect_right(record.thresholds, value)]


@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 15, 20])
def test_threshold_search_is_exact_for_every_value(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    thresholds = tuple(sorted(int(t) for t in rng.choice(VALUES, count, replace=False)))
    codes = tuple(int(c) for c in rng.integers(0, 32, count + 1))  # not even monotone
    record = Thresholds(thresholds, codes)
    dut = create([record], VALUE_BITS, 5)
    got = run_unit(dut, [{"value": v} for v in VALUES], "code", activation_delay(record))
    assert got == [staircase(record, v) for v in VALUES], f"seed {seed}"


def test_many_staircases_share_a_search() -> None:
    rng = np.random.default_rng(3)
    records = [
        Thresholds(
            tuple(sorted(int(t) for t in rng.choice(VALUES, count, replace=False))),
            tuple(int(c) for c in rng.integers(0, 32, count + 1)),
        )
        for count in rng.integers(8, 16, 20)
    ]
    dut = create(records, VALUE_BITS, 5)
    for at in (0, 7, 19):
        inputs: list[dict[str, object]] = [{"value": v, "select": at} for v in VALUES]
        got = run_unit(dut, inputs, "code", activation_delay(records[at]))
        assert got == [staircase(records[at], v) for v in VALUES], f"staircase {at}"


@pytest.mark.parametrize("seed", [2])
def test_power_table_is_exact_for_every_value(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bits, mantissa = 9, 2
    codes = tuple(sorted(int(c) for c in rng.integers(0, 16, (bits - mantissa + 1) << mantissa)))
    record = PowerTable(bits, mantissa, codes)
    dut = create([record], VALUE_BITS, 4)
    got = run_unit(dut, [{"value": v} for v in VALUES], "code", activation_delay(record))
    expected: list[int] = []
    for value in VALUES:
        v = min(max(value, 0), 2**bits - 1)
        e = max(0, v.bit_length() - 1 - mantissa)
        expected.append(codes[(e << mantissa) + (v >> e)])
    assert got == expected, f"seed {seed}"
