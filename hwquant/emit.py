"""Write a build directory: Verilog, memory images, the quantized model and ``design.json``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import assert_never

from hwquant import __version__, model_file
from hwquant.gateware.accelerator import Accelerator, create_mac_array, weight_digits
from hwquant.gateware.component import Component
from hwquant.gateware.images import weight_beats
from hwquant.gateware.shared import Library, to_rtlil
from hwquant.ir import (
    ConcatLayer,
    EmbeddingLayer,
    Layer,
    LayerNormLayer,
    MacLayer,
    MatMulLayer,
    MaxPoolLayer,
    QuantGraph,
    SoftmaxLayer,
    sources_of,
)
from hwquant.scheduler.plan import Plan, weight_word_bits
from hwquant.scheduler.program import LayerProgram, Schedule
from hwquant.scheduler.schedule import pixel_digits, schedule
from hwquant.toolchain import verilog_from_rtlil

SCHEMA = 1  # of design.json and the layout of a build directory
TOP = "accelerator"
ARRAY = f"{TOP}.mac_array"  # the module of the array inside the accelerator's Verilog
WEIGHTS = "weights.hex"  # what the weight stream carries in a frame, a beat a line


def emit(
    graph: QuantGraph,
    plan: Plan,
    directory: Path,
    *,
    progress: Callable[[str], None] | None = None,
) -> Schedule:
    """Write ``rtl/``, ``model.hwq`` and ``design.json`` into ``directory``, which exists.

    With streamed weights ``weights.hex`` too.

    The same graph and plan give the same bytes. ``progress`` hears of each step by name.

    Raises
    ------
    UnsupportedModel
        If ``schedule`` cannot place the network on ``plan``.
    """
    program = schedule(graph, plan)
    rtl = directory / "rtl"
    report = progress or _silent
    report("elaborating the accelerator")
    library = Library()
    text = to_rtlil(Accelerator(graph, program), TOP, library) + library.rtlil()
    report("writing Verilog")
    memories = verilog_from_rtlil(text, rtl / f"{TOP}.v", memories="mem")
    if plan.is_streamed:
        beats = weight_beats(graph, program, weight_digits(graph, plan))
        (directory / WEIGHTS).write_text("".join(f"{beat:x}\n" for beat in beats))
    model_file.save(graph, directory / "model.hwq")
    entry = describe(graph, program, memories)
    (directory / "design.json").write_text(json.dumps(entry, indent=2) + "\n")
    return program


def emit_array(graph: QuantGraph, plan: Plan, directory: Path) -> None:
    """Write the MAC array alone into ``directory``, as a build directory that ``synthesize`` takes.

    Raises
    ------
    UnsupportedModel
        If ``schedule`` cannot place the network on ``plan``.
    """
    array = {"top": ARRAY, "verilog": [f"{ARRAY}.v"], "macs": plan.macs_per_cycle}
    unit = create_mac_array(graph, schedule(graph, plan))
    emit_unit(unit, directory, ARRAY, mac_array=array)


def emit_unit(
    unit: Component, directory: Path, top: str = "unit", **described: object
) -> tuple[str, ...]:
    """Write a component alone into ``directory``, as a build directory that ``synthesize`` takes.

    ``described`` is what ``design.json`` says besides. Returns the images of its memories, paths
    from ``rtl/`` on.
    """
    library = Library()
    text = to_rtlil(unit, top, library) + library.rtlil()
    images = verilog_from_rtlil(text, directory / "rtl" / f"{top}.v", memories="mem")
    design = {"schema": SCHEMA, "top": top, "verilog": [f"{top}.v"]} | described
    (directory / "design.json").write_text(json.dumps(design, indent=2) + "\n")
    return images


def describe(graph: QuantGraph, program: Schedule, memories: tuple[str, ...]) -> dict[str, object]:
    """Return ``design.json``: files, ports, and the cycles of every step of a frame."""
    plan, out = program.plan, graph.layers[-1].output
    pixels = out.height * out.width
    beats_per_pixel = -(-out.channels // plan.lanes)
    steps = {step.name: step for step in program.layers}
    load = {"name": "load", "kind": "load", "macs": 0, "cycles": program.loading.cycles}
    return {
        "schema": SCHEMA,
        "hwquant": __version__,
        "top": TOP,
        "verilog": [f"{TOP}.v"],
        "memories": list(memories),
        "mac_array": {
            "top": ARRAY,
            "verilog": [f"{TOP}.v"],
            "macs": plan.macs_per_cycle,
        },
        "plan": {
            "device": plan.device,
            "rows": plan.rows,
            "cols": plan.cols,
            "lanes": plan.lanes,
            "macs_per_cycle": plan.macs_per_cycle,
            "stream_bits": plan.stream_bits,
            "products": plan.products,
        },
        "input": {
            "beats": program.loading.beats,
            "channels_per_beat": program.loading.channels_per_beat,
            "bits": graph.input.bits,
            "signed": graph.input.low < 0,
        },
        "output": {
            "beats": pixels * beats_per_pixel,
            "values_per_beat": plan.lanes,
            "value_bits": _value_bits(graph),
            "values": pixels * out.channels,
            "channels": out.channels,
            "pixels": pixels,
        },
        "weight_stream": _weight_stream(graph, program),
        "cycles": program.cycles,
        "layers": [load, *(_layer(graph, layer, steps.get(layer.name)) for layer in graph.layers)],
    }


def _weight_stream(graph: QuantGraph, program: Schedule) -> dict[str, int] | None:
    """Describe the stream of weights, of which the plan has the bits of a beat."""
    plan, word_bits = program.plan, weight_word_bits(program.plan, graph)
    if plan.stream_bits is None:
        return None
    return {
        "beats": program.weight_words * (word_bits // plan.stream_bits),
        "bits": program.weight_words * word_bits,
        "wait_cycles": sum(step.weight_waits for step in program.layers),
        "buffer_words": program.buffer_words,
        "word_bits": word_bits,
    }


def _layer(graph: QuantGraph, layer: Layer, step: LayerProgram | None) -> dict[str, object]:
    """Describe a layer; ``step`` is ``None`` for one that does not run, being placement alone."""
    weight_digits = layer.weights.shape[0] if isinstance(layer, MacLayer) else 0
    name = sources_of(layer)[0]
    source = graph.tensor(name)
    act_digits = source.read_parts * pixel_digits(graph, name) if weight_digits else source.parts
    return {
        "name": layer.name,
        "kind": _kind(layer),
        "macs": step.macs if step else 0,
        "cycles": step.cycles if step else 0,
        "weight_bits": weight_digits * graph.weight_bits,
        "act_bits": act_digits * graph.act_bits,
    }


def _kind(layer: Layer) -> str:
    match layer:
        case MacLayer():
            if layer.is_depthwise:
                return "depthwise"
            return "dense" if layer.output.height * layer.output.width == 1 else "conv"
        case MaxPoolLayer():
            return "maxpool"
        case ConcatLayer():
            return "concat"
        case EmbeddingLayer() | LayerNormLayer() | MatMulLayer() | SoftmaxLayer():
            raise AssertionError(f"{layer.name}: attention; the schedule refuses it")
        case _:
            assert_never(layer)


def _value_bits(graph: QuantGraph) -> int:
    last = graph.layers[-1]
    assert isinstance(last, MacLayer)
    return last.value_bits


def _silent(step: str) -> None:
    """Report nothing."""
