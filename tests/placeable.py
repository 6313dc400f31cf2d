"""Random networks that plans take: what ``schedule`` refuses is drawn again."""

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np

from hwquant.errors import UnsupportedModel
from hwquant.ir import INPUT, ConcatLayer, Layer, MacLayer, MaxPoolLayer, Pads, Pair, QuantGraph
from hwquant.scheduler.plan import Plan
from hwquant.scheduler.program import LayerProgram, Schedule
from hwquant.scheduler.schedule import schedule
from tests.random_graphs import Drawing, Limits, random_graph


def placeable_graph(
    rng: np.random.Generator, limits: Limits, *plans: Plan, wants: Collection[str] = ()
) -> QuantGraph:
    """Draw networks until all ``plans`` take one, and it has what is wanted of each.

    Refused are second operands that lie in the source's bank or that ``lanes`` does not align.
    """
    while True:
        graph = random_graph(rng, limits)
        try:
            programs = [schedule(graph, plan) for plan in plans]
        except UnsupportedModel:
            continue
        if all(set(wants) <= features(graph, program) for program in programs):
            return graph


def depthwise_graph(
    rng: np.random.Generator,
    plan: Plan,
    source: tuple[int, int, int],
    windows: Sequence[tuple[Pair, Pair, Pads]],
) -> QuantGraph:
    """Draw a chain of depthwise layers of these kernels, strides and pads that ``plan`` takes.

    They read an image of ``source`` channels, rows and columns that a dense layer makes.
    """
    channels, *size = source
    while True:
        draw = Drawing(rng, Limits(), (size[0], size[1]))
        same = ((1, 1), (1, 1), (0, 0, 0, 0), (size[0], size[1]))
        tensor = draw.add_mac(draw.mac("dense", draw.tensors[0], window=same, channels=channels))
        for at, (kernel, stride, pads) in enumerate(windows):
            height = (tensor.height + pads[0] + pads[2] - kernel[0]) // stride[0] + 1
            width = (tensor.width + pads[1] + pads[3] - kernel[1]) // stride[1] + 1
            window = (kernel, stride, pads, (height, width))
            layer = draw.mac(f"depthwise{at}", tensor, window=window, is_depthwise=True)
            tensor = draw.add_mac(layer)
        draw.last_layer()
        graph = draw.graph()
        try:
            schedule(graph, plan)
        except UnsupportedModel:
            continue
        return graph


def features(graph: QuantGraph, program: Schedule) -> set[str]:
    """Name the things about a scheduled network that small ones often lack."""
    seen = {f"{len(program.layers[0].loops.counts)} loops"}
    first = graph.layers[0]
    if program.loading.packed and isinstance(first, MacLayer):
        kind = "windows" if program.input.ring else "packed"
        seen.update({kind}, {f"{kind} groups"} if first.groups > 1 else ())
        seen.update({f"{kind} from the edge"} if program.loading.lead == (0, 0) else ())
        seen.update({f"{kind} pads"} if any(first.pads) and first.pads[0] != first.pads[1] else ())
        seen.update({f"{kind} apart"} if max(first.stride) > 1 else ())
        seen.update({f"{kind} of two digits"} if program.input.digits == 2 else ())
        seen.update({f"{kind} of digits"} if len(graph.input.tables) > 1 else ())
        seen.update({f"{kind} of lines"} if program.loading.kernel[0] > 1 else ())
        seen.update({f"{kind} of two words"} if program.input.groups > 1 else ())
        seen.update({"rows are awaited"} if program.layers[0].row_waits else ())
    for layer in graph.layers:
        seen.update({"concat"} if isinstance(layer, ConcatLayer) else ())
    for at, step in enumerate(program.layers):
        seen.update({"truncated later" if at else "truncated"} if step.loops.is_truncated else ())
        seen.update({"gaps"} if len(step.source.layout.runs) > 1 else ())
        seen.update({"gaps kept"} if len(step.out_layout.runs) > 1 else ())
        seen.update({"short tail"} if step.last_pace < step.pace else ())
        seen.update(
            {"pool after layers"} if step.kind == "maxpool" and step.source.whole != INPUT else ()
        )
        seen.update({"overlap"} if not step.flush else ())
        seen.update({"tiles"} if step.tiles > 1 < step.loops.counts[-3] else ())
        seen.update({"row of pixels"} if step.source.height == 1 < step.source.width else ())
        if isinstance(layer := step.layer, MacLayer):
            seen.update({"gate"} if layer.gate else ())
            seen.update({"tiles of a sum"} if step.tiles > 1 and layer.residual else ())
            seen.update(_details(graph, layer))
            seen.update({"depthwise"} if layer.is_depthwise and step.walk.step else ())
            pads = any(layer.pads) and graph.tensor(layer.source).pad_code.any()
            seen.update({"depthwise pads"} if layer.is_depthwise and pads else ())
            seen.update(_taps(graph, step))
    return seen


