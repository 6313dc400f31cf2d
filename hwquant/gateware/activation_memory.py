"""The activation memory: two banks, each read once and written once a cycle."""

from amaranth.hdl import Module, Mux, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwquant.gateware.component import Component
from hwquant.gateware.deep_memory import READ_DELAY, add_memory
from hwquant.gateware.delay import delayed


class ActivationMemory(Component):
    """Two banks of words; the schedule keeps the two readers of one layer in different banks.

    Where layers overlap, the drain's last reads of a bank end before the next layer's first.
    No word is read and written in one cycle, but for words that no sum takes: a layer's output lies
    apart from all that the layer reads, and the next layer reads a word after it is written.

    Members
    -------
    read_address, read_bank : what the sequencer reads; ``read_word`` follows two cycles later
    residual_address, residual_bank, residual_valid : the drain's read, before others in its bank
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
            residual = self.residual_valid & (self.residual_bank == bank)
            address = Mux(residual, self.residual_address, self.read_address)
            port = write.enable, write.address, write.word
            bits = self._word_bits
            words.append(add_memory(m, f"bank_{bank}", bits, max(depth, 2), address, write=port))
        read_bank = delayed(m, self.read_bank, READ_DELAY, "read_bank")
        residual_bank = delayed(m, self.residual_bank, READ_DELAY, "residual_bank")
        m.d.comb += [
            self.read_word.eq(Mux(read_bank, words[1], words[0])),
            self.residual_word.eq(Mux(residual_bank, words[1], words[0])),
        ]
        return m
