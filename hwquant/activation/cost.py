"""What a unit costs, before synthesis: a model to choose by, confirmed in ``docs/units.md``."""

from collections.abc import Sequence
from typing import assert_never

from hwquant.ir import Activation, Guess, PowerNewton, PowerPade, PowerTable, Thresholds
from hwquant.scheduler.plan import READ_DELAY, activation_delay, comparators, is_parallel, log2_ceil

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


def table_cost(unit: Sequence[PowerTable]) -> int:
    """LUT4 and flip-flops of records that share a unit, to choose its segments by.

    Codes are left out: they are looked up alike whatever the segments. A memory's bits are those of
    a LUT and of the flip-flop beside it, so half as many count as one of them.
    """
    sizes = [words * bits for words, bits in unit_tables(unit)]
    stored = sum(size // (ROM_BITS if size <= LOGIC_BITS else MEMORY_BITS // 2) for size in sizes)
    return max(map(logic_cost, unit)) + max(map(registers, unit)) + stored


def registers(guess: Guess) -> int:
    """Flip-flops of a unit that guesses: value and rank, in every cycle, and what rises."""
    found = activation_delay(guess) * (guess.value_bits + log2_ceil(len(guess.codes)))
    if isinstance(guess, PowerTable) and guess.slopes is not None:
        # until the product: the place in the segment; of it, both factors' bits
        found += (READ_DELAY + 2) * guess.slopes.offset_bits + 2 * guess.slopes.bits
    return found


def logic_cost(activation: Activation) -> int:
    """LUT4 of comparisons, sums, subtractions and choices of two: one for each bit."""
    match activation:
        case Thresholds(steps, _):
            if is_parallel(activation):
                return len(steps) * (max(-steps[0], steps[-1]).bit_length() + 1)
            # saturation compares with either end, and chooses
            return (comparators(activation) + 3) * (steps[-1] - steps[0] + 1).bit_length()
        case PowerTable():
            chosen = activation.index_bits
            guess = 0
            if (slopes := activation.slopes) is not None:
                chosen += slopes.offset_bits
                # of a product without a block, each pair of bits is an AND and a bit of a sum
                guess = 2 * slopes.bits * slopes.offset_bits + len(activation.codes).bit_length()
            guess += (len(activation.shifts) - 1) * chosen
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
            sizes = [words * bits for words, bits in tables(activation)]
            logic = sum(size for size in sizes if size <= LOGIC_BITS)
            return decoder + logic, sum(sizes) - logic
        case _:
            assert_never(activation)


def tables(activation: Guess) -> list[tuple[int, int]]:
    """Words, and bits of one, of the tables that follow a guess."""
    window = activation.window
    steps = window.steps.thresholds
    slopes = activation.slopes if isinstance(activation, PowerTable) else None
    bits = len(steps).bit_length() + (slopes.bits if slopes else 0)
    ranks = [(len(window.ranks), bits)]
    return ranks + [(len(steps), (steps[-1] - steps[0] + 1).bit_length())] * (window.stages > 0)


def unit_tables(records: Sequence[Activation]) -> list[tuple[int, int]]:
    """Words and bits of the tables behind a unit's guesses, the records' one after the other."""
    windows = [tables(r) for r in records if not isinstance(r, Thresholds)]
    made: list[tuple[int, int]] = []
    for alike in zip(*windows, strict=True):
        size = 1 << log2_ceil(max(words for words, _ in alike))
        words = alike[0][0] if len(alike) == 1 else len(alike) * size
        made.append((words, max(bits for _, bits in alike)))
    return made
