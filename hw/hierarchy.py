"""Places a block in its parent, either elaborated in line or as an instance of a shared Verilog module.

Amaranth elaborates every instance anew. The Verilog generator passes a `ModuleLibrary` as the platform:
then each distinct block is elaborated once, as a module of its own, and instantiated by name.
"""

from amaranth import ClockSignal, DomainRenamer, Instance, ResetSignal, Value
from amaranth.hdl import Const
from amaranth.lib.wiring import In

__all__ = ["ModuleLibrary", "place", "ports_of"]


def ports_of(component):
    """(name, value, flow) of each port of ``component`` that is a signal (names as in the Verilog)."""
    for path, member, value in component.signature.flatten(component):
        value = Value.cast(value)
        if not isinstance(value, Const):
            yield "__".join(map(str, path)), value, member.flow


class ModuleLibrary:
    """Collects the blocks that are to be emitted, once each.

    prefix: put before every module's name, so that two accelerators can live in one design.
    given: names of modules that are emitted elsewhere, by the names of their blocks.
    """

    def __init__(self, prefix, given=None):
        self.prefix = prefix
        self.pending = []
        self._given = given or {}
        self._parameters = {}

    def instance(self, component, name, domain):
        """An `Instance` of ``component``'s module, connected to its ports."""
        module = self._given.get(name) or self._shared(component, f"{self.prefix}_{name}")
        connections = {"i_clk": ClockSignal(domain), "i_rst": ResetSignal(domain)}
        for port, value, flow in ports_of(component):
            connections[("i_" if flow == In else "o_") + port] = value
        return Instance(module, **connections)

    def _shared(self, component, module):
        if module not in self._parameters:
            self._parameters[module] = (type(component), component.parameters)
            self.pending.append((module, component))
        elif self._parameters[module] != (type(component), component.parameters):
            raise ValueError(f"module {module} is asked for with two sets of parameters")
        return module


def place(platform, component, name, *, domain="sync"):
    """``component`` as a submodule: in line, or as an instance where the platform shares modules.

    A placed component has an attribute ``parameters`` (a dict) that tells its module from others.
    """
    if isinstance(platform, ModuleLibrary):
        return platform.instance(component, name, domain)
    return component if domain == "sync" else DomainRenamer(domain)(component)
