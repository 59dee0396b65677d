# amaranth: UnusedElaboratable=no
# (a block that is placed as an instance of a shared module only lends its ports)
"""Accelerator: the core on its buses. The top of the design; wiring, and which unit's error counts."""

from amaranth import Cat, ClockDomain, ClockSignal, Module, Mux, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from sliceforge.gen.dataflow import Dataflow
from sliceforge.gen.errors import ErrorCode
from sliceforge.gen.registers import REGISTER_SPACE
from sliceforge.hw.axi import axi_lite_slave, axi_read_master, axi_write_master, connect_ports
from sliceforge.hw.burst_writer import BurstWriter
from sliceforge.hw.core import Core
from sliceforge.hw.counters import Counters
from sliceforge.hw.descriptor_unit import DescriptorUnit
from sliceforge.hw.hierarchy import place
from sliceforge.hw.image_writer import most_image_beats
from sliceforge.hw.load_unit import LoadUnit
from sliceforge.hw.parameter_unit import ParameterUnit
from sliceforge.hw.post_processing import PostProcessing
from sliceforge.hw.psum_loader import PsumLoader
from sliceforge.hw.read_arbiter import ReadArbiter
from sliceforge.hw.registers import Registers
from sliceforge.hw.sequencer import Sequencer
from sliceforge.hw.store_unit import StoreUnit, most_job_beats
from sliceforge.hw.write_arbiter import WriteArbiter

__all__ = ["Accelerator"]

_READS = 16
"""Bursts that are read at a time."""
_WRITES = 16
"""Bursts written whose answer is owed."""
_PARAMETER_BUFFER = 8
"""Beats: one row of results uses one to three words."""
_READERS = ("descriptor", "weights", "activations", "parameters", "psums")


