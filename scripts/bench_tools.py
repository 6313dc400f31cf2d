"""Time the tools on a network: gen, the Verilator build, a simulated frame, a bare C++ loop.

python scripts/bench_tools.py ../shared/models/mlperf_ic_resnet8.onnx   # docs/reports.md
"""

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hwquant import cosim, golden, packaged
from hwquant.config import QuantConfig
from hwquant.emit import emit
from hwquant.estimate import estimate
from hwquant.fit import choose_plan
from hwquant.onnx_import import load
from hwquant.plan import Plan
from hwquant.quantize import quantize
from hwquant.toolchain import run_tool, verilator_env

LOOP = """
#include "Vtop.h"
double sc_time_stamp() { return 0; }
int main(int, char** argv) {
  Vtop top;
  top.rst = 1; top.o___05Fready = 1; top.i___05Fvalid = 1;
  for (long cycle = 0; cycle < atol(argv[1]); ++cycle) {
    if (cycle == 4) top.rst = 0;
    top.i___05Fpayload = cycle * 2654435761;
    top.clk = 1; top.eval();
    top.clk = 0; top.eval();
  }
}
"""


@contextlib.contextmanager
def timed(what: str) -> Iterator[list[float]]:
    """Print a row of the table, seconds and those of all cores together; lend the latter."""
    before, start, spent = os.times(), time.perf_counter(), list[float]()
    yield spent
    passed = time.perf_counter() - start
    spent.append(sum(now - then for now, then in zip(os.times()[:4], before[:4], strict=True)))
    print(f"| {what} | {passed:.1f} | {spent[0]:.1f} |", flush=True)


def loop_seconds(build: Path, rtl: Path, cycles: int) -> float:
    """Drive the model that cocotb drives from a C++ loop, frame after frame."""
    (build / "loop.cpp").write_text(LOOP)
    include = Path(verilator_env()["VERILATOR_ROOT"]) / "include"
    folders = [f"-I{folder}" for folder in (build, include, include / "vltstd")]
    objects = [str(file) for found in ("*.a", "verilated*.o") for file in build.glob(found)]
    command = ["g++", "-O2", "-std=c++20", *folders, "loop.cpp", *objects, "-pthread", "-oloop"]
    run_tool(command, log=build / "loop.log", cwd=build)
    with timed("the same in a bare C++ loop") as seconds:
        run_tool([str(build / "loop"), str(cycles)], log=build / "run.log", cwd=rtl)
    return seconds[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path, default=packaged.model_path())
    parser.add_argument("--device", default="lfe5u-25f")
    parser.add_argument("--plan", default="16,16,4", help="rows,cols,lanes of what is simulated")
    parser.add_argument("--frames", type=int, default=6)
    given = parser.parse_args()
    print("| | s | CPU s |\n|---|---:|---:|")
    with tempfile.TemporaryDirectory() as name, timed(f"gen --device {given.device}"):
        graph = quantize(load(given.model), QuantConfig())
        chosen = choose_plan(graph, given.device)
        estimate(graph, emit(graph, chosen, Path(name)), given.device)
    plan = Plan(*(int(size) for size in given.plan.split(",")))
    images = np.random.default_rng(0).integers(0, 256, (given.frames, *graph.input.shape))
    values = golden.simulate(graph, images).transpose(0, 2, 3, 1).reshape(len(images), -1)
    with tempfile.TemporaryDirectory() as cold, tempfile.TemporaryDirectory() as warm:
        os.environ["CCACHE_DIR"] = str(Path(cold) / "ccache")
        for folder, what in ((cold, "cold"), (warm, "ccache")):
            program = emit(graph, plan, Path(folder))
            with timed(f"Verilator build, {what}, and a frame"):
                cosim.verify(Path(folder), images[:1], values[:1])
        with timed("a frame, built before") as of_one:
            cosim.verify(Path(warm), images[:1], values[:1])
        with timed(f"{given.frames} frames, built before") as of_all:
            assert cosim.verify(Path(warm), images, values).mismatches == 0
        cycles = (given.frames - 1) * program.cycles
        bare = loop_seconds(Path(warm) / "sim" / "build", Path(warm) / "rtl", cycles)
    with_cocotb = cycles / (of_all[0] - of_one[0])
    print(f"\n{with_cocotb:,.0f} cycles a CPU second with cocotb, {cycles / bare:,.0f} without")


if __name__ == "__main__":
    main()
