"""Save and load a ``QuantGraph``: a zip of its structure as JSON and of its arrays as npy.

Equal graphs give equal bytes: nothing in the file depends on the time or the machine. The JSON
follows the records of ``hwquant/ir.py`` field by field: a record names its kind, an array is the
name of its member of the zip, and a field that has its default is left out.
"""

import io
import json
import lzma
import os
import struct
import zipfile
import zlib
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, cast, get_args, get_origin, get_type_hints

import numpy as np
from numpy.lib import format as npy

from hwquant.errors import BadInput
from hwquant.ir import IntArray, QuantGraph

SCHEMA = 4  # in 3 a layer multiplied all digits of a pixel with all of a weight
FORMAT = "hwquant model"
STRUCTURE = "graph.json"
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the time stamp of every member, and the first that a zip has
UNIX = 3  # the system of every member
DAMAGE = (  # what json, zipfile and the decompressors raise on a file that is not as it was written
    BadInput,  # from a record
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def save(graph: QuantGraph, path: Path) -> None:
    """Write ``graph`` to ``path``, which then has either all of it or what it had before."""
    arrays: dict[str, IntArray] = {}
    structure = {"format": FORMAT, "schema": SCHEMA, "graph": _encode(graph, "graph", arrays)}
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with zipfile.ZipFile(unfinished, "w") as file:
            _write(file, STRUCTURE, json.dumps(structure, indent=1).encode())
            for name, array in arrays.items():
                content = io.BytesIO()
                npy.write_array(content, array, version=(1, 0), allow_pickle=False)
                _write(file, name, content.getvalue())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def load(path: Path) -> QuantGraph:
    """Read the graph that `save` wrote.

    Raises
    ------
    BadInput
        If ``path`` is absent, damaged, something else than a hwquant model, or of another schema.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            is_cut = file.read(4) == b"PK\3\4"
        raise BadInput(f"{path}: {'truncated' if is_cut else 'not a hwquant model'}")
    try:
        with zipfile.ZipFile(path) as archive:
            structure = json.loads(archive.read(STRUCTURE))
            if structure["format"] != FORMAT:
                raise ValueError(f"format {structure['format']!r}")
            if structure["schema"] == SCHEMA:
                return cast(QuantGraph, _decode(structure["graph"], QuantGraph, archive))
    except DAMAGE as error:
        raise BadInput(f"{path}: damaged or not a hwquant model ({error})") from error
    found = f"schema {structure['schema']}; this hwquant reads schema {SCHEMA}"
    raise BadInput(f"{path}: {found}: generate it anew with hwquant gen")


def _write(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    member = zipfile.ZipInfo(name, LONG_AGO)
    member.create_system = UNIX
    archive.writestr(member, content, zipfile.ZIP_DEFLATED)


# ---------------------------------------------------------------- records to JSON and back


def _encode(value: object, place: str, arrays: dict[str, IntArray]) -> object:
    """Turn a value into what JSON can say; arrays are set aside under their place in the graph."""
    if isinstance(value, np.ndarray):
        name = f"{place}.npy"
        arrays[name] = np.ascontiguousarray(value, "<i8")
        return name
    if isinstance(value, tuple):
        items = cast(tuple[object, ...], value)
        return [_encode(item, f"{place}.{i}", arrays) for i, item in enumerate(items)]
    if is_dataclass(value):
        record = {"kind": type(value).__name__}
        values = {f.name: getattr(value, f.name) for f in fields(value)}
        values = {k: v for k, v in values.items() if (k, v) not in _defaults(type(value))}
        return record | {k: _encode(v, f"{place}.{k}", arrays) for k, v in values.items()}
    return value


def _decode(value: Any, hint: Any, archive: zipfile.ZipFile) -> object:
    """Build what a field's annotation says; anything else in the JSON is a `ValueError`.

    The annotations of ``hwquant/ir.py`` are the schema, so its unions stay closed here too.
    """
    if isinstance(hint, UnionType):
        hint = _member(value, get_args(hint))
    if is_dataclass(hint):
        hints, defaults = get_type_hints(hint), {name for name, _ in _defaults(hint)}
        if not {"kind", *hints} - defaults <= set(value) <= {"kind", *hints} or (
            value["kind"] != _name(hint)
        ):
            raise ValueError(f"no {_name(hint)} has the fields {', '.join(value)}")
        build = cast(type[Any], hint)
        given = {name: kind for name, kind in hints.items() if name in value}
        return build(**{name: _decode(value[name], kind, archive) for name, kind in given.items()})
    if get_origin(hint) is np.ndarray:
        array = npy.read_array(io.BytesIO(archive.read(value)), allow_pickle=False)
        if array.dtype != np.int64:
            raise ValueError(f"{value} holds {array.dtype}")
        return array
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        if kinds[-1] is Ellipsis:
            kinds = kinds[:1] * len(value)
        return tuple(_decode(v, kind, archive) for v, kind in zip(value, kinds, strict=True))
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ValueError(f"{value!r} where {_name(hint)} belongs")
    return value


def _member(value: Any, members: tuple[Any, ...]) -> Any:
    """Choose the member of a union that a value says it is."""
    kind = _name(NoneType) if value is None else value["kind"]
    chosen = [member for member in members if _name(member) == kind]
    if not chosen:
        raise ValueError(f"kind {kind!r}; permitted {', '.join(map(_name, members))}")
    return chosen[0]


def _defaults(record: Any) -> list[tuple[str, object]]:
    """Return the fields of a record that have a default, with it."""
    return [(f.name, f.default) for f in fields(record) if f.default is not MISSING]


def _name(kind: Any) -> str:
    return cast(str, kind.__name__)
