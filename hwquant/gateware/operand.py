"""The level of a residual's or gate's code; only the forms of codes that occur are built."""

from collections.abc import Iterable

from amaranth.hdl import Const, Mux, Value

from hwquant.gateware.lookup import lookup
from hwquant.ir import MacLayer, QuantGraph

Form = tuple[int, bool]  # digits of a code, and whether it is a detailed one


def operand_forms(graph: QuantGraph, *, residuals: bool = True, gates: bool = True) -> list[Form]:
    """Return the forms of the codes of a network's residuals, of its gates or of both."""
    layers = [layer for layer in graph.layers if isinstance(layer, MacLayer)]
    names = {la.residual.source for la in layers if la.residual and residuals}
    names |= {la.gate.source for la in layers if la.gate and gates}
    tensors = [graph.tensor(name) for name in names]
    return sorted({(tensor.parts, tensor.is_detailed) for tensor in tensors})


def form_of(graph: QuantGraph, operand: str | None) -> int:
    """Return the place among all forms of an operand's; 0 if there is none."""
    if operand is None:
        return 0
    tensor = graph.tensor(operand)
    return operand_forms(graph).index((tensor.parts, tensor.is_detailed))


def level_bits(graph: QuantGraph, forms: Iterable[Form]) -> int:
    """Return the bits of the largest level of any code of these forms."""
    tops = [0]
    for parts, is_detailed in forms:
        if is_detailed:
            tops.append(int(graph.detail_tables.max(axis=1).clip(0).sum()))
        else:
            places = sum(1 << graph.part_shift * at for at in range(parts))
            tops.append(int(graph.skip_levels.max()) * places)
    return max(tops).bit_length()


def level(
    graph: QuantGraph, forms: list[Form], digit_0: Value, digit_1: Value, form: Value
) -> Value:
    """Return the level of a code of one of ``forms``; ``form`` is its place among all forms."""
    level: Value = Const(0, 0)
    for at, other in enumerate(forms):
        decoded = _decode(graph, other, digit_0, digit_1)
        place = operand_forms(graph).index(other)
        level = Mux(form == place, decoded, level) if at else decoded
    return level


def _decode(graph: QuantGraph, form: Form, digit_0: Value, digit_1: Value) -> Value:
    parts, is_detailed = form
    bits = level_bits(graph, [form])
    if is_detailed:
        # modulo 2**bits is exact: no code that a tensor may hold stands for less than 0
        tables = (graph.detail_tables % (1 << bits)).tolist()
        return (lookup(tables[0], digit_0, bits) + lookup(tables[1], digit_1, bits))[:bits]
    levels = graph.skip_levels.tolist()
    width = max(levels).bit_length()
    level_0 = lookup(levels, digit_0, width)
    if parts == 1:
        return level_0
    return ((level_0 << graph.part_shift) + lookup(levels, digit_1, width))[:bits]
