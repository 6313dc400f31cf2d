"""The cocotb bench that runs inside the simulator: beats in, beats and cycles out.

``cosim`` starts it and judges what it saves. It reads ``job.json`` and ``input.hex`` in the folder
named by ``+job=``, and the weights if the job names any, and leaves ``output.hex`` and
``result.json`` there or, if the DUT breaks the stream contract or hangs, ``failure.txt``. A
``.hex`` file holds one beat a line.

A cycle is the number of a rising edge of ``clk``. Long phases without beats cost no Python time:
the bench sleeps on ``ready`` and ``valid`` of the streams and ``status__layer``, not on the clock.
"""

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.simtime import get_sim_time
from cocotb.triggers import ClockCycles, First, RisingEdge, ValueChange

_PERIOD = 2  # simulator steps; a cycle has no length here
_RESET_CYCLES = 4
_QUIET_CYCLES = 200  # nothing may come for so long after the last beat


class BenchError(AssertionError):
    """The DUT hangs, says too much, or breaks the stream contract."""


@dataclass
class Gaps:
    """Seeded stalls: how many cycles to wait before the next beat; none without a generator."""

    generator: random.Random | None

    def draw(self) -> int:
        """Mostly no gap, often a short one, sometimes one that fills every buffer."""
        if self.generator is None or self.generator.random() < 0.6:
            return 0
        return self.generator.randint(1, 3 if self.generator.random() < 0.95 else 100)


@dataclass
class Trace:
    """What was seen: payloads out, the cycle of every beat, the changes of ``status__layer``.

    ``taken`` and ``weights`` are beats in, ``given`` beats out.
    """

    taken: list[int] = field(default_factory=list[int])
    weights: list[int] = field(default_factory=list[int])
    payloads: list[int] = field(default_factory=list[int])
    given: list[int] = field(default_factory=list[int])
    layers: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])


def _cycle() -> int:
    return int(get_sim_time("step")) // _PERIOD


async def _send(dut: Any, port: str, beats: list[int], taken: list[int], gaps: Gaps) -> None:
    """Offer beats on a stream, and note in ``taken`` the cycles of those that are taken."""
    payload, valid, is_ready = (
        getattr(dut, f"{port}__{name}") for name in ("payload", "valid", "ready")
    )
    clock, ready = RisingEdge(dut.clk), RisingEdge(is_ready)
    for beat in beats:
        gap = gaps.draw()
        if gap:
            valid.value = 0
            await ClockCycles(dut.clk, gap)
        payload.value = beat
        valid.value = 1
        await clock
        while not is_ready.value:
            await ready
            await clock
        taken.append(_cycle())
    valid.value = 0


async def _receive(dut: Any, count: int, trace: Trace, gaps: Gaps) -> None:
    clock, valid = RisingEdge(dut.clk), RisingEdge(dut.o__valid)
    dut.o__ready.value = 1
    while len(trace.payloads) < count:
        await clock
        while not dut.o__valid.value:
            await valid
            await clock
        trace.payloads.append(int(dut.o__payload.value))
        trace.given.append(_cycle())
        gap = gaps.draw()
        if gap:
            dut.o__ready.value = 0
            await _hold(dut, gap)
            dut.o__ready.value = 1


async def _hold(dut: Any, gap: int) -> None:
    """Let ``gap`` cycles pass without ready: a beat on offer must stay as it is."""
    clock = RisingEdge(dut.clk)
    offered: int | None = None
    for _ in range(gap):
        await clock
        seen = int(dut.o__payload.value) if dut.o__valid.value else None
        if offered is not None and seen != offered:
            change = "o__valid fell" if seen is None else "o__payload changed"
            raise BenchError(f"{change} before the beat was taken")
        offered = seen


async def _watch_layer(dut: Any, trace: Trace) -> None:
    change = ValueChange(dut.status__layer)
    while True:
        trace.layers.append((_cycle() + 1, int(dut.status__layer.value)))  # seen by the next edge
        await change


