"""Products in multiplier blocks: a wide factor is cut, and its parts' products are added later."""

from itertools import pairwise

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed

_BLOCK_BITS = 18  # of a factor that a block of ECP5 takes whole; xc7's takes 25, but by 18
_LIMB_BITS = 16  # of a part: unsigned, it fits the blocks of iCE40 too
_LOGIC_BITS = 8  # of a part in LUT4s: its product is about as late as the sum of the parts
_IN_A_ROW = 4  # multiples that are added one after the other, before the tree


def limbs(bits: int, *, in_blocks: bool = True) -> list[slice]:
    """Cut a signed factor so that each part, the highest signed, fits a multiplier block.

    Parts for multipliers in LUTs are smaller, so that they are not the slowest of a lane.
    """
    most, step = (_BLOCK_BITS, _LIMB_BITS) if in_blocks else (_LOGIC_BITS, _LOGIC_BITS)
    starts = [0]
    while bits - starts[-1] > most:
        starts.append(starts[-1] + step)
    return [slice(start, stop) for start, stop in pairwise([*starts, bits])]


def multiplied(m: Module, a: Value, b: Value, name: str, *, in_blocks: bool = True) -> Value:
    """Return ``a * b``, ``a`` signed, after two registers: of the parts' products, of their sum."""
    result = Signal(signed(len(a) + len(b)), name=name)
    m.d.sync += result.eq(partly_multiplied(m, a, b, name, in_blocks=in_blocks))
    return result


def partly_multiplied(m: Module, a: Value, b: Value, name: str, *, in_blocks: bool = True) -> Value:
    """Return ``a * b`` as the sum, without a register, of registers of the parts' products."""
    parts = limbs(len(a), in_blocks=in_blocks)
    total: Value = Const(0, 0)
    for at, part in enumerate(parts):
        is_signed = part is parts[-1] and a.shape().signed
        factor = a[part].as_signed() if is_signed else a[part]
        product = factor * b if in_blocks else _multiplied_in_luts(factor, b)
        register = Signal(product.shape(), name=f"{name}_{at}", reset_less=True)
        m.d.sync += register.eq(product)
        total = total + (register << part.start) if at else register
    return total


def _multiplied_in_luts(a: Value, b: Value) -> Value:
    """Return ``a * b``, ``b`` unsigned, in about one LUT4 for a bit of ``a`` and one of ``b``.

    The LUT of an adder's bit has an input left: it adds a multiple of ``b`` or does not. yosys' own
    multiplier takes more than two.
    """
    product: Value = Const(0, 0)
    for start in range(0, len(a), _IN_A_ROW):
        total: Value = Const(0, len(b))
        bits = a[start : start + _IN_A_ROW]
        for at, bit in enumerate(bits):
            above = total[at:]  # as many bits as ``b`` has
            is_sign = a.shape().signed and start + at == len(a) - 1
            changed = (above - b if is_sign else above + b)[: len(b) + 1]
            total = Cat(total[:at], Mux(bit, changed, above))
        is_last = start + len(bits) == len(a)
        total = total.as_signed() if is_last and a.shape().signed else total
        product = product + (total << start)
    return product
