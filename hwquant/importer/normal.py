"""Rewrites of a simplified ONNX network into fewer kinds of operators, before any becomes a node.

What the network computes stays as it is, and labels are those that the user knows.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hwquant.importer.graph import OnnxGraph, OnnxNode


def normalize(graph: OnnxGraph) -> OnnxGraph:
    """Write operators that are combinations of others as those.

    Sum, and Sub of two tensors, become Add; ReduceSum becomes ReduceMean times the number of its
    operands; PRelu that is no LeakyRelu, with slopes ``s``, ``s * x + (1 - s) * relu(x)``.
    """
    made = _Rewritten(graph)
    for node in graph.nodes:
        made.rewrite(node)
    return replace(graph, nodes=tuple(made.nodes), constants=made.constants, shapes=made.shapes)


class _Rewritten:
    """The network so far."""

    def __init__(self, graph: OnnxGraph) -> None:
        self.nodes: list[OnnxNode] = []
        self.constants = dict(graph.constants)
        self.shapes = dict(graph.shapes)
        self.taken = {node.name for node in graph.nodes}

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
            case _:
                self.nodes.append(node)

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
