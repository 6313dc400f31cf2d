"""Drive gateware in Amaranth's own simulator: frames through an accelerator, a unit by itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from amaranth.hdl import Signal, Value
from amaranth.lib import wiring
from amaranth.sim import Simulator

from hwquant.gateware.accelerator import Accelerator, weight_digits
from hwquant.gateware.images import weight_beats
from hwquant.ir import IntArray, QuantGraph
from hwquant.scheduler.program import Schedule

SLACK = 300  # cycles beyond what the stalls explain before a run counts as hung


@dataclass
class Frames:
    """What came out of an accelerator: values ``int[N, M, H, W]`` and when things happened."""

    values: IntArray
    cycles: int  # first input beat to last output beat of the first frame
    layer_cycles: list[int] = field(default_factory=list)
    watched: list[tuple[int, ...]] = field(default_factory=list)  # a cycle, from reset on


def run_frames(
    graph: QuantGraph,
    schedule: Schedule,
    images: IntArray,
    *,
    stalls: int | None = None,
    reset_after: int | None = None,
    watch: Callable[[Accelerator], Sequence[Value]] = lambda _: (),
) -> Frames:
    """Pass frames through back to back; ``stalls`` seeds random gaps on all streams.

    ``reset_after`` asserts reset in that cycle and then starts over with the first frame. ``watch``
    names signals inside.
    """
    dut = Accelerator(graph, schedule)
    reset = Signal()
    beats = _beats(graph, schedule, images)
    weights = _weights(graph, schedule)
    out, lanes = graph.layers[-1].output, schedule.plan.lanes
    per_frame = out.height * out.width * -(-out.channels // lanes)
    rng = np.random.default_rng(stalls)
    limit = schedule.cycles * len(images) * (1 if stalls is None else 5) + SLACK
    collected: list[list[int]] = []
    seen: list[tuple[int, int]] = []  # cycle and new status
    watched: list[tuple[int, ...]] = []
    first_in = first_out = 0

    async def testbench(ctx):
        nonlocal first_in, first_out
        sent, status, quiet, cycle, done_at, waited = 0, -1, 0, 0, None, False
        fed, hungry = 0, False
        while True:
            ctx.set(reset, int(cycle == reset_after))
            if sent < len(beats):
                ctx.set(dut.i.payload, beats[sent])
            offer = sent < len(beats) and (waited or stalls is None or rng.random() < 0.6)
            accept = stalls is None or rng.random() < 0.4
            ctx.set(dut.i.valid, int(offer))
            feed = bool(weights) and (hungry or stalls is None or rng.random() < 0.5)
            if weights:
                ctx.set(dut.weights.payload, weights[fed % len(weights)])
                ctx.set(dut.weights.valid, int(feed))
            ctx.set(dut.o.ready, int(accept))
            _, _, ready, valid, values, now, taken, *inside = await ctx.tick().sample(
                dut.i.ready,
                dut.o.valid,
                dut.o.payload,
                dut.status.layer,
                dut.weights.ready if weights else dut.i.ready,
                *watch(dut),
            )
            watched.append(tuple(inside))
            if cycle == reset_after:
                sent, status, waited, fed, hungry = 0, -1, False, 0, False
                collected.clear()
                seen.clear()
                watched.clear()
                cycle += 1
                continue
            waited, hungry = offer and not ready, feed and not taken
            fed += feed and taken
            if offer and ready:
                first_in = cycle if sent == 0 else first_in
                sent += 1
            if valid and accept:
                collected.append([values[lane] for lane in range(lanes)])
                first_out = cycle if len(collected) == per_frame else first_out
                done_at = cycle if len(collected) == per_frame * len(images) else None
            if now != status:
                seen.append((cycle, now))
                status = now
            cycle += 1
            quiet = cycle - done_at if done_at is not None else 0
            if quiet > 40:
                return
            if cycle > limit + (reset_after or 0):
                raise TimeoutError(f"status {status} after {cycle} cycles, {len(collected)} beats")

    simulator = Simulator(_with_reset(dut, reset))
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    assert len(collected) == per_frame * len(images), "beats beyond the last frame"
    shape = (len(images), out.height, out.width, -1)
    values = np.array(collected).reshape(shape)[..., : out.channels].transpose(0, 3, 1, 2)
    starts = [first_in, *(cycle for cycle, _ in seen[1 : len(schedule.layers) + 2])]
    return Frames(values, first_out - first_in + 1, np.diff(starts).tolist(), watched)


def _with_reset(dut: wiring.Component, reset: Signal):
    from amaranth.hdl import ResetInserter

    return ResetInserter(reset)(dut)


def _beats(graph: QuantGraph, schedule: Schedule, images: IntArray) -> list[list[int]]:
    lanes, channels = schedule.loading.channels_per_beat, graph.input.shape[0]
    beats: list[list[int]] = []
    for image in images:
        for pixel in image.reshape(channels, -1).T:
            for start in range(0, channels, lanes):
                values = [int(v) for v in pixel[start : start + lanes]]
                beats.append(values + [0] * (lanes - len(values)))
    return beats


def _weights(graph: QuantGraph, schedule: Schedule) -> list[int]:
    """Return a frame's beats of the weight stream, if there is one."""
    if not schedule.plan.is_streamed:
        return []
    return weight_beats(graph, schedule, weight_digits(graph, schedule.plan))


def run_unit(
    dut: wiring.Component, inputs: Sequence[dict[str, object]], output: str, delay: int
) -> list[int]:
    """Feed one set of inputs a cycle; return ``output`` as it is ``delay`` cycles after each."""
    results: list[int] = []

    async def testbench(ctx):
        for cycle in range(len(inputs) + delay):
            for name, value in inputs[min(cycle, len(inputs) - 1)].items():
                ctx.set(getattr(dut, name), value)
            if cycle >= delay:
                results.append(ctx.get(getattr(dut, output)))
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    return results
