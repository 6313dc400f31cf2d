"""The bench and its judge on a small unit with the accelerator's ports: what is right passes, what
is wrong is reported, and cycles are counted exactly.

The unit stores a frame, waits, then sends ``x * (x - 100) + table[...]`` for every channel.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from hwquant import cosim
from hwquant.errors import BadInput, ToolFailed, VerificationError
from hwquant.fpga.synth import synthesize
from hwquant.gateware.component import Component
from hwquant.gateware.shared import Library, to_rtlil
from hwquant.ir import IntArray
from hwquant.toolchain import verilog_from_rtlil

pytestmark = pytest.mark.cosim

CHANNELS, HEIGHT, WIDTH, LANES = 3, 3, 4, 2
BEATS = HEIGHT * WIDTH * 2  # two lanes carry three channels in two beats
WAIT = 37
CYCLES = (BEATS, WAIT, BEATS + 1)  # load, wait, drain with one cycle of latency
NAMES = ("load", "wait", "drain")
VALUE_BITS = 17
TABLE = [(k * 577) % 1999 - 1000 for k in range(512)]
OFFSET = 300  # the table's first entry in use


class Unit(Component):
    """Load, wait, drain. ``fault`` is one of the ways to be wrong."""

    def __init__(self, fault: str = "") -> None:
        self._fault = fault
        super().__init__(
            {
                "i": In(stream.Signature(data.ArrayLayout(8, LANES))),
                "o": Out(stream.Signature(data.ArrayLayout(signed(VALUE_BITS), LANES))),
                "status": Out(wiring.Signature({"layer": Out(2)})),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.frame = frame = memory.Memory(shape=8 * LANES, depth=BEATS, init=[])
        m.submodules.table = table = memory.Memory(shape=signed(11), depth=512, init=TABLE)
        write, read = frame.write_port(), frame.read_port()
        entry = table.read_port()
        count = Signal(range(BEATS + 2), reset_less=self._fault == "no reset")
        timer = Signal(range(WAIT))
        advance = Signal()
        last = BEATS + 1 if self._fault == "extra beat" else BEATS
        m.d.comb += [
            self.i.ready.eq(self.status.layer == 0),
            write.addr.eq(count),
            write.data.eq(self.i.payload.as_value()),
            write.en.eq(self.i.valid & self.i.ready),
            read.addr.eq(count),
            entry.addr.eq(count + OFFSET),
            advance.eq((self.status.layer == 2) & (~self.o.valid | self.o.ready) & (count != last)),
            read.en.eq(advance),
            entry.en.eq(advance | (self._fault == "unstable")),
        ]
        for lane in range(LANES):
            x = read.data.word_select(lane, 8)
            m.d.comb += self.o.payload[lane].eq(x * (x - 100) + entry.data)
        with m.Switch(self.status.layer):
            with m.Case(0), m.If(write.en):
                m.d.sync += count.eq(count + 1)
                with m.If(count == BEATS - 1):
                    m.d.sync += [count.eq(0), timer.eq(WAIT - 1), self.status.layer.eq(1)]
            with m.Case(1):
                m.d.sync += timer.eq(timer - (self._fault != "hang"))
                with m.If(timer == 0):
                    m.d.sync += self.status.layer.eq(2)
            with m.Case(2):
                with m.If(advance):
                    m.d.sync += [count.eq(count + 1), self.o.valid.eq(1)]
                with m.Elif(self.o.ready):
                    m.d.sync += self.o.valid.eq(0)
                with m.If(self.o.valid & self.o.ready & (count == last)):
                    m.d.sync += [count.eq(0), self.status.layer.eq(0)]
        return m


def emit(directory: Path, fault: str = "") -> Path:
    """Write a build directory for the unit."""
    ports = {"beats": BEATS, "channels_per_beat": LANES, "bits": 8, "signed": False}
    outputs = {"beats": BEATS, "values_per_beat": LANES, "value_bits": VALUE_BITS}
    outputs |= {"channels": CHANNELS, "pixels": HEIGHT * WIDTH, "values": CHANNELS * HEIGHT * WIDTH}
    return write(directory, Unit(fault), ports, outputs, dict(zip(NAMES, CYCLES, strict=True)))


def write(
    directory: Path,
    unit: Component,
    ports: dict[str, Any],
    outputs: dict[str, int],
    cycles: dict[str, int],
) -> Path:
    verilog = directory / "rtl" / "accelerator.v"
    text = to_rtlil(unit, "accelerator", Library())
    design = {
        "schema": 1,
        "top": "accelerator",
        "verilog": [verilog.name],
        "memories": verilog_from_rtlil(text, verilog, memories="mem"),
        "input": ports,
        "output": outputs,
        "plan": {"device": None, "products": "lut"},
        "weight_stream": None,
        "cycles": sum(cycles.values()),
        "layers": [{"name": name, "cycles": cycles[name]} for name in cycles],
    }
    (directory / "design.json").write_text(json.dumps(design))
    return directory


def frames(count: int, seed: int = 1) -> tuple[IntArray, IntArray]:
    """Random images with both extremes, and what the unit makes of them."""
    images = np.random.default_rng(seed).integers(0, 256, (count, CHANNELS, HEIGHT, WIDTH))
    images[0, :, 0, 0], images[0, :, 0, 1], images[0, :, 0, 2] = 0, 255, 50
    beat = 2 * np.arange(HEIGHT * WIDTH)[:, None] + np.arange(CHANNELS)[None] // LANES
    added = np.array(TABLE)[OFFSET + beat]
    x = images.transpose(0, 2, 3, 1).reshape(count, -1, CHANNELS)
    return images, (x * (x - 100) + added).reshape(count, -1)


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return emit(tmp_path_factory.mktemp("unit"))


def test_right_design_passes_and_its_cycles_are_counted_exactly(unit: Path) -> None:
    images, expected = frames(5)
    result = cosim.verify(unit, images, expected)
    assert (result.frames, result.mismatches, result.first) == (5, 0, None)
    assert result.cycles == sum(CYCLES)
    assert result.layer_cycles == CYCLES
    assert not result.netlist
    assert result.simulator.startswith("verilator 5.")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_right_design_passes_with_stalls_and_a_reset_midway(unit: Path, seed: int) -> None:
    images, expected = frames(4, seed)
    stalled = cosim.verify(unit, images, expected, stalls=seed, reset_midway=True)
    assert (stalled.mismatches, stalled.cycles, stalled.layer_cycles) == (0, None, None)


def test_reset_midway_leaves_no_trace_in_values_or_cycles(unit: Path) -> None:
    images, expected = frames(2)
    result = cosim.verify(unit, images, expected, reset_midway=True)
    assert (result.mismatches, result.cycles, result.layer_cycles) == (0, sum(CYCLES), CYCLES)


def test_state_that_survives_a_reset_is_found(tmp_path: Path) -> None:
    images, expected = frames(1)
    emit(tmp_path, "no reset")
    assert cosim.verify(tmp_path, images, expected).mismatches == 0  # invisible without reset
    assert any(
        is_wrong(tmp_path, images, expected, stalls=seed, reset_midway=True) for seed in range(8)
    )


def is_wrong(directory: Path, *data: IntArray, **options: Any) -> bool:
    """Whether ``verify`` finds a fault of any kind."""
    try:
        return cosim.verify(directory, *data, **options).mismatches > 0
    except VerificationError:
        return True


def test_one_wrong_expected_value_is_found_and_named(unit: Path) -> None:
    images, expected = frames(3)
    wrong = expected.copy()
    wrong[1, 17] += 1
    result = cosim.verify(unit, images, wrong)
    assert result.mismatches == 1
    assert result.first == cosim.Mismatch(1, 17, int(expected[1, 17]), int(wrong[1, 17]))


def test_model_serves_other_memory_images_and_reads_them(unit: Path, tmp_path: Path) -> None:
    images, expected = frames(2)
    assert cosim.verify(unit, images, expected).mismatches == 0
    image = emit(tmp_path) / "rtl" / "mem" / "accelerator.table.mem"
    words = image.read_text().split()
    words[OFFSET + 4] = f"{int(words[OFFSET + 4], 16) ^ 1:03x}"  # pixel 2, channels 0 and 1
    image.write_text("\n".join(words) + "\n")
    result = cosim.verify(tmp_path, images, expected)
    assert not was_compiled(tmp_path)
    assert result.mismatches == 4
    assert result.first is not None
    assert (result.first.frame, result.first.position) == (0, 6)


def was_compiled(directory: Path) -> bool:
    return (directory / "sim" / "build.log").exists()


def test_altered_rtl_is_compiled_and_found(
    unit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, expected = frames(2)
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    for kept in (1, 1):
        assert cosim.verify(unit, images, expected).mismatches == 0
        assert len(list((cache / "hwquant" / "models").iterdir())) == kept
    verilog = emit(tmp_path) / "rtl" / "accelerator.v"
    text = verilog.read_text()
    assert text.count(" * ") == LANES
    verilog.write_text(text.replace(" * ", " + "))
    assert cosim.verify(tmp_path, images, expected).mismatches > 0
    assert was_compiled(tmp_path)
    assert not was_compiled(unit)
    assert len(list((cache / "hwquant" / "models").iterdir())) == 2


def test_hang_is_reported_with_its_layer(tmp_path: Path) -> None:
    images, expected = frames(2)
    with pytest.raises(VerificationError, match=r"no beat for .* in layer 1 \(wait\), after 24 b"):
        cosim.verify(emit(tmp_path, "hang"), images, expected)


def test_a_beat_too_many_is_reported(tmp_path: Path) -> None:
    images, expected = frames(1)
    with pytest.raises(VerificationError, match="o__valid after the last expected beat"):
        cosim.verify(emit(tmp_path, "extra beat"), images, expected)


def test_payload_that_changes_under_stall_is_reported(tmp_path: Path) -> None:
    images, expected = frames(4)
    emit(tmp_path, "unstable")
    assert cosim.verify(tmp_path, images, expected).mismatches == 0  # invisible without stalls
    with pytest.raises(VerificationError, match="o__payload changed before the beat was taken"):
        cosim.verify(tmp_path, images, expected, stalls=5)


def test_verilog_that_does_not_compile_is_a_failed_tool(tmp_path: Path) -> None:
    images, expected = frames(1)
    verilog = emit(tmp_path) / "rtl" / "accelerator.v"
    verilog.write_text(verilog.read_text().replace("endmodule", "endmodul"))
    with pytest.raises(ToolFailed, match=r"Verilator: %Error: .*build\.log"):
        cosim.verify(tmp_path, images, expected)


def test_simulator_that_dies_is_a_failed_tool(tmp_path: Path) -> None:
    images, expected = frames(1)
    verilog = emit(tmp_path) / "rtl" / "accelerator.v"
    head, tail = verilog.read_text().rsplit("endmodule", 1)
    verilog.write_text(f'{head}initial $fatal(1, "dies");\nendmodule{tail}')
    with pytest.raises(ToolFailed, match="the simulator died"):
        cosim.verify(tmp_path, images, expected)


def test_images_that_do_not_fit_are_refused(unit: Path, tmp_path: Path) -> None:
    images, expected = frames(2)
    with pytest.raises(BadInput, match="make 30 beats of 2 channels, the design takes 24"):
        cosim.verify(unit, np.zeros((2, CHANNELS, 3, 5), dtype=np.int64), expected)
    with pytest.raises(BadInput, match=r"pixels 0\.\.256, the design takes 0\.\.255"):
        cosim.verify(unit, np.where(images == 255, 256, images), expected)
    with pytest.raises(BadInput, match="expected values of shape"):
        cosim.verify(unit, images, expected[:1])
    with pytest.raises(BadInput, match=r"no design\.json"):
        cosim.verify(tmp_path, images, expected)
    design = json.loads((emit(tmp_path) / "design.json").read_text())
    streamed = design | {"weight_stream": {"beats": 1}}
    (tmp_path / "design.json").write_text(json.dumps(streamed))
    with pytest.raises(BadInput, match=r"no weights\.hex: run hwquant gen again"):
        cosim.verify(tmp_path, images, expected)


def test_negative_pixels_and_values_keep_their_sign(unit: Path) -> None:
    design = cosim.read_design(unit)
    narrow = replace_port(design, signed=True)
    assert cosim.pack_input(narrow, -np.ones((1, 3, 3, 4), dtype=np.int64))[:2] == [0xFFFF, 0xFF]
    beats = [(0x1FFFF << VALUE_BITS) | 0x10000, 0x0FFFF] * 12
    assert cosim.unpack_output(design, beats)[0, :3].tolist() == [-65536, -1, 65535]


def replace_port(design: cosim.Design, *, signed: bool) -> cosim.Design:
    return {**design, "input": {**design["input"], "signed": signed}}


@pytest.mark.synth
@pytest.mark.slow
@pytest.mark.parametrize("device", ["lfe5u-25f", "ice40up5k", "xc7a35t"])
def test_netlist_passes_and_a_wrong_one_is_found(tmp_path: Path, device: str) -> None:
    synthesize(emit(tmp_path), device)
    netlist = tmp_path / "synth" / device / "netlist.v"
    images, expected = frames(3)
    result = cosim.verify(tmp_path, images, expected, netlist=netlist)
    assert (result.mismatches, result.netlist) == (0, True)
    assert (result.cycles, result.layer_cycles) == (sum(CYCLES), CYCLES)
    stalled = cosim.verify(tmp_path, images, expected, netlist=netlist, stalls=2, reset_midway=True)
    assert stalled.mismatches == 0
    text = netlist.read_text()
    broken = re.sub(r"(INIT\w*\((?:64|256|320)'h)\w+", r"\g<1>0", text)  # memories, LUT6
    assert broken != text
    netlist.write_text(broken)
    assert is_wrong(tmp_path, images, expected, netlist=netlist)


def test_netlist_without_models_is_refused(unit: Path) -> None:
    images, expected = frames(1)
    netlist = unit / "synth" / "xc7a35t" / "netlist.v"
    with pytest.raises(BadInput, match="no netlist"):
        cosim.verify(unit, images, expected, netlist=netlist)
    netlist.parent.mkdir(parents=True)
    netlist.write_text("  RAMB36E1 #(\n")
    with pytest.raises(BadInput, match="RAMB36E1 has no simulation model"):
        cosim.verify(unit, images, expected, netlist=netlist)


class MemoryUnit(Component):
    """Each beat, two addresses and a word, writes the word and reads another; one layer."""

    def __init__(self, bits: int, depth: int, enables: int) -> None:
        self._bits, self._depth, self._enables = bits, depth, enables
        super().__init__(
            {
                "i": In(stream.Signature(32)),
                "o": Out(stream.Signature(bits + 1)),
                "status": Out(wiring.Signature({"layer": Out(1)})),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        init = [first_word(k, self._bits) for k in range(self._depth)]
        m.submodules.memory = mem = memory.Memory(shape=self._bits, depth=self._depth, init=init)
        write = mem.write_port(granularity=self._bits // self._enables)
        read = mem.read_port()
        to, source, low, high = (self.i.payload.word_select(k, 8) for k in range(4))
        gap = Const(0, (self._depth - 1).bit_length() - 8)
        fire = self.i.valid & self.i.ready
        m.d.comb += [
            self.i.ready.eq(~self.o.valid | self.o.ready),
            write.addr.eq(Cat(to[:4], gap, to[4:])),
            write.data.eq(Cat(low, high, low, high, low)),
            write.en.eq(Mux(fire, high[: self._enables], 0)),
            read.addr.eq(Cat(source[:4], gap, source[4:])),
            read.en.eq(fire),
            self.o.payload.eq(read.data),
        ]
        m.d.sync += [self.o.valid.eq(fire | self.o.valid & ~self.o.ready), self.status.layer.eq(0)]
        return m


def first_word(address: int, bits: int) -> int:
    return (address * 2654435761 >> 7) & ((1 << bits) - 1)


@pytest.mark.synth
@pytest.mark.slow
@pytest.mark.parametrize(
    ("bits", "depth", "enables"),
    [(36, 512, 4), (18, 1024, 2), (9, 2048, 1), (4, 4096, 1), (2, 8192, 1), (1, 16384, 1)],
)
def test_our_model_of_the_ecp5_block_ram_is_a_memory(
    tmp_path: Path, bits: int, depth: int, enables: int
) -> None:
    count = 1000
    ports = {"beats": count, "channels_per_beat": 4, "bits": 8, "signed": False}
    outputs = {"beats": count, "values_per_beat": 1, "value_bits": bits + 1}
    outputs |= {"channels": 1, "pixels": count, "values": count}
    write(tmp_path, MemoryUnit(bits, depth, enables), ports, outputs, {"all": count + 1})
    images = np.random.default_rng(bits).integers(0, 256, (1, 4, 1, count))
    words, top = {}, (depth - 1).bit_length() - 4
    mask = (1 << bits // enables) - 1
    expected: list[int] = []
    for to, source, low, high in images[0, :, 0].T.tolist():
        target, other = ((x & 15) | (x >> 4) << top for x in (to, source))
        expected.append(words.get(other, first_word(other, bits)))
        word = low | high << 8 | low << 16 | high << 24 | low << 32
        for part in (k for k in range(enables) if high >> k & 1):
            place = mask << part * (bits // enables)
            old = words.get(target, first_word(target, bits))
            words[target] = (old & ~place) | (word & place)
    assert synthesize(tmp_path, "lfe5u-25f").design.brams == 1
    netlist = tmp_path / "synth" / "lfe5u-25f" / "netlist.v"
    values = np.array([expected])
    assert cosim.verify(tmp_path, images, values, netlist=netlist, stalls=1).mismatches == 0
