"""A model file gives back the graph that went in, and nothing else is one."""

import json
import math
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwquant import model_file
from hwquant.errors import BadInput
from hwquant.ir import MacLayer, QuantGraph
from tests.random_graphs import graphs_equal, random_graph

SEEDS = range(20)


def drawn(seed: int = 0) -> QuantGraph:
    return random_graph(np.random.default_rng(seed))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.hwq"
    model_file.save(drawn(), path)
    return path


def edit(path: Path, old: str, new: str) -> None:
    """Change the JSON of a model file, its checksum with it."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    text = members[model_file.STRUCTURE].decode()
    assert old in text
    members[model_file.STRUCTURE] = text.replace(old, new, 1).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("seed", SEEDS)
def test_load_gives_back_what_was_saved(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "model.hwq"
    model_file.save(drawn(seed), path)
    assert graphs_equal(model_file.load(path), drawn(seed)), f"seed {seed}"


def test_fields_that_have_their_default_are_left_out(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        structure = json.loads(archive.read(model_file.STRUCTURE))
    for layer, entry in zip(drawn().layers, structure["graph"]["layers"], strict=True):
        if isinstance(layer, MacLayer):
            assert ("groups" in entry) == (layer.groups > 1)
            assert ("gate" in entry) == (layer.gate is not None)
        assert ("is_detailed" in entry["output"]) == layer.output.is_detailed


def test_graphs_equal_sees_one_weight() -> None:
    graph = drawn()
    *layers, last = graph.layers
    assert isinstance(last, MacLayer)
    weights = last.weights.copy()
    weights.flat[0] ^= 1
    other = replace(graph, layers=(*layers, replace(last, weights=weights)))
    assert graphs_equal(graph, drawn())
    assert not graphs_equal(graph, other)


def test_equal_graphs_give_equal_bytes(saved: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.hwq"
    model_file.save(model_file.load(saved), again)
    assert again.read_bytes() == saved.read_bytes()


def test_nothing_but_the_model_is_left_behind(saved: Path) -> None:
    assert [path.name for path in saved.parent.iterdir()] == ["model.hwq"]


def test_failed_save_leaves_the_old_file(saved: Path) -> None:
    before = saved.read_bytes()
    bits = np.int64(drawn().act_bits)
    graph = replace(drawn(), act_bits=bits)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        model_file.save(graph, saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["model.hwq"]


def test_whole_numbers_may_stand_for_floats(tmp_path: Path) -> None:
    graph = drawn()
    path = tmp_path / "model.hwq"
    model_file.save(replace(graph, provenance=replace(graph.provenance, exponent=1)), path)
    assert model_file.load(path).provenance.exponent == 1


def test_an_infinite_norm_is_kept(saved: Path) -> None:
    assert drawn().provenance.norm == math.inf
    assert model_file.load(saved).provenance.norm == math.inf


def test_statistics_that_no_weights_have_are_refused(saved: Path) -> None:
    edit(saved, '"kurtosis": 3.125', '"kurtosis": 0.125')
    with pytest.raises(BadInput, match=r"conv: kurtosis=0.125 of weights; permitted 1 and up"):
        model_file.load(saved)


def test_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"absent\.hwq: no such file"):
        model_file.load(tmp_path / "absent.hwq")


@pytest.mark.parametrize("schema", [1, 3, 7])
def test_other_schema_is_refused(saved: Path, schema: int) -> None:
    edit(saved, '"schema": 4', f'"schema": {schema}')
    words = rf"hwq: schema {schema}; this hwquant reads schema 4: generate it anew with hwquant gen"
    with pytest.raises(BadInput, match=words):
        model_file.load(saved)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            '"kind": "MacLayer"',
            '"kind": "Residual"',
            "kind 'Residual'; permitted MacLayer, MaxPool",
        ),
        ('"act_bits": ', '"act_bits": "x', "control character"),
        ('"part_shift": ', '"part_shift": 0.', "where int belongs"),
        ('"part_shift": ', '"parts_shift": ', "no QuantGraph has the fields"),
        ('"hwquant model"', '"other model"', "format 'other model'"),
        ("skip_levels.npy", "skip_level.npy", "no item named"),
    ],
)
def test_structure_that_save_cannot_have_written_is_refused(
    saved: Path, old: str, new: str, words: str
) -> None:
    edit(saved, old, new)
    with pytest.raises(BadInput, match=f"damaged or not a hwquant model.*({words})"):
        model_file.load(saved)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    text, arrays = tmp_path / "a.txt", tmp_path / "b.npz"
    text.write_text(json.dumps({"format": model_file.FORMAT}))
    np.savez(arrays, x=np.zeros(3))
    for path in (text, arrays):
        with pytest.raises(BadInput, match="not a hwquant model"):
            model_file.load(path)


def test_truncated_file_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    for length in range(4, len(whole), 97):
        saved.write_bytes(whole[:length])
        with pytest.raises(BadInput, match="truncated"):
            model_file.load(saved)


def test_flipped_bit_never_gives_another_graph(saved: Path) -> None:
    whole = saved.read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for position in rng.integers(0, len(whole), 200):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(0, 8))
        saved.write_bytes(damaged)
        try:
            assert graphs_equal(model_file.load(saved), drawn()), f"byte {position}"
        except BadInput:
            refused += 1
    assert refused > 100
