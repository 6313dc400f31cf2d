"""Rewrites of a simplified ONNX network into fewer kinds of operators, before any becomes a node.

What the network computes stays as it is, and labels are those that the user knows.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hwquant.importer.graph import OnnxGraph, OnnxNode


def normalize(graph: OnnxGraph) -> OnnxGraph:
    """Write operators that are combinations of others as those.

    Sum, and Sub of two tensors, become Add; ReduceSum becomes ReduceMean times the number of its
    operands; PRelu that is no LeakyRelu, with slopes ``s``, ``s * x + (1 - s) * relu(x)``; and the
    pieces that LayerNormalization is written in before opset 17, one operator.
    """
    made = _Rewritten(graph)
    for node in graph.nodes:
        made.rewrite(node)
    nodes = _live(made.nodes, graph.output)
    return replace(graph, nodes=nodes, constants=made.constants, shapes=made.shapes)


def _live(nodes: Sequence[OnnxNode], output: str) -> tuple[OnnxNode, ...]:
    """Leave out what the output does not need."""
    needed, live = {output}, list[OnnxNode]()
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            live.append(node)
    return tuple(reversed(live))


class _Rewritten:
    """The network so far."""

    def __init__(self, graph: OnnxGraph) -> None:
        self.nodes: list[OnnxNode] = []
        self.constants = dict(graph.constants)
        self.shapes = dict(graph.shapes)
        self.taken = {node.name for node in graph.nodes}
        self.makers = {node.outputs[0]: node for node in graph.nodes}

    def rewrite(self, node: OnnxNode) -> None:
        first, *others = node.inputs or ("",)
        match node.op:
            case "Sum" if not others:
                self._last(node, "Identity", first)
            case "Sum":
                for other in others[:-1]:
                    first = self._before(node, "Add", first, other)
                self._last(node, "Add", first, others[-1])
            case "Sub" if not self.constants.keys() & {first, *others}:
                self._last(node, "Add", first, self._before(node, "Neg", *others))
            case "ReduceSum" if self.shapes.keys() >= {first, node.outputs[0]}:
                before, after = (math.prod(self.shapes[name]) for name in (first, node.outputs[0]))
                mean = f"{node.outputs[0]}/mean"
                self.nodes.append(
                    replace(node, op="ReduceMean", name=self._name(node), outputs=(mean,))
                )
                self.shapes[mean] = self.shapes[node.outputs[0]]
                self._last(node, "Mul", mean, self._constant(node, np.array(before / after)))
            case "PRelu" if others[0] in self.constants and not self._is_leaky(others[0]):
                slopes = self.constants[others[0]]
                above = self._before(node, "Relu", first)
                above = self._before(node, "Mul", above, self._constant(node, 1 - slopes))
                below = self._before(node, "Mul", first, others[0])
                self._last(node, "Add", below, above)
            case "Add" if (norm := self._layer_norm(node)) is not None:
                self.nodes.append(norm)
            case _:
                self.nodes.append(node)

    def _layer_norm(self, node: OnnxNode) -> OnnxNode | None:
        """Return the LayerNormalization that an Add is the end of, if it is."""
        scaled, bias = self._operands(node.outputs[0], "Add")
        ratio, scale = self._operands(scaled, "Mul")
        centred, root = self._operands(ratio, "Div")
        varied, _ = self._operands(root, "Sqrt")
        variance, epsilon = self._operands(varied, "Add")
        tensor, mean = self._operands(centred, "Sub")
        square = self._averaged(variance)
        base, power = self._operands(square, "Pow")
        is_power = (
            base == centred and power in self.constants and np.all(self.constants[power] == 2)
        )
        is_square = is_power or self._operands(square, "Mul") == (centred, centred)
        is_centred = tensor != "" and self._averaged(mean) == tensor
        if not (is_square and is_centred and self.constants.keys() >= {bias, scale, epsilon}):
            return None
        floats = {"epsilon": float(self.constants[epsilon].item())}
        inputs, ints = (tensor, scale, bias), {"axis": (-1,)}
        op = "LayerNormalization"
        return OnnxNode(op, node.label, node.name, inputs, node.outputs, ints, floats, {})

    def _operands(self, tensor: str, op: str) -> tuple[str, str]:
        """Operands of the ``op`` that makes a tensor, constants of sums and products last."""
        node = self.makers.get(tensor)
        if node is None or node.op != op:
            return "", ""
        first, second = (*node.inputs, "")[:2]
        is_swapped = op in ("Add", "Mul") and first in self.constants
        return (second, first) if is_swapped else (first, second)

    def _averaged(self, tensor: str) -> str:
        """Return the tensor of whose last axis this one is the mean, if it is one."""
        source, axes = self._operands(tensor, "ReduceMean")
        if source not in self.shapes:
            return ""
        given = self.constants.get(axes, np.array(self.makers[tensor].ints.get("axes", ())))
        is_last = given.tolist() in ([-1], [len(self.shapes[source]) - 1])
        return source if is_last and self.makers[tensor].integer("keepdims", 1) else ""

    def _is_leaky(self, slopes: str) -> bool:
        first, *others = np.unique(self.constants[slopes])
        return not others and 0 <= first <= 1

    def _last(self, node: OnnxNode, op: str, *inputs: str) -> None:
        """Let an operator compute what ``node`` did."""
        self.nodes.append(OnnxNode(op, node.label, node.name, inputs, node.outputs, {}, {}, {}))

    def _before(self, node: OnnxNode, op: str, *inputs: str) -> str:
        """Add an operator whose output has the shape of ``node``'s; return that tensor."""
        name = self._name(node)
        tensor = f"{node.outputs[0]}/{name}"
        if node.outputs[0] in self.shapes:
            self.shapes[tensor] = self.shapes[node.outputs[0]]
        self.nodes.append(OnnxNode(op, node.label, name, inputs, (tensor,), {}, {}, {}))
        return tensor

    def _constant(self, node: OnnxNode, value: npt.NDArray[Any]) -> str:
        name = f"{node.outputs[0]}/{self._name(node)}"
        self.constants[name] = value
        return name

    def _name(self, node: OnnxNode) -> str:
        count = 1
        while f"{node.name}_part{count}" in self.taken:
            count += 1
        self.taken.add(name := f"{node.name}_part{count}")
        return name
