"""Chains of elementwise operators, recognized by what they compute.

Exporters write one activation in many ways: GELU is five operators in any order of factors. So an
elementwise operator becomes no node of its own; its output stays pending until something else reads
it. Then the chain is sampled, as a function of the tensor that it starts from or of one on the way,
and compared with the functions that hwquant knows. What a chain computes decides, not how it is
written.
"""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from scipy.special import erf, expit, logit  # pyright: ignore[reportMissingTypeStubs]

from hwquant.float_graph import (
    Elu,
    FloatActivation,
    FloatAdd,
    Function,
    Gelu,
    HardSigmoid,
    HardSwish,
    HardTanh,
    LeakyRelu,
    Mish,
    Relu,
    Sigmoid,
    Silu,
    Softplus,
    Tanh,
)
from hwquant.functions import evaluate
from hwquant.importer.fold import depthwise, fold
from hwquant.importer.graph import Conversion, OnnxNode, View
from hwquant.ir import FloatArray

HANDLED = (
    "ReLU (from 0 to any ceiling), LeakyReLU with a slope between 0 and 1, PReLU, ELU, SELU, "
    "Softplus, SiLU, QuickGELU, Mish, GELU, HardSwish, HardSigmoid (slope > 0, 0 < offset < 1), "
    "HardTanh (from below to above 0, or without ceiling), Sigmoid and Tanh"
)
_FLOAT_MAX = 3.4e38  # what exporters write where they mean "no maximum"
# per 1 + |x|: ONNX rounds the constants of a chain to float32, or to float16
_TOLERANCE, _HALF_TOLERANCE = 2e-6, 1e-3
_FAR = 1e4
_GRID = np.concatenate(
    [[-_FAR, -1e3, -1e2], np.linspace(-12, 12, 2401), [1e2, 1e3, _FAR]], dtype=np.float64
)
_FIXED = (
    Softplus(),
    Silu(),
    Mish(),
    Gelu(is_tanh=False),
    Gelu(is_tanh=True),
    HardSwish(),
    Sigmoid(),
    Tanh(),
)

Curve = Callable[[FloatArray], FloatArray]


# ---------------------------------------------------------------- what waits


def waits(state: Conversion, node: OnnxNode) -> bool:
    """Let an elementwise operator wait for its reader; tell whether this is one."""
    if node.op in _UNARY:
        tensors = node.inputs[:1]
    elif node.op in _BINARY:
        tensors = tuple(tensor for tensor in node.inputs if not _is_number(state, tensor))
    else:
        return False
    roots = {state.roots.get(tensor, tensor) for tensor in tensors}
    if len(roots) != 1 or any(tensor in state.graph.constants for tensor in tensors):
        return False
    if node.op == "PRelu":
        _slope(state, node)
    if node.op == "Div" and _is_number(state, node.inputs[1]) and not _number(state, node, 1):
        node.refuse(f"Div by zero in {node.inputs[1]!r}")
    state.pending[node.outputs[0]] = node
    (state.roots[node.outputs[0]],) = roots
    return True


def _is_number(state: Conversion, tensor: str) -> bool:
    constant = state.graph.constants.get(tensor)
    return constant is not None and constant.size == 1


def _number(state: Conversion, node: OnnxNode, index: int) -> float:
    constant = state.graph.constants[node.inputs[index]]
    if constant.dtype.kind == "i":
        return float(constant.item())
    return state.weights(node, index).item()


def _slope(state: Conversion, node: OnnxNode) -> float:
    return float(state.weights(node, 1).flat[0])  # one for all, see importer.normal


def settle(state: Conversion, tensor: str) -> None:
    """Make nodes of a pending tensor, which something other than a chain reads.

    Raises
    ------
    UnsupportedModel
        If the chain computes no function that hwquant handles; in the name of its last operator.
    """
    if tensor not in state.pending or tensor in state.views:
        return
    node = state.pending[tensor]
    cuts = list(_cuts(state, tensor))
    if not any(_activate(state, node, cut, curve) for cut, curve in cuts):
        nearest, curve = cuts[-1]
        if not (
            _transform(state, node, nearest, curve)
            or any(_scale(state, node, cut, curve) for cut, curve in cuts)
            or _add(state, node)
        ):
            node.refuse(
                f"{node.op} ends a chain of operators that computes no function that hwquant "
                f"handles: {HANDLED}"
            )


