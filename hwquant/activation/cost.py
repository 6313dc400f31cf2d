"""What a unit costs, before synthesis: a model to choose by, confirmed in ``docs/units.md``."""

from typing import assert_never

from hwquant.ir import Activation, PowerNewton, PowerPade, PowerTable, Thresholds, Window
from hwquant.plan import comparators, is_parallel

LOGIC_BITS = 512  # of a table that becomes logic; more become a memory
ROM_BITS = 16  # that one LUT4 holds
# of a memory, to one LUT: devices have 42 (ECP5) to 88 (xc7) bits of block RAM for each LUT
MEMORY_BITS = 64


def cost(activation: Activation) -> int:
    """LUT4 of a unit that has this activation alone, DSP blocks and block RAMs as LUTs.

    The logic of `logic_cost`, a product one for each pair of bits, a table one for ``ROM_BITS`` or,
    if it becomes a memory, for ``MEMORY_BITS``.
    """
    products = sum(a * b for a, b in factors(activation))
    logic, memory = _rom_bits(activation)
    return logic_cost(activation) + products + logic // ROM_BITS + memory // MEMORY_BITS


def logic_cost(activation: Activation) -> int:
    """LUT4 of comparisons, sums, subtractions and choices of two: one for each bit."""
    match activation:
        case Thresholds(steps, _):
            if is_parallel(activation):
                return len(steps) * (max(-steps[0], steps[-1]).bit_length() + 1)
            # saturation compares with either end, and chooses
            return (comparators(activation) + 3) * (steps[-1] - steps[0] + 1).bit_length()
        case PowerTable():
            guess = (len(activation.shifts) - 1) * activation.index_bits
        case PowerPade():
            guess = _divider(activation.quotient_bits, sum(activation.denominator).bit_length())
            guess += sum(t.bit_length() for t in (*activation.numerator, *activation.denominator))
        case PowerNewton():
            guess = _newton(activation)
        case _:
            assert_never(activation)
    rank_bits = len(activation.codes).bit_length()
    subtraction = activation.value_bits if activation.low else 0
    compare = activation.window.stages * (activation.value_bits + rank_bits)
    return subtraction + guess + compare


def factors(activation: Activation) -> list[tuple[int, int]]:
    """Bits of the factors of every product."""
    match activation:
        case Thresholds() | PowerTable():
            return []
        case PowerPade():
            return [
                (activation.x_bits, sum(terms[at:]).bit_length())
                for terms in (activation.numerator, activation.denominator)
                for at in range(1, len(terms))
            ]
        case PowerNewton():
            x, y, n = activation.x_bits, activation.guess_bits + 1, activation.root
            powers = [(x * at, x) for at in range(1, activation.power)]
            return powers + [(y * at, y) for at in range(1, n - 1)] * (activation.iterations - 1)
        case _:
            assert_never(activation)


def _newton(record: PowerNewton) -> int:
    y, n = record.guess_bits + 1, record.root
    given = record.x_bits * record.power
    mean = y + (0 if n & (n - 1) == 0 else y * y)  # thirds by a product with a constant
    first = given // n + given + mean  # leading one, a shift to choose, sum
    return first + (record.iterations - 1) * (_divider(max(y, n), (n - 1) * y) + mean)


def _divider(quotient_bits: int, divisor_bits: int) -> int:
    return quotient_bits * (divisor_bits + 1)


def _rom_bits(activation: Activation) -> tuple[int, int]:
    """Return the bits of tables that become logic, and of those that become memories."""
    codes = activation.codes
    is_rank = codes == tuple(range(len(codes)))
    decoder = 0 if is_rank else len(codes) * max(codes).bit_length()
    match activation:
        case Thresholds(steps, _):
            return decoder + len(steps) * (steps[-1] - steps[0] + 1).bit_length(), 0
        case PowerTable() | PowerPade() | PowerNewton():
            sizes = [words * bits for words, bits in tables(activation.window)]
            logic = sum(size for size in sizes if size <= LOGIC_BITS)
            return decoder + logic, sum(sizes) - logic
        case _:
            assert_never(activation)


def tables(window: Window) -> list[tuple[int, int]]:
    """Words, and bits of one, of the tables that follow a guess."""
    steps = window.steps.thresholds
    ranks = [(len(window.ranks), len(steps).bit_length())]
    return ranks + [(len(steps), (steps[-1] - steps[0] + 1).bit_length())] * (window.stages > 0)
