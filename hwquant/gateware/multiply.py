"""Products in multiplier blocks: a wide factor is cut, and its parts' products are added later."""

from itertools import pairwise

from amaranth.hdl import Const, Module, Signal, Value, signed

_BLOCK_BITS = 18  # of a factor that a block of ECP5 takes whole; xc7's takes 25, but by 18
_LIMB_BITS = 16  # of a part: unsigned, it fits the blocks of iCE40 too


def limbs(bits: int) -> list[slice]:
    """Cut a signed factor so that each part, the highest signed, fits a multiplier block."""
    starts = [0]
    while bits - starts[-1] > _BLOCK_BITS:
        starts.append(starts[-1] + _LIMB_BITS)
    return [slice(start, stop) for start, stop in pairwise([*starts, bits])]


def multiplied(m: Module, a: Value, b: Value, name: str) -> Value:
    """Return ``a * b``, ``a`` signed, after two registers: of the parts' products, of their sum."""
    result = Signal(signed(len(a) + len(b)), name=name)
    m.d.sync += result.eq(partly_multiplied(m, a, b, name))
    return result


def partly_multiplied(m: Module, a: Value, b: Value, name: str) -> Value:
    """Return ``a * b`` as the sum, without a register, of registers of the parts' products."""
    parts = limbs(len(a))
    total: Value = Const(0, 0)
    for at, part in enumerate(parts):
        is_signed = part is parts[-1] and a.shape().signed
        product = (a[part].as_signed() if is_signed else a[part]) * b
        register = Signal(product.shape(), name=f"{name}_{at}", reset_less=True)
        m.d.sync += register.eq(product)
        total = total + (register << part.start) if at else register
    return total
