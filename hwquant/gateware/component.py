"""The base of every unit."""

from typing import TYPE_CHECKING, Any

from amaranth.lib import wiring


class Component(wiring.Component):
    """A component whose members, made from its signature at run time, type checkers can see."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

        def elaborate(self, platform: object) -> Any: ...
