"""``report.json`` has the keys that other people rely on, and is written whole or not at all."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from hwquant import report
from hwquant.accuracy import Accuracy
from hwquant.effort import LayerEffort, Shares
from hwquant.errors import BadInput
from hwquant.estimate import Estimate
from hwquant.fpga.devices import Counts
from hwquant.fpga.synth import PnrResult, SynthResult
from hwquant.ir import Provenance, WeightStatistics

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
    rounding="second_order",
    ranges="reach",
    equalize=False,
    search="both",
    levels="rounded",
    norm=2.0,
    weights=(WeightStatistics("a", 12, 0.5, -0.25, 3.5),),
)
DESIGN: dict[str, Any] = {
    "schema": 1,
    "hwquant": "0.1.0",
    "input": {"bits": 8},
    "plan": {
        "device": None,
        "rows": 4,
        "cols": 4,
        "lanes": 2,
        "macs_per_cycle": 16,
        "stream_bits": None,
        "products": "lut",
    },
    "weight_stream": None,
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
EFFORT = (
    LayerEffort("load", Shares(), Shares(other=50)),
    LayerEffort("a", Shares(macs=76800, requantize=700), Shares(90, 6, 3, 0, 1)),
)
ESTIMATE = Estimate("lfe5u-25f", 1000, 900, 3, 2, 0, ())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "design.json").write_text(json.dumps(DESIGN))
    made = report.of_design(PROVENANCE, DESIGN, EFFORT, ESTIMATE, {"yosys": "0.70"})
    report.write(tmp_path, made)
    return tmp_path


def test_keys_are_those_of_the_contract(directory: Path) -> None:
    made = json.loads((directory / "report.json").read_text())
    assert list(made) == [
        "model",
        "model_sha256",
        "hwquant",
        "tools",
        "quantization",
        "weights",
        "plan",
        "weight_stream",
        "macs",
        "cycles",
        "utilisation",
        "layers",
        "effort",
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
        "estimate": "device luts ffs brams dsps sprams fits",
    }
    for section, keys in contract.items():
        assert set(keys.split()) <= set(made[section])
    for layer in made["layers"]:
        assert set(layer) == {"name", "kind", "macs", "cycles", "weight_bits", "act_bits", "effort"}
    assert [made[name] for name in ("synth", "pnr", "accuracy", "verify")] == [None] * 4


def test_utilisation_is_macs_per_cycle_and_mac(directory: Path) -> None:
    made = report.read(directory)
    assert (made["macs"], made["cycles"], made["utilisation"]) == (1200, 150, 1200 / (150 * 16))


def test_how_the_network_was_quantized_is_all_in_the_report(directory: Path) -> None:
    told = report.read(directory)["quantization"]
    kept = dataclasses.asdict(PROVENANCE)
    elsewhere = {"model", "model_sha256", "hwquant", "layout", "weights"}
    assert told == {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in kept.items()
        if name not in elsewhere
    }


def test_the_largest_error_as_norm_is_a_word_because_json_has_no_infinity() -> None:
    made = report.of_network(dataclasses.replace(PROVENANCE, norm=math.inf))
    assert made["quantization"]["norm"] == "inf"
    json.dumps(made, allow_nan=False)


def test_distributions_of_weights_need_no_hardware() -> None:
    assert report.of_network(PROVENANCE)["weights"] == [
        {"layer": "a", "count": 12, "std": 0.5, "skewness": -0.25, "kurtosis": 3.5}
    ]


def test_effort_of_the_frame_is_the_sum_of_the_layers(directory: Path) -> None:
    made = json.loads((directory / "report.json").read_text())
    layers, frame = made["layers"], made["effort"]
    for cost in ("ace", "cycles"):
        for part, whole in frame[cost].items():
            assert whole == sum(layer["effort"][cost][part] for layer in layers)
    assert frame["cycles"] == {
        "macs": 90,
        "requantize": 6,
        "activation": 3,
        "pool": 0,
        "other": 51,
        "total": made["cycles"],
    }
    assert frame["ace"]["total"] == 77500


def test_a_report_of_a_version_without_a_section_is_refused_by_its_name(directory: Path) -> None:
    made = json.loads((directory / "report.json").read_text())
    del made["weights"], made["effort"]
    (directory / "report.json").write_text(json.dumps(made))
    with pytest.raises(BadInput, match=r"report\.json: has no effort, weights, .* gen again"):
        report.read(directory)


def test_sections_have_the_keys_of_the_contract() -> None:
    counts = Counts(luts=640, carries=1, ffs=2, brams=3, dsps=4)
    synth = report.synth_section(SynthResult("lfe5u-25f", "yosys 0.70", counts, counts, 16))
    keys = {"device", "tool", "luts", "carries", "ffs", "brams", "dsps", "sprams", "mac_array"}
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
    made = report.of_design(PROVENANCE, DESIGN, EFFORT, short, {})
    assert made["estimate"] is not None
    assert made["estimate"]["fits"] is False
    assert made["estimate"]["shortages"] == ["3 BRAMs of 2"]