def _taps(graph: QuantGraph, step: LayerProgram) -> set[str]:
    """Name what a layer of several taps a beat asks of the buffer and the array."""
    if step.row.taps == 1:
        return set()
    seen = {"taps"}
    seen.update({"taps apart"} if step.row.gap else ())
    seen.update({"taps turn"} if step.row.turns else ())
    known = step.row.taps - 1 - step.row.lead
    seen.update(
        {"taps from pads"} if known and graph.tensor(step.layer.source).pad_code.any() else ()
    )
    seen.update({"taps in tiles"} if step.tiles > 1 else ())
    seen.update({"taps of two words"} if step.walk.count > 1 else ())
    seen.update({"taps of two digits"} if step.loops.counts[3] > 1 else ())
    seen.update({"taps of the last"} if step.output is None else ())
    return seen


def _details(graph: QuantGraph, layer: MacLayer) -> set[str]:
    """Name the roles that detailed codes have in a layer."""
    source, seen = graph.tensor(layer.source), set[str]()
    if source.is_detailed:
        seen.update({"details unread"}, {"detail pads"} if any(layer.pads) else ())
        is_pooled = isinstance(_made_by(graph, source.name), MaxPoolLayer)
        seen.update({"details pooled"} if is_pooled else ())
    if layer.operand and graph.tensor(layer.operand).is_detailed:
        seen.add("detailed gate" if layer.gate else "detailed residual")
        is_part = isinstance(_made_by(graph, layer.operand), ConcatLayer)
        seen.update({"details of a concat"} if is_part else ())
    return seen


def _made_by(graph: QuantGraph, name: str) -> Layer | None:
    return next((layer for layer in graph.layers if layer.name == name), None)


def altered_depthwise(graph: QuantGraph) -> QuantGraph:
    """Change a weight of the depthwise layer that has the most, to its own negative."""
    layers = [la for la in graph.layers if isinstance(la, MacLayer) and la.is_depthwise]
    layer = max(layers, key=lambda la: la.weights.size)
    weights = layer.weights.copy()
    weights.flat[np.abs(weights).argmax()] *= -1
    return _with(graph, layer, dataclasses.replace(layer, weights=weights))


def altered_gate(graph: QuantGraph) -> QuantGraph:
    """Move the offset of one gated channel by a quarter of the accumulators' range."""
    layer = next(la for la in graph.layers if isinstance(la, MacLayer) and la.gate)
    assert layer.gate is not None
    offset = layer.gate.offset.copy()
    offset[layer.multiplier.argmax()] += 1 << layer.acc_bits - 2
    gate = dataclasses.replace(layer.gate, offset=offset, gated_bits=layer.gate.gated_bits + 1)
    return _with(graph, layer, dataclasses.replace(layer, gate=gate))


def altered_detail(graph: QuantGraph) -> QuantGraph:
    """Have the second digit's largest step be none, which keeps all bounds."""
    tables = graph.detail_tables.copy()
    tables[1, -1] = 0
    return dataclasses.replace(graph, detail_tables=tables)


def _with(graph: QuantGraph, old: MacLayer, new: MacLayer) -> QuantGraph:
    layers = tuple(new if layer is old else layer for layer in graph.layers)
    return dataclasses.replace(graph, layers=layers)
