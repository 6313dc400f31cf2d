"""What goes from the sequencer to the memories and on to the array."""

from amaranth.lib import wiring
from amaranth.lib.wiring import Out


class Walk(wiring.Signature):
    """What the sequencer asks of the memories in one cycle, with the flags that go with the data.

    Members
    -------
    valid, act_address, act_bank, weight_address : the read
    first, shift, last : the place in the sum, see ``array_beat``
    digit : which digit of a max pool's word this is
    pad : the position lies outside the image
    pad_word : what is read there

    Where layers are walked column by column, too:

    fill : the column has no sum: this is no beat
    turn : the column is the next row's: for the sum it is padding
    push, tap_address, edge : see ``TapBuffer``
    """

    def __init__(self, act_bits: int, weight_bits: int, word_bits: int, tap_bits: int) -> None:
        columns = {name: Out(1) for name in ("fill", "turn", "push", "edge")}
        columns["tap_address"] = Out(tap_bits)
        super().__init__(
            {
                "valid": Out(1),
                "act_address": Out(act_bits),
                "act_bank": Out(1),
                "weight_address": Out(weight_bits),
                "first": Out(1),
                "shift": Out(1),
                "last": Out(1),
                "digit": Out(1),
                "pad": Out(1),
                "pad_word": Out(word_bits),
            }
            | (columns if tap_bits else {})
        )
