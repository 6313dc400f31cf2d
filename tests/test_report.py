"""``report.json`` has the keys that other people rely on, and is written whole or not at all."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from hwquant import report
from hwquant.accuracy import Accuracy
from hwquant.devices import Counts
from hwquant.errors import BadInput
from hwquant.estimate import Estimate
from hwquant.ir import Provenance
from hwquant.synth import PnrResult, SynthResult

PROVENANCE = Provenance(
    model="net",
    model_sha256="ab" * 32,
    hwquant="0.1.0",
    method="power",
    exponent=0.71,
    act_exponent=0.65,
    weight_bits=4,
    act_bits=4,
    edge_bits=8,
    accumulate="product",
    product_bits=7,
    activation="thresholds",
    mean=(0.0,),
    std=(1.0,),
    seconds=0.4,
    layout="NCHW",
)
DESIGN: dict[str, Any] = {
    "schema": 1,
    "hwquant": "0.1.0",
    "input": {"bits": 8},
    "plan": {"device": None, "rows": 4, "cols": 4, "lanes": 2, "macs_per_cycle": 16},
    "cycles": 150,
    "layers": [
        {"name": "load", "kind": "load", "macs": 0, "cycles": 50},
        {
            "name": "a",
            "kind": "conv",
            "macs": 1200,
            "cycles": 100,
            "weight_bits": 8,
            "act_bits": 8,
        },
    ],
}
ESTIMATE = Estimate("lfe5u-25f", 1000, 900, 3, 2, ())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "design.json").write_text(json.dumps(DESIGN))
    report.write(tmp_path, report.of_design(PROVENANCE, DESIGN, ESTIMATE, {"yosys": "0.70"}))
    return tmp_path


def test_keys_are_those_of_the_contract(directory: Path) -> None:
    made = json.loads((directory / "report.json").read_text())
    assert list(made) == [
        "model",
        "model_sha256",
        "hwquant",
        "tools",
        "quantization",
        "plan",
        "macs",
        "cycles",
        "utilisation",
        "layers",
        "estimate",
        "synth",
        "pnr",
        "accuracy",
        "verify",
    ]
    contract = {
        "quantization": "method weight_bits act_bits edge_bits exponent accumulate product_bits "
        "activation seconds",
        "plan": "device rows cols lanes macs_per_cycle",
        "estimate": "device luts ffs brams dsps fits",
    }
    for section, keys in contract.items():
        assert set(keys.split()) <= set(made[section])
    for layer in made["layers"]:
        assert set(layer) == {"name", "kind", "macs", "cycles", "weight_bits", "act_bits"}
    assert [made[name] for name in ("synth", "pnr", "accuracy", "verify")] == [None] * 4


def test_utilisation_is_macs_per_cycle_and_mac(directory: Path) -> None:
    made = report.read(directory)
    assert (made["macs"], made["cycles"], made["utilisation"]) == (1200, 150, 1200 / (150 * 16))


def test_sections_have_the_keys_of_the_contract() -> None:
    counts = Counts(luts=640, carries=1, ffs=2, brams=3, dsps=4)
    synth = report.synth_section(SynthResult("lfe5u-25f", "yosys 0.70", counts, counts, 16))
    keys = {"device", "tool", "luts", "carries", "ffs", "brams", "dsps", "mac_array"}
    assert set(synth) == keys
    assert synth["mac_array"] is not None
    assert synth["mac_array"]["luts_per_mac"] == 40
    without = report.synth_section(SynthResult("lfe5u-25f", "yosys 0.70", counts, None, 0))
    assert without["mac_array"] is None
    routed = report.pnr_section(PnrResult("lfe5u-25f", "nextpnr", 80.0, (70.0, 80.0, 90.0), 700))
    assert set(routed) == {"device", "tool", "fmax_mhz", "fmax_mhz_seeds", "logic_cells"}
    accuracy = report.accuracy_section(Accuracy("d.npz", 6, 0.5, 0.5, 1.0))
    assert set(accuracy) == {"data", "n", "float_top1", "top1", "agreement"}


def test_update_keeps_what_another_verb_wrote_meanwhile(directory: Path) -> None:
    report.update(directory, {"accuracy": {"n": 1}}, {"onnxruntime": "1"})
    made = report.update(directory, {"pnr": {"fmax_mhz": 1.0}}, {"nextpnr-ecp5": "0.11.1"})
    assert made == report.read(directory)
    assert (made["accuracy"], made["pnr"]) == ({"n": 1}, {"fmax_mhz": 1.0})
    assert set(made["tools"]) == {"yosys", "onnxruntime", "nextpnr-ecp5"}


def test_a_write_that_fails_leaves_the_report_before(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (directory / "report.json").read_text()

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        report.update(directory, {"verify": None}, {})
    assert (directory / "report.json").read_text() == before
    assert {path.name for path in directory.iterdir()} == {"design.json", "report.json"}


def test_only_directories_of_hwquant_are_build_directories(directory: Path) -> None:
    assert report.is_build_directory(directory)
    (directory / "design.json").write_text(json.dumps(DESIGN | {"schema": 99}))
    assert report.is_build_directory(directory)  # an old one may be replaced, not read
    with pytest.raises(BadInput, match=r"schema 99; this version .* reads schema 1"):
        report.read(directory)
    for text in ('{"schema": 0}', "[1]", "3", "no JSON"):
        (directory / "design.json").write_text(text)
        assert not report.is_build_directory(directory)
        with pytest.raises(BadInput):
            report.read(directory)


def test_versions_of_absent_packages_are_left_out() -> None:
    assert set(report.installed("numpy", "no-such-package")) == {"numpy"}


def test_an_estimate_with_a_shortage_does_not_fit() -> None:
    short = dataclasses.replace(ESTIMATE, shortages=("3 BRAMs of 2",))
    made = report.of_design(PROVENANCE, DESIGN, short, {})
    assert made["estimate"] is not None
    assert made["estimate"]["fits"] is False
    assert made["estimate"]["shortages"] == ["3 BRAMs of 2"]
