"""Names of layers, made of the names that exporters give to nodes."""

import re
from collections.abc import Sequence

from hwquant.ir import INPUT

_WEIGHT_OPERATORS = ("Conv", "Gemm", "MatMul")
_SCOPE_ENDS = frozenset({"conv", "conv2d", "biasadd", "gemm", "matmul", "add"})


def readable_names(operators: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Make unique lower-case identifiers: ``/layer1/layer1.0/conv1/Conv`` -> ``layer1_0_conv1``.

    What goes: the scope that all nodes share, a scope that the next part repeats (``layer1``), and
    a last part that repeats its scope (``add_1/add``) or is but the operator of a layer.
    """
    paths = [[part for part in label.lower().split("/") if part] for label in labels]
    scoped = [path for path, label in zip(paths, labels, strict=True) if "/" in label]
    while scoped and min(map(len, scoped)) > 2 and len({path[0] for path in scoped}) == 1:
        for path in scoped:
            del path[0]
    names = list[str]()
    for index, (operator, path) in enumerate(zip(operators, paths, strict=True)):
        if len(path) > 1 and (
            path[-2].startswith(path[-1])
            or (operator in _WEIGHT_OPERATORS and path[-1] in _SCOPE_ENDS)
        ):
            del path[-1]
        parts = [
            part
            for part, following in zip(path, [*path[1:], ""], strict=False)
            if not f"{following}.".startswith(f"{part}.")
        ]
        stem = re.sub(r"[^a-z0-9]+", "_", "_".join(parts)).strip("_")
        if not stem[:1].isalpha() or stem == INPUT:
            kind = operator.lower()
            stem = f"{kind}_{stem.removesuffix(kind).strip('_') or index}"
        count, name = 1, stem
        while name in names:
            count, name = count + 1, f"{stem}_{count + 1}"
        names.append(name)
    return names