def _cuts(state: Conversion, tensor: str) -> Iterator[tuple[str, Curve]]:
    """Tensors that the chain is a function of, the farthest first, with that function."""
    root = state.roots[tensor]
    between = [cut for cut in state.pending if state.roots[cut] == root and cut != tensor]
    for cut in (root, *between):
        is_alone = _sample(state, tensor, cut, _GRID) is not _UNREACHED
        if is_alone and cut not in state.folded:
            yield cut, lambda x, cut=cut: _sample(state, tensor, cut, x)


def _read(state: Conversion, node: OnnxNode, cut: str) -> View:
    """Return the view of a tensor that a chain starts from."""
    settle(state, cut)
    view = state.unpadded(node, state.views[cut])
    if cut not in node.inputs:  # what lies between is skipped, and may not be folded into it later
        view = replace(view, shared=True)
        state.views[cut] = view
    return view


def _activate(state: Conversion, node: OnnxNode, cut: str, curve: Curve) -> bool:
    found = recognize(curve, _tolerance(state))
    if found is None:
        return False
    view = _read(state, node, cut)
    made = FloatActivation(node.name, view.source, found)
    state.emit(made, node, state.shapes[view.source], view.axes, view.split)
    return True


def _transform(state: Conversion, node: OnnxNode, cut: str, curve: Curve) -> bool:
    """Fold a chain that only scales and shifts."""
    shift, top = curve(np.array([0.0, 1.0]))
    scale = top - shift
    tolerance = (abs(scale) + abs(shift)) * _TOLERANCE
    if not _is_close(curve(_GRID), scale * _GRID + shift, tolerance):
        return False
    view = _read(state, node, cut)
    channels = state.shapes[view.source][0]
    if (scale, shift) == (1, 0):
        state.show(node, view, view.axes)
    else:
        fold(state, node, view, np.full(channels, scale), np.full(channels, shift), None)
        if state.views[node.outputs[0]].source == view.source:
            state.folded.add(cut)  # its node now computes the chain's end
    return True


def _scale(state: Conversion, node: OnnxNode, cut: str, curve: Curve) -> bool:
    """Emit a function that is known but for a constant factor."""
    for factor in _factors(curve):
        found = recognize(lambda x, factor=factor: curve(x) / factor, _tolerance(state))
        if found is not None:
            view = _read(state, node, cut)
            shape = state.shapes[view.source]
            made = FloatActivation(state.fresh(f"{node.name}_unit"), view.source, found)
            state.nodes[made.name], state.shapes[made.name] = made, shape
            ones = np.ones(shape[0])
            scaled = depthwise(node.name, made.name, factor * ones, 0 * ones)
            state.emit(scaled, node, shape, view.axes, view.split)
            return True
    return False


def _factors(curve: Curve) -> Iterator[float]:
    samples = curve(np.array([1.0, 1e-2, _FAR]))
    known = (*(evaluate(function, np.ones(1)).item() for function in _FIXED), 1.0)
    candidates = (*(samples[0] / value for value in known), samples[1] / 1e-2, samples[2])
    yield from (factor for factor in candidates if math.isfinite(factor) and factor)


def _add(state: Conversion, node: OnnxNode) -> bool:
    """Emit a sum of two functions of one tensor, each with a node of its own."""
    if node.op != "Add" or any(tensor in state.graph.constants for tensor in node.inputs):
        return False
    for tensor in node.inputs:
        settle(state, tensor)
    left, right = state.view(node, 0), state.view(node, 1)
    made = FloatAdd(node.name, (left.source, right.source))
    state.emit(made, node, state.shapes[left.source], left.axes)
    return True


# ---------------------------------------------------------------- what a chain computes

_UNREACHED = np.empty(0)  # the function does not depend on the cut alone


def _sample(state: Conversion, tensor: str, cut: str, x: FloatArray) -> FloatArray:
    """Compute a pending tensor from values ``x`` of another one."""
    if tensor == cut:
        return x
    node = state.pending.get(tensor)
    if node is None:
        return _UNREACHED
    if node.op in _UNARY:
        operand = _sample(state, node.inputs[0], cut, x)
        if operand is _UNREACHED:
            return operand
        with np.errstate(all="ignore"):
            return _UNARY[node.op](state, node, operand)
    operands = list[FloatArray]()
    for index, name in enumerate(node.inputs):
        if _is_number(state, name):
            operands.append(np.full_like(x, _number(state, node, index)))
        else:
            operands.append(_sample(state, name, cut, x))
    if any(operand is _UNREACHED for operand in operands):
        return _UNREACHED
    with np.errstate(all="ignore"):
        return functools.reduce(_BINARY[node.op], operands)


def _tolerance(state: Conversion) -> float:
    return _HALF_TOLERANCE if state.is_half else _TOLERANCE


