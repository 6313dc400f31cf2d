"""The activation memory: two banks, each read once and written once a cycle."""

from amaranth.hdl import Module, Mux, Signal, Value, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hwquant.gateware.component import Component


class ActivationMemory(Component):
    """Two banks of words; the schedule keeps the two readers of one layer in different banks.

    Members
    -------
    read_address, read_bank : what the sequencer reads; ``read_word`` follows a cycle later
    residual_address, residual_bank, residual_valid : the drain's read, which has its bank to itself
    write_0, write_1 : a write port a bank: ``enable``, ``address``, ``word``
    """

    def __init__(self, word_bits: int, depths: tuple[int, int]) -> None:
        self._word_bits = word_bits
        self._depths = depths
        address_bits = max(1, (max(depths) - 1).bit_length())
        write = wiring.Signature(
            {"enable": Out(1), "address": Out(address_bits), "word": Out(word_bits)}
        )
        super().__init__(
            {
                "read_address": In(address_bits),
                "read_bank": In(1),
                "read_word": Out(word_bits),
                "residual_address": In(address_bits),
                "residual_bank": In(1),
                "residual_valid": In(1),
                "residual_word": Out(word_bits),
                "write_0": In(write),
                "write_1": In(write),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        words: list[Value] = []
        for bank, (depth, write) in enumerate(
            zip(self._depths, (self.write_0, self.write_1), strict=True)
        ):
            store = memory.Memory(shape=unsigned(self._word_bits), depth=max(depth, 2), init=[])
            m.submodules[f"bank_{bank}"] = store
            write_port, read_port = store.write_port(), store.read_port(domain="sync")
            residual = self.residual_valid & (self.residual_bank == bank)
            m.d.comb += [
                write_port.en.eq(write.enable),
                write_port.addr.eq(write.address),
                write_port.data.eq(write.word),
                read_port.addr.eq(Mux(residual, self.residual_address, self.read_address)),
                read_port.en.eq(1),
            ]
            words.append(read_port.data)
        read_bank, residual_bank = Signal(), Signal()
        m.d.sync += [read_bank.eq(self.read_bank), residual_bank.eq(self.residual_bank)]
        m.d.comb += [
            self.read_word.eq(Mux(read_bank, words[1], words[0])),
            self.residual_word.eq(Mux(residual_bank, words[1], words[0])),
        ]
        return m
