"""Modules that stand once in the Verilog however often they are used."""

import re

from amaranth.back import rtlil  # pyright: ignore[reportAttributeAccessIssue]  # no stub
from amaranth.hdl import ClockSignal, Const, Instance, Module, ResetSignal, Value
from amaranth.hdl._ir import PortDirection
from amaranth.lib import wiring

from hwquant.gateware.component import Component

_PORT = re.compile(r"^  wire .*(input|output) +\d+ +(?:signed +)?\\(\S+)", re.MULTILINE)


class Library:
    """The platform of an emission: a definition for each distinct shared module.

    A component added with ``add_shared`` becomes an instance of the module that was elaborated for
    the first one of its name; synthesis and simulation then work on one row, not on sixteen.
    Amaranth's simulator has no platform and sees ordinary submodules.
    """

    def __init__(self) -> None:
        self._definitions: dict[str, tuple[str, list[tuple[str, str]]]] = {}

    def instance(self, name: str, component: Component) -> Instance:
        """Return an instance of module ``name``, bound to the members of ``component``."""
        if name not in self._definitions:
            text = to_rtlil(component, name, self)
            text = text.replace("attribute \\top 1\n", "attribute \\keep_hierarchy 1\n")
            top = text[text.index(f"module \\{name}\n") :]
            self._definitions[name] = (text, _PORT.findall(top[: top.index("\nend\n")]))
        _, ports = self._definitions[name]
        members = {port: value for port, value, _ in _ports(component)}
        members |= {"clk": ClockSignal(), "rst": ResetSignal()}
        bound = {f"{direction[0]}_{port}": members[port] for direction, port in ports}
        vars(component)["_MustUse__used"] = True  # or Amaranth warns that it never elaborated it
        return Instance(name, **bound)

    def rtlil(self) -> str:
        """Return the text of all definitions."""
        return "".join(text for text, _ in self._definitions.values())


def add_shared(m: Module, name: str, module: str, component: Component, platform: object) -> None:
    """Add ``component`` to ``m`` as ``name``, an instance of ``module`` if this is an emission.

    Components that are added under one ``module`` name must be equal but for their signals.
    """
    if isinstance(platform, Library):
        m.submodules[name] = platform.instance(module, component)
    else:
        m.submodules[name] = component


def to_rtlil(component: Component, name: str, library: Library) -> str:
    """Return a component as RTLIL with its members as ports; constants among them are left out."""
    ports = {port: (value, direction) for port, value, direction in _ports(component)}
    return rtlil.convert(component, name=name, platform=library, ports=ports, emit_src=False)


def _ports(component: Component) -> list[tuple[str, Value, PortDirection]]:
    ports: list[tuple[str, Value, PortDirection]] = []
    for path, member, member_value in component.signature.flatten(component):
        value = Value.cast(member_value)
        if not isinstance(value, Const):
            way = PortDirection.Input if member.flow == wiring.In else PortDirection.Output
            ports.append(("__".join(str(part) for part in path), value, way))
    return ports
