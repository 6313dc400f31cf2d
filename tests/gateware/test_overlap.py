"""Where layers overlap, the memories are read and written in the cycles of the slow model."""

import numpy as np
import pytest
from amaranth.hdl import Const, Value

from hwquant.gateware import accelerator
from hwquant.gateware.accelerator import Accelerator
from hwquant.gateware.activation_memory import ActivationMemory
from hwquant.ir import INPUT, Thresholds
from hwquant.scheduler.plan import Plan
from hwquant.scheduler.schedule import schedule
from tests.by_hand import mac, network, tensor
from tests.gateware_bench import run_frames
from tests.placeable import placeable_graph
from tests.random_graphs import Limits, random_images
from tests.slow_golden import run
from tests.slow_overlap import replay
from tests.test_overlap import sooner

SMALL = Limits(layers=5, channels=12, size=5, kernel=3)


@pytest.fixture
def memories(monkeypatch: pytest.MonkeyPatch) -> list[ActivationMemory]:
    """Return the activation memories of accelerators, once they are elaborated."""
    made: list[ActivationMemory] = []

    class Kept(ActivationMemory):
        def __init__(self, word_bits: int, depths: tuple[int, int]) -> None:
            super().__init__(word_bits, depths)
            made.append(self)

    monkeypatch.setattr(accelerator, "ActivationMemory", Kept)
    return made


@pytest.mark.parametrize(
    ("plan", "wants"),
    [
        (Plan(4, 4, 1), {"gate"}),
        (Plan(4, 8, 2), {"detailed residual"}),
        (Plan(2, 8, 2), {"concat", "gaps"}),
        (Plan(8, 8, 2), {"taps turn"}),
        (Plan(8, 8, 4), {"taps apart"}),
    ],
)
def test_memories_are_accessed_in_the_cycles_of_the_slow_model(
    plan: Plan, wants: set[str], memories: list[ActivationMemory]
) -> None:
    rng = np.random.default_rng(1)
    while True:
        graph = placeable_graph(rng, SMALL, plan, wants=wants)
        program = schedule(graph, plan)
        if not program.layers[0].row_waits:
            break
    images = random_images(rng, graph, 1)
    frames = run_frames(graph, program, images, watch=lambda dut: accesses(dut, memories[-1]))
    np.testing.assert_array_equal(frames.values, run(graph, images)[graph.layers[-1].name])
    start = next(cycle for cycle, seen in enumerate(frames.watched) if seen[0])
    found: list[set[tuple[int, int, int]]] = [set(), set(), set(), set()]
    for cycle, (_, *seen) in enumerate(frames.watched, -start):
        for at, events in enumerate(found):
            enable, bank, address = seen[3 * at : 3 * at + 3]
            if enable and cycle >= 0:
                events.add((cycle, bank, address))
    reads, operands, *writes = found
    wanted = replay(graph, program)
    assert reads == {(cycle, bank, address) for cycle, _, bank, address in wanted.reads}
    assert operands >= {(cycle, bank, address) for cycle, _, bank, address in wanted.operands}
    assert writes[0] | writes[1] == {(cycle, *where) for cycle, _, *where in wanted.writes}


def accesses(dut: Accelerator, memory: ActivationMemory) -> list[Value]:
    """Name the sequencer's start, and enable, bank and address of reads and writes."""
    walk, made = dut._sequencer.walk, [dut._sequencer.start]
    made += [walk.valid & ~walk.pad, walk.act_bank, walk.act_address]
    made += [memory.residual_valid, memory.residual_bank, memory.residual_address]
    for bank, write in enumerate((memory.write_0, memory.write_1)):
        made += [write.enable, Const(bank, 1), write.address]
    return made


def test_a_layer_that_starts_a_cycle_sooner_reads_what_is_not_there() -> None:
    """A pixel of a dense layer: the next one's first sum takes its last word."""
    plan, staircase = Plan(4, 4, 1), Thresholds((1, 5, 9), (0, 1, 2, 3))
    rng = np.random.default_rng(1)
    weights = rng.integers(-3, 4, (1, 8, 4, 1, 1))
    dense = mac(weights, (8, 1, 1), "dense", activation=staircase)
    last = mac(rng.integers(1, 4, (1, 4, 8, 1, 1)), (4, 1, 1), source="dense")
    graph = network(tensor(INPUT, (4, 1, 1)), [dense, last])
    program, images = schedule(graph, plan), random_images(rng, graph, 3)
    wanted = run(graph, images)["last"]
    np.testing.assert_array_equal(run_frames(graph, program, images).values, wanted)
    assert (run_frames(graph, sooner(program, 0), images).values != wanted).any()