async def _guard(dut: Any, limit: int, layers: list[str], trace: Trace) -> None:
    """Fail once no beat has moved, in or out, for ``limit`` cycles."""
    seen = -1
    while seen != (seen := sum(map(len, (trace.taken, trace.weights, trace.payloads)))):
        await ClockCycles(dut.clk, limit)
    layer = int(dut.status__layer.value)
    name = layers[layer] if layer < len(layers) else "which does not exist"
    raise BenchError(
        f"no beat for {limit} cycles in layer {layer} ({name}), "
        f"after {len(trace.taken)} beats in and {len(trace.payloads)} out"
    )


async def _reset(dut: Any, inputs: list[str]) -> None:
    dut.rst.value = 1
    for port in inputs:
        getattr(dut, f"{port}__valid").value = 0
        getattr(dut, f"{port}__payload").value = 0
    dut.o__ready.value = 0
    await ClockCycles(dut.clk, _RESET_CYCLES)
    dut.rst.value = 0


async def _stay_quiet(dut: Any) -> None:
    await RisingEdge(dut.clk)
    if not dut.o__valid.value:
        await First(RisingEdge(dut.o__valid), ClockCycles(dut.clk, _QUIET_CYCLES))
    if dut.o__valid.value:
        raise BenchError("o__valid after the last expected beat")


async def _run(
    dut: Any, job: dict[str, Any], beats: list[int], weights: list[int], stop_after: int | None
) -> Trace:
    """Reset, then pass all frames, or leave off after ``stop_after`` cycles."""
    await _reset(dut, ["i", "weights"] if weights else ["i"])
    trace = Trace()
    seed = job["stalls"]
    gaps = [Gaps(None if seed is None else random.Random(3 * seed + side)) for side in range(3)]
    tasks = [
        cocotb.start_soon(_receive(dut, job["output_beats"], trace, gaps[0])),
        cocotb.start_soon(_guard(dut, job["limit"], job["layers"], trace)),
        cocotb.start_soon(_send(dut, "i", beats, trace.taken, gaps[1])),
        cocotb.start_soon(_watch_layer(dut, trace)),
    ]
    if weights:
        feed = _send(dut, "weights", weights, trace.weights, gaps[2])
        tasks.append(cocotb.start_soon(feed))
    ends = [task.complete for task in tasks[:2]]
    if stop_after is None:
        await First(*ends)
    else:
        await First(ClockCycles(dut.clk, stop_after), *ends)
    for task in tasks:
        if task.done():
            task.result()  # raises what the task raised
        else:
            task.cancel()
    if stop_after is None:
        for taken, offered in ((trace.taken, beats), (trace.weights, weights)):
            if len(taken) < len(offered):
                raise BenchError(f"all beats out after {len(taken)} of {len(offered)} in")
        await _stay_quiet(dut)
    return trace


def _read_beats(file: Path) -> list[int]:
    return [int(line, 16) for line in file.read_text().split()]


@cocotb.test()
async def pass_frames(dut: Any) -> None:
    """Drive the frames of the job and save what comes out."""
    folder = Path(str(cocotb.plusargs["job"]))
    job = json.loads((folder / "job.json").read_text())
    beats = _read_beats(folder / "input.hex")
    frames, file = int(job["frames"]), job["weights"]
    weights = list[int]() if file is None else _read_beats(Path(file)) * frames
    Clock(dut.clk, _PERIOD, unit="step", impl="gpi").start(start_high=False)
    try:
        if job["reset_after"] is not None:
            await _run(dut, job, beats, weights, job["reset_after"])
        trace = await _run(dut, job, beats, weights, None)
    except BenchError as failure:
        (folder / "failure.txt").write_text(str(failure))
        raise
    (folder / "output.hex").write_text("".join(f"{beat:x}\n" for beat in trace.payloads))
    result = {"taken": trace.taken, "given": trace.given, "layers": trace.layers}
    (folder / "result.json").write_text(json.dumps(result))
