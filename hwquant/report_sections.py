"""The sections of ``report.json``, key by key; ``docs/reports.md`` says what each number means."""

from typing import Literal, TypedDict


class Quantization(TypedDict):
    """How the network was quantized; ``seconds`` it took. ``norm`` is the p of eq. 3."""

    method: str
    weight_bits: int
    act_bits: int
    edge_bits: int
    exponent: float
    act_exponent: float
    accumulate: str
    product_bits: int
    activation: str
    mean: list[float]
    std: list[float]
    seconds: float
    rounding: str
    ranges: str
    equalize: bool
    extra_macs: float
    search: str
    levels: str
    norm: float | Literal["inf"]


class WeightsSection(TypedDict):
    """The distribution of a layer's float weights; ``kurtosis`` is 3 for a normal one."""

    layer: str
    count: int
    std: float
    skewness: float
    kurtosis: float


class CostSection(TypedDict):
    """A cost by component, and the whole."""

    macs: int
    requantize: int
    activation: int
    pool: int
    other: int
    total: int


class EffortSection(TypedDict):
    """Of a frame: arithmetic computation effort, and cycles, by what the work is for."""

    ace: CostSection
    cycles: CostSection


class PlanSection(TypedDict):
    """How parallel; ``device`` is ``None`` where none was named.

    ``stream_bits`` are bits of weights a beat, ``None`` where the weights lie in a ROM.
    ``products`` are made in ``lut`` or ``dsp``.
    """

    device: str | None
    rows: int
    cols: int
    lanes: int
    macs_per_cycle: int
    stream_bits: int | None
    products: str


class WeightStreamSection(TypedDict):
    """What the weight stream carries in a frame; ``wait_cycles`` wait for it if it never stalls.

    Words of ``word_bits`` bits arrive in beats of the plan's ``stream_bits``.
    """

    beats: int
    bits: int
    wait_cycles: int
    buffer_words: int
    word_bits: int


class LayerSection(TypedDict):
    """One step of a frame; ``weight_bits`` and ``act_bits`` are of all digits that it reads."""

    name: str
    kind: str
    macs: int
    cycles: int
    weight_bits: int
    act_bits: int
    effort: EffortSection


class EstimateSection(TypedDict):
    """Cells before synthesis; ``shortages`` say why it does not fit."""

    device: str
    luts: int
    ffs: int
    brams: int
    dsps: int
    sprams: int
    fits: bool
    shortages: list[str]


class ArraySection(TypedDict):
    """Cells of the MAC array as a design of its own, without DSP blocks."""

    luts: int
    carries: int
    ffs: int
    luts_per_mac: float


class SynthSection(TypedDict):
    """Cells of the netlist after synthesis."""

    device: str
    tool: str
    luts: int
    carries: int
    ffs: int
    brams: int
    dsps: int
    sprams: int
    mac_array: ArraySection | None


class PnrSection(TypedDict):
    """Outcome of place and route; ``fmax_mhz`` is the median over the seeds."""

    device: str
    tool: str
    fmax_mhz: float
    fmax_mhz_seeds: list[float]
    logic_cells: int


class AccuracySection(TypedDict):
    """Shares of ``n`` images."""

    data: str
    n: int
    float_top1: float
    top1: float
    agreement: float


class FirstMismatch(TypedDict):
    """The first value that differs; ``output`` counts values of a frame, channel innermost."""

    frame: int
    output: int
    got: int
    expected: int


class VerifySection(TypedDict):
    """Outcome of cosimulation; ``mismatches`` is ``None`` where the hardware gave no frame.

    ``cycles`` is ``None`` with stalls. ``layer_cycles`` are those of ``layers``, as simulated.
    ``failure`` says in a sentence why the hardware differs from golden.
    """

    frames: int
    mismatches: int | None
    cycles: int | None
    netlist: bool
    simulator: str
    data: str
    stalls: int | None
    layer_cycles: list[int] | None
    first_mismatch: FirstMismatch | None
    failure: str | None


class Report(TypedDict):
    """The whole of ``report.json``."""

    model: str
    model_sha256: str
    hwquant: str
    tools: dict[str, str]
    quantization: Quantization
    weights: list[WeightsSection]
    plan: PlanSection | None
    weight_stream: WeightStreamSection | None
    macs: int | None
    cycles: int | None
    utilisation: float | None
    layers: list[LayerSection] | None
    effort: EffortSection | None
    estimate: EstimateSection | None
    synth: SynthSection | None
    pnr: PnrSection | None
    accuracy: AccuracySection | None
    verify: VerifySection | None
