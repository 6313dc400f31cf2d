"""Guesses: where on a staircase a value lies, roughly."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from hwquant.gateware.delay import delayed
from hwquant.gateware.divider import divide
from hwquant.gateware.multiply import partly_multiplied
from hwquant.gateware.unit_data import chosen, late
from hwquant.ir import PowerNewton, PowerPade, PowerTable
from hwquant.scheduler.plan import HORNER_DELAY, log2_ceil, newton_quotient_bits


def segment(m: Module, record: PowerTable, u: Value) -> Value:
    """Return the number of the segment in which ``u`` lies, a cycle later.

    Without the register yosys maps the table of ranks together with the choice of a range, for
    speed that nobody needs: a unit of four bits then had 88 LUT4, with it 68.
    """
    guess = Signal((len(record.window.ranks) - 1).bit_length(), name="segment", reset_less=True)
    bits = record.index_bits
    numbers = [
        Cat(u[shift : shift + bits], Const(at, len(guess) - bits))
        for at, shift in enumerate(record.shifts)
    ]
    m.d.sync += guess.eq(_of_range(record, u, numbers))
    return guess


def offset(m: Module, record: PowerTable, bits: int, u: Value) -> Value:
    """Return the highest ``bits`` of where in its segment ``u`` lies, a cycle later."""
    found = Signal(bits, name="offset", reset_less=True)
    offsets = [
        Cat(Const(0, max(bits - shift, 0)), u[max(shift - bits, 0) : shift])
        for shift in record.shifts
    ]
    m.d.sync += found.eq(_of_range(record, u, offsets))
    return found


def _of_range(record: PowerTable, u: Value, values: Sequence[Value]) -> Value:
    """Choose the value of the range in which ``u`` lies."""
    choice: Value = Const(0)
    for at, value in enumerate(values):
        above = u[record.index_bits + record.shifts[at - 1] :].any() if at else Const(1)
        choice = Mux(above, value, choice)
    return choice


def risen(m: Module, rank: Value, slope: Value, x: Value, shift: int) -> Value:
    """Return ``rank + (slope * x >> shift)`` after two registers: of the product, of the sum.

    The product is a sum of shifted x, or yosys spends a multiplier block on these few bits.
    """
    product = Signal(len(slope) + len(x), name="rise", reset_less=True)
    total: Value = Const(0)
    for at, bit in enumerate(slope):
        total = total + ((x & bit.replicate(len(x))) << at)
    result = Signal.like(rank, name="risen", reset_less=True)
    m.d.sync += [product.eq(total), result.eq(delayed(m, rank, 1, "level") + (product >> shift))]
    return result


def quotient(m: Module, records: Sequence[PowerPade], u: Value, select: Value | None) -> Value:
    """Return the quotient of the selected record's polynomials, or the last guess if it is more."""
    x = u[records[0].drop :]
    degree = max(len(records[0].numerator), len(records[0].denominator)) - 1
    above = _polynomial(m, [r.numerator for r in records], x, degree, select, "numerator")
    below = _polynomial(m, [r.denominator for r in records], x, degree, select, "denominator")
    found = divide(m, above, below, records[0].quotient_bits, "quotient")
    last = records[0].guess_bits
    return found[:last] | found[last:].any().replicate(last)


def _polynomial(
    m: Module,
    records: Sequence[Sequence[int]],
    x: Value,
    degree: int,
    select: Value | None,
    name: str,
) -> Value:
    """Evaluate by Horner's scheme, one product at a time, ``degree`` times ``HORNER_DELAY``.

    A wide factor is cut, so that each product's register is that of its multiplier block.
    """
    own = len(records[0]) - 1
    early = HORNER_DELAY * (degree - own)
    x, select = delayed(m, x, early, f"{name}_early"), late(m, select, early, f"{name}_select")
    total = Value.cast(chosen([terms[-1] for terms in records], select))
    largest = max(1, *(terms[-1] for terms in records))
    for at in reversed(range(own)):
        product = partly_multiplied(m, total, x, f"{name}_{at}_product")
        largest += max(terms[at] for terms in records)
        following = Signal(range(largest + 1), name=f"{name}_{at}", reset_less=True)
        select_term = late(m, select, HORNER_DELAY - 1, f"{name}_{at}_select")
        term = chosen([terms[at] for terms in records], select_term)
        m.d.sync += following.eq((product >> len(x)) + term)
        total, x = following, delayed(m, x, HORNER_DELAY, f"{name}_{at}_x")
        select = late(m, select_term, 1, f"{name}_{at}_select_x")
    return total


def root(m: Module, record: PowerNewton, u: Value) -> Value:
    """Return the root by Newton's iteration, or the last guess if it is more."""
    n, last = record.root, record.guess_bits
    x = Cat(Const(1, 1), u[record.drop + 1 :])
    given: Value = x
    for at in range(1, record.power):
        product = Signal(len(given) + len(x), name=f"power_{at + 1}", reset_less=True)
        m.d.sync += product.eq(given * x)
        given, x = product, delayed(m, x, 1, f"x_{at}")
    y = _mean(m, record, _first_sum(m, record, given), "y_1")
    given = delayed(m, given, 2, "given_1")
    for at in range(2, record.iterations + 1):
        divisor, beside = y, y
        for factor in range(2, n):
            product = Signal(factor * len(y), name=f"divisor_{at}_{factor}", reset_less=True)
            m.d.sync += product.eq(divisor * beside)
            divisor, beside = product, delayed(m, beside, 1, f"beside_{at}_{factor}")
        given_there = delayed(m, given, n - 2, f"dividend_{at}")
        bits = newton_quotient_bits(record)
        found = divide(m, given_there, divisor, bits, f"quotient_{at}")
        held = delayed(m, y, n - 2 + bits, f"held_{at}")
        total = Signal(log2_ceil(n * 2 << last) + 1, name=f"sum_{at}", reset_less=True)
        m.d.sync += total.eq((n - 1) * held + found)
        y = _mean(m, record, total, f"y_{at}")
        given = delayed(m, given, n - 2 + bits + 2, f"given_{at}")
    return y[:last] | y[last].replicate(last)


def _first_sum(m: Module, record: PowerNewton, given: Value) -> Value:
    """Add ``(root - 1) * 2**k`` and ``X >> (root - 1) * k``, which is less than ``2**k``."""
    n = record.root
    total = Signal(log2_ceil(n << record.guess_bits), name="sum_1", reset_less=True)
    choice: Value = Const(0)
    for k in range(1, record.guess_bits + 1):
        number = given[(n - 1) * k : n * k] | (n - 1) << k
        choice = Mux(given[n * (k - 1) :].any(), number, choice)
    m.d.sync += total.eq(choice)
    return total


def _mean(m: Module, record: PowerNewton, total: Value, name: str) -> Value:
    """Divide a sum by the root, rounded down."""
    n = record.root
    y = Signal(record.guess_bits + 1, name=name, reset_less=True)
    if n & (n - 1) == 0:
        m.d.sync += y.eq(total >> log2_ceil(n))
    else:
        # with 2 * len(total) more bits the reciprocal, rounded up, is exact
        bits = 2 * len(total)
        m.d.sync += y.eq(total * -(-(1 << bits) // n) >> bits)
    return y
