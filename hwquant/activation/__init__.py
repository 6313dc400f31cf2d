"""Activation units as data: the exact staircase, and units that guess and then compare."""

from hwquant.activation.choice import Kind as Kind
from hwquant.activation.choice import choose_units as choose_units
from hwquant.activation.choice import fit as fit
from hwquant.activation.choice import in_words as in_words
from hwquant.activation.cost import cost as cost
from hwquant.activation.staircase import FULL_SCALE as FULL_SCALE
from hwquant.activation.staircase import function_thresholds as function_thresholds
from hwquant.activation.staircase import thresholds as thresholds