def recognize(curve: Curve, tolerance: float) -> Function | None:
    """Name the function that a curve follows, or ``None``.

    Error
    -----
    Within ``tolerance * (1 + |x|)`` on -12..12 and as far as ±10,000.
    """
    values = curve(_GRID)
    for candidate in _candidates(curve):
        if _is_close(values, evaluate(candidate, _GRID), tolerance):
            return candidate
    return None


def _candidates(curve: Curve) -> Iterator[Function]:
    yield Relu(None)
    yield from _FIXED
    lowest, minus, zero, one, far = curve(np.array([-_FAR, -1.0, 0.0, 1.0, _FAR]))
    if 0 < far < _FAR:
        yield Relu(float(far))
    if 0 < -minus < 1:
        yield LeakyRelu(float(-minus))
    if -_FAR < lowest < 0 < far:
        yield HardTanh(float(lowest), float(far) if far < _FAR else math.inf)
    if 0.5 < one < 1:
        yield Silu(float(np.float32(logit(one))))  # as exact as ONNX writes it
    if 0 < -lowest < _FAR:
        yield Elu(float(-lowest))
    # a long step tells the slope best, a short one saturates less
    steps = np.array([0.5**power for power in range(16)])
    yield from (
        HardSigmoid(float((value - zero) / step), float(zero))
        for step, value in zip(steps, curve(steps), strict=True)
        if 0 < zero < value < 1
    )


def _is_close(one: FloatArray, other: FloatArray, tolerance: float) -> bool:
    return bool(np.all(np.abs(one - other) <= tolerance * (1 + np.abs(_GRID))))


def _clip(state: Conversion, node: OnnxNode, x: FloatArray) -> FloatArray:
    low = state.number(node, "min", 1, -math.inf)
    high = state.number(node, "max", 2, math.inf)
    low, high = (math.copysign(math.inf, v) if abs(v) >= _FLOAT_MAX else v for v in (low, high))
    return np.minimum(np.maximum(x, low), high)


def _gelu(_state: Conversion, node: OnnxNode, x: FloatArray) -> FloatArray:
    return evaluate(Gelu(node.texts.get("approximate", "none") == "tanh"), x)


def _leaky_relu(_state: Conversion, node: OnnxNode, x: FloatArray) -> FloatArray:
    return np.where(x < 0, node.floats.get("alpha", 0.01) * x, x)


def _celu(_state: Conversion, node: OnnxNode, x: FloatArray) -> FloatArray:
    alpha = node.floats.get("alpha", 1.0)
    return np.maximum(x, 0) + alpha * np.expm1(np.minimum(x, 0) / alpha)


def _selu(_state: Conversion, node: OnnxNode, x: FloatArray) -> FloatArray:
    alpha, gamma = node.floats.get("alpha", 1.67326319), node.floats.get("gamma", 1.05070102)
    return gamma * evaluate(Elu(alpha), x)


def _hard_sigmoid(_state: Conversion, node: OnnxNode, x: FloatArray) -> FloatArray:
    return np.clip(node.floats.get("alpha", 0.2) * x + node.floats.get("beta", 0.5), 0, 1)


_UNARY: dict[str, Callable[[Conversion, OnnxNode, FloatArray], FloatArray]] = {
    "Relu": lambda _state, _node, x: np.maximum(x, 0),
    "Clip": _clip,
    "LeakyRelu": _leaky_relu,
    "Elu": lambda _state, node, x: evaluate(Elu(node.floats.get("alpha", 1.0)), x),
    "Celu": _celu,
    "Selu": _selu,
    "Swish": lambda _state, node, x: x * expit(node.floats.get("alpha", 1.0) * x),
    "Softplus": lambda _state, _node, x: evaluate(Softplus(), x),
    "Mish": lambda _state, _node, x: evaluate(Mish(), x),
    "PRelu": lambda state, node, x: np.where(x < 0, _slope(state, node) * x, x),
    "Sigmoid": lambda _state, _node, x: np.asarray(expit(x)),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda _state, _node, x: evaluate(HardSwish(), x),
    "Gelu": _gelu,
    "Tanh": lambda _state, _node, x: np.tanh(x),
    "Erf": lambda _state, _node, x: np.asarray(erf(x)),
    "Exp": lambda _state, _node, x: np.exp(x),
    "Neg": lambda _state, _node, x: -x,
    "Reciprocal": lambda _state, _node, x: 1 / x,
}
_BINARY: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": lambda a, b: a / b,
    "Pow": lambda a, b: a**b,
    "Max": np.maximum,
    "Min": np.minimum,
}
ELEMENTWISE = (*_UNARY, *_BINARY)