class Accelerator(wiring.Component):
    """``Y = W @ (x_hat - zp) + bias`` for a queue of layers in memory (docs/memory-format.md).

    Parameters
    ----------
    core : dict of `Core`'s parameters. registers : the register map.
    bus_bits, address_bits : of the AXI4 master. load_buffer : beats of each load unit's buffer.
    psum_words : words of 32 bits of a tile of partial sums of 8 bits.

    Members
    -------
    s_axi_* : AXI4-Lite slave with the registers. m_axi_* : AXI4 master.
    irq : out; high while a pending bit is set and enabled.

    Domains: all that belongs to a layer is held in reset between layers. What talks to the bus is not: it
    finishes what it has begun. Tested range: docs/verification.md.
    """

    def __init__(self, *, core, registers, bus_bits, address_bits, load_buffer, psum_words):
        self.parameters = {
            "core": core, "registers": registers, "bus_bits": bus_bits, "address_bits": address_bits,
            "load_buffer": load_buffer, "psum_words": psum_words,
        }  # fmt: skip
        self._core, self._registers = core, registers
        self._bus = {"bus_bits": bus_bits, "address_bits": address_bits}
        self._load_buffer = load_buffer
        self._tile_m = core["pea_count"] * core["vector"]
        self._tile_n = core["lanes"] * core["vector"]
        self._sums = core["vector"] * core["result_lanes"]
        self._nest = {"tile_m": self._tile_m, "tile_n": self._tile_n, "k_bits": core["max_k"].bit_length()}
        self._stored = {
            **self._bus, **self._nest, "full_words": self._tile_m * self._tile_n, "narrow_words": psum_words
        }  # fmt: skip
        self._read_ports = axi_read_master("m_axi", address_bits, bus_bits)
        self._write_ports = axi_write_master("m_axi", address_bits, bus_bits)
        self._slave_ports = axi_lite_slave("s_axi", (REGISTER_SPACE - 1).bit_length())
        super().__init__({**self._slave_ports, **self._read_ports, **self._write_ports, "irq": Out(1)})

    def elaborate(self, platform):
        m = Module()
        # Between layers the units are held in reset, by a register: every layer starts from the same state.
        m.domains.layer = layer_domain = ClockDomain(local=True)

        def unit(name, component, domain="layer"):
            m.submodules[name] = place(platform, component, name, domain=domain)
            return component

        bus = self._bus
        load = {
            **bus,
            "buffer": self._load_buffer,
            "granule_bits": self._core["weight_layout"].granule_bits,
            "ways": self._core["load_ways"],
        }
        registers = unit("registers", Registers(registers=self._registers), "sync")
        sequencer = unit("sequencer", Sequencer(address_bits=bus["address_bits"]), "sync")
        arbiter = unit(
            "read_arbiter",
            ReadArbiter(**bus, readers=len(_READERS), in_flight=_READS, enough_beats=self._load_buffer),
            "sync",
        )
        images = {
            "layout": self._core["activation_layout"],
            "banks": self._core["lanes"],
            "ways": self._core["load_ways"],
        }
        most_beats = max(
            most_job_beats(self._tile_n, self._stored["full_words"], bus["bus_bits"]),
            most_image_beats(*images.values(), bus["bus_bits"]),
        )
        writer = unit("burst_writer", BurstWriter(**bus, most_beats=most_beats, in_flight=_WRITES), "sync")
        load_beat_bytes = load["granule_bits"] * load["ways"] // 8
        descriptor = unit(
            "descriptor_unit",
            DescriptorUnit(**bus, load_beat_bytes=load_beat_bytes, tile_k=self._core["weight_layout"].tile_k),
        )
        weights = unit("weights_unit", LoadUnit(**load, pass_step=self._tile_n))
        activations = unit("activations_unit", LoadUnit(**load, pass_step=self._tile_m))
        parameters = unit("parameter_unit", ParameterUnit(**bus, **self._nest, buffer=_PARAMETER_BUFFER))
        psums = unit(
            "psum_loader",
            PsumLoader(
                **self._stored,
                buffer=self._load_buffer,
                sums=self._sums,
                words=self._tile_m * self._tile_n // self._sums,
            ),
        )
        store = unit("store_unit", StoreUnit(**self._stored, sums=self._sums))
        post = unit("post_processing", PostProcessing(**bus, **self._nest, **images, sums=self._sums))
        writes = unit("write_arbiter", WriteArbiter(**bus, most_beats=most_beats))
        core = unit("core", Core(**self._core))

        m.d.comb += [
            ClockSignal("layer").eq(ClockSignal()),
            layer_domain.rst.eq(sequencer.held | ResetSignal()),  # one cycle of reset is enough
            writer.drop.eq(sequencer.held),
        ]
        connect_ports(m, self, registers, self._slave_ports)
        connect_ports(m, self, arbiter, self._read_ports)
        connect_ports(m, self, writer, self._write_ports)

        # Of weights and activations, what the array has fewer tiles of goes first.
        eager = {"weights": core.weights_eager, "activations": core.activations_eager}
        for i, (name, reader) in enumerate(
            zip(_READERS, (descriptor, weights, activations, parameters, psums), strict=True)
        ):
            wiring.connect(m, reader.requests, getattr(arbiter, f"requests_{i}"))
            m.d.comb += [
                reader.answer.eq(getattr(arbiter, f"answer_{i}")),
                getattr(arbiter, f"eager_{i}").eq(eager.get(name, 1)),
            ]
        wiring.connect(m, weights.beats, core.weights)
        wiring.connect(m, activations.beats, core.activations)
        wiring.connect(m, parameters.biases, core.biases)
        wiring.connect(m, parameters.exponents, core.exponents)
        wiring.connect(m, psums.fills, core.fills)
        wiring.connect(m, parameters.scales, post.scales)
        wiring.connect(m, parameters.table, post.table)
        self._connect_writers(m, descriptor, core, store, post, writes)
        wiring.connect(m, writes.jobs, writer.jobs)
        wiring.connect(m, writes.beats, writer.beats)

        self._distribute_layer(m, sequencer, descriptor, core, weights, activations)
        self._distribute_nest(m, sequencer, descriptor, parameters, psums, store, post)
        self._distribute_requantization(m, descriptor, post)
        m.d.comb += psums.psum_written.eq(writer.psum_written)
        self._sequence(m, registers, sequencer, arbiter, writer, descriptor, core, store, post)
        m.d.comb += sequencer.unit_error.eq(
            self._first_error(
                m, sequencer, descriptor, weights, activations, parameters, psums, writer, core, post
            )
        )
        self._count(m, platform, registers, sequencer, arbiter, writer, core, weights, activations)
        return m

    def _distribute_layer(self, m, sequencer, descriptor, core, weights, activations):
        """The descriptor's fields to the core and to what loads tensors; constant while a layer runs."""
        d, layer = descriptor.descriptor, core.layers.p
        fields = ("weight_slices", "lo_bits", "frequent", "weights_resident", "activations_resident",
                  "blocks_share", "activations_span", "psum_group", "psums_resident")  # fmt: skip
        m.d.comb += [layer[name].eq(d[name]) for name in fields]
        self._set_loops(m, d, layer.loops)
        # A number of slices that the core's field has no room for must not become a legal one.
        beyond = d.weight_slices[len(layer.weight_slices) :]
        if len(beyond):
            m.d.comb += layer.weight_slices.eq(Mux(beyond.any(), 0, d.weight_slices))

        # How often an operand that does not stay on chip is read (`LoadUnit`): weights for each column of
        # tiles, activations for each row; what stays over those of a block, for each block.
        output, weight, inputs = (Signal(name=name) for name in ("output", "weight", "inputs"))
        m.d.comb += [
            output.eq(d.dataflow == Dataflow.OUTPUT_STATIONARY.value),
            weight.eq(d.dataflow == Dataflow.WEIGHT_STATIONARY.value),
            inputs.eq(d.dataflow == Dataflow.INPUT_STATIONARY.value),
            weights.passes.eq(Mux(d.weights_resident, 1, d.n)),
            weights.rounds.eq(Mux(weight & ~d.blocks_share, d.n, 1)),
            weights.block.eq(d.block),
            weights.stride.eq(0),
            activations.passes.eq(Mux(d.activations_resident | output, 1, d.m)),
            # Output stationary, a pass goes over all activations, which may be several regions.
            activations.rounds.eq(
                Mux(output, Mux(d.activations_resident, 1, d.m), Mux(inputs & ~d.blocks_share, d.m, 1))
            ),
            activations.block.eq(Mux(output, 1, d.block)),
            activations.stride.eq(d.activations_stride),
            weights.start.eq(sequencer.run),
            weights.address.eq(Cat(d.weights_address, d.weights_address_high)),
            weights.length.eq(d.weights_length),
            activations.start.eq(sequencer.run),
            activations.address.eq(Cat(d.activations_address, d.activations_address_high)),
            activations.length.eq(d.activations_length),
            descriptor.start.eq(sequencer.fetch),
            descriptor.address.eq(sequencer.descriptor_address),
        ]

    def _set_loops(self, m, d, loops):
        """The descriptor's loops."""
        m.d.comb += loops.dataflow.as_value().eq(d.dataflow)
        names = {"m": "m", "n": "n", "k": "k", "block": "block", "chunk": "k_chunk", "k_tile": "k_tile"}
        m.d.comb += [loops[name].eq(d[field]) for name, field in names.items()]

    def _distribute_nest(self, m, sequencer, descriptor, parameters, psums, store, post):
        """The descriptor's fields to what walks the loops around the core."""
        d = descriptor.descriptor
        for unit in (parameters, psums, store, post):
            self._set_loops(m, d, unit.loops)
            m.d.comb += unit.start.eq(sequencer.run)
        for unit in (psums, store):
            m.d.comb += [
                unit.psum_group.eq(d.psum_group),
                unit.psums_resident.eq(d.psums_resident),
                unit.psum_address.eq(Cat(d.psum_address, d.psum_address_high)),
            ]
        m.d.comb += [
            parameters.address.eq(Cat(d.parameters_address, d.parameters_address_high)),
            parameters.exponent_words.eq(d.exponent_words),
            parameters.has_table.eq(d.requantize & d.table),
            parameters.has_scales.eq(d.requantize),
            store.results_stored.eq(~d.requantize),
        ]
        for unit in (store, post):
            m.d.comb += [
                unit.address.eq(Cat(d.output_address, d.output_address_high)), unit.stride.eq(d.output_stride)
            ]  # fmt: skip

    def _distribute_requantization(self, m, descriptor, post):
        """The descriptor's fields for what results become."""
        d = descriptor.descriptor
        m.d.comb += [
            post.zero_point.eq(d.zero_point),
            post.relu.eq(d.relu),
            post.use_table.eq(d.table),
            post.lo_bits.eq(d.next_lo_bits),
            post.frequent.eq(d.next_frequent),
            post.k_tile.eq(d.next_k_tile),
            post.length_address.eq(Cat(d.length_address, d.length_address_high)),
            post.group.eq(d.output_group),
            post.tile_rows.eq(d.output_tile_rows),
            post.tile_columns.eq(d.output_tile_columns),
        ]

    def _connect_writers(self, m, descriptor, core, store, post, writes):
        """Results go to the store unit, or, if they are requantized, to post-processing; partial sums always
        to the store unit."""
        results, to_post = core.results, Signal()
        m.d.comb += [
            to_post.eq(descriptor.descriptor.requantize & ~results.p.is_psum),
            store.results.payload.eq(results.payload),
            post.results.payload.eq(results.payload),
            store.results.valid.eq(results.valid & ~to_post),
            post.results.valid.eq(results.valid & to_post),
            results.ready.eq(Mux(to_post, post.results.ready, store.results.ready)),
        ]
        for i, unit in enumerate((store, post)):
            jobs = getattr(writes, f"jobs_{i}")
            m.d.comb += [jobs.p[name].eq(unit.jobs.p[name]) for name in ("address", "beats", "is_psum")]
            m.d.comb += [jobs.valid.eq(unit.jobs.valid), unit.jobs.ready.eq(jobs.ready)]
            wiring.connect(m, unit.beats, getattr(writes, f"beats_{i}"))

    def _sequence(self, m, registers, sequencer, arbiter, writer, descriptor, core, store, post):
        d = descriptor.descriptor
        queue_address = [registers.queue_address]
        if self._bus["address_bits"] > 32:
            queue_address.append(registers.queue_address_high)
        m.d.comb += [
            sequencer.start.eq(registers.control_start),
            sequencer.soft_reset.eq(registers.control_soft_reset),
            sequencer.queue_address.eq(Cat(queue_address)),
            sequencer.stall_limit.eq(registers.stall_limit),
            sequencer.descriptor_done.eq(descriptor.done),
            sequencer.descriptor_illegal.eq(descriptor.illegal),
            sequencer.next_valid.eq(d.next),
            sequencer.next_address.eq(Cat(d.next_address, d.next_address_high)),
            core.layers.valid.eq(sequencer.layer_valid),
            sequencer.layer_ready.eq(core.layers.ready),
            sequencer.core_done.eq(core.status.valid),
            sequencer.core_error.eq(Mux(core.status.valid, core.status.p.error, ErrorCode.NONE)),
            sequencer.stored.eq(Mux(d.requantize, post.done, store.done)),
            sequencer.bus_idle.eq(arbiter.idle & writer.idle),
            sequencer.bus_owed.eq(arbiter.owed | writer.owed),
            sequencer.bus_moves.eq(arbiter.moves | writer.moves),
            registers.status_busy.eq(sequencer.busy),
            registers.status_error_code.eq(sequencer.error),
            registers.layers_done.eq(sequencer.layers_done),
            registers.set_interrupt_pending_done.eq(sequencer.done),
            registers.set_interrupt_pending_error.eq(sequencer.failed),
            registers.set_interrupt_pending_layer.eq(sequencer.layer_ends & d.interrupt),
            # The status is only looked at: the core is reset when the layer is closed.
            core.status.ready.eq(0),
        ]
        m.d.sync += self.irq.eq(
            (registers.interrupt_pending_done & registers.interrupt_enable_done)
            | (registers.interrupt_pending_error & registers.interrupt_enable_error)
            | (registers.interrupt_pending_layer & registers.interrupt_enable_layer)
        )

    def _first_error(
        self, m, sequencer, descriptor, weights, activations, parameters, psums, writer, core, post
    ):
        """The error of a unit around the core, a cycle later; the bus's before what may follow from it."""
        error = Signal(ErrorCode)
        # Regions and images must end together, while the core runs: two cycles after a load unit's last beat
        # the core must have all it needs, and nothing may come when it has.
        unmatched = []
        for loader, complete in (
            (weights, core.weights_complete), (activations, core.activations_complete)
        ):  # fmt: skip
            ended, wrong = Signal(2), Signal()
            m.d.sync += [
                ended.eq(Cat(loader.ended, ended)),
                wrong.eq(~core.status.valid & Mux(complete, loader.beats.valid, loader.ended & ended.all())),
            ]
            unmatched.append(wrong)
        flags = (
            (descriptor.failed, ErrorCode.DESCRIPTOR_READ),
            (weights.failed, ErrorCode.WEIGHTS_READ),
            (activations.failed, ErrorCode.ACTIVATIONS_READ),
            (parameters.failed, ErrorCode.PARAMETERS_READ),
            (psums.failed, ErrorCode.PSUMS_READ),
            (writer.failed, ErrorCode.OUTPUT_WRITE),
            (weights.bad_length | unmatched[0], ErrorCode.WEIGHT_LENGTH),
            (activations.bad_length | unmatched[1], ErrorCode.ACTIVATION_LENGTH),
            (post.bad_scale, ErrorCode.ILLEGAL_SCALE),
        )
        # Not of units that are in reset: an error of theirs may come late, when the next queue begins.
        m.d.sync += error.eq(ErrorCode.NONE)
        with m.If(~sequencer.held):
            for flag, code in reversed(flags):
                with m.If(flag):
                    m.d.sync += error.eq(code)
        return error

    def _count(self, m, platform, registers, sequencer, arbiter, writer, core, weights, activations):
        def moves(stream):
            return stream.valid & stream.ready

        on = sequencer.counting
        products = core.products
        in_array = Signal()  # a layer is in the array
        with m.If(sequencer.run):
            m.d.sync += in_array.eq(1)
        with m.If(sequencer.held | core.status.valid):
            m.d.sync += in_array.eq(0)
        fetching = Signal()
        with m.If(sequencer.fetch):
            m.d.sync += fetching.eq(1)
        with m.If(sequencer.held | sequencer.layer_valid):
            m.d.sync += fetching.eq(0)
        ended = Signal()  # a layer, in the cycle before: the core still shows its status
        m.d.sync += ended.eq(sequencer.layer_ends)
        bus_bytes = self._bus["bus_bits"] // 8
        amounts = {
            "cycles": (on, 1),
            "array_cycles": (Mux(ended, core.status.p.cycles, 0), len(core.status.p.cycles)),
            "array_busy": (products != 0, 1),
            "array_stalled": (in_array & (products == 0), 1),
            "outer_products": (products, len(products)),
            "descriptor_busy": (fetching, 1),
            "weights_busy": (moves(weights.beats), 1),
            "weights_stalled": (in_array & weights.beats.ready & ~weights.beats.valid, 1),
            "activations_busy": (moves(activations.beats), 1),
            "activations_stalled": (in_array & activations.beats.ready & ~activations.beats.valid, 1),
            "store_busy": (writer.beat, 1),
            "store_stalled": (core.results.valid & ~core.results.ready, 1),
            "read_stalled": (arbiter.refused, 1),
            "bytes_read": (Mux(arbiter.beat, bus_bytes, 0), bus_bytes.bit_length()),
            "bytes_written": (Mux(writer.beat, writer.words << 2, 0), len(writer.words) + 2),
        }
        counters = Counters(amounts={name: width for name, (_, width) in amounts.items()})
        m.submodules.counters = place(platform, counters, "counters")
        m.d.comb += counters.clear.eq(sequencer.cleared)
        for name, (amount, _) in amounts.items():
            value = getattr(counters, name)
            m.d.comb += [
                getattr(counters, f"add_{name}").eq(amount),
                getattr(registers, name).eq(value[:32]),
                getattr(registers, f"{name}_high").eq(value[32:]),
            ]
