"""Normalisation and convolutions of alexnet_2012, in all implementations.

    keras-alexnet benchmark operations

Forward and gradient, as bytes moved a second (at least those of x and y, or of x, dy
and dx) beside those of a copy, and as FLOP/s beside those of a matrix product. For this
device's lines of the table in `layers/implementations.py` it says which should read
otherwise here. Nothing is changed.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from keras_alexnet.benchmarks.comparison import Comparison, Work, check_outputs
from keras_alexnet.benchmarks.limits import add_limits, report_limits
from keras_alexnet.benchmarks.machine import has_gpu
from keras_alexnet.benchmarks.report import Report, Seconds, duration
from keras_alexnet.layers import grouped_conv, lrn_implementations
from keras_alexnet.layers.implementations import CHOICES, device_kind
from keras_alexnet.layers.lrn_implementations import Formula

LRN = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0}
DTYPES = ("bfloat16", "float32")
DIRECTIONS = ("forward", "gradient")
# By kind as in the table of choices; the first is what the others have to agree with.
IMPLEMENTATIONS = {
    "lrn": ("tf.nn", *lrn_implementations.IMPLEMENTATIONS),
    "grouped_conv": ("native", "split"),
    "strided_conv": grouped_conv.STRIDED_IMPLEMENTATIONS,
}
# How names end of what XLA compiles as a whole.
WHOLE = ", XLA"
# Less than that is noise.
WORTH_IT = 1.05


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation at one place in the network.

    Attributes:
        kind: A key of `IMPLEMENTATIONS`.
        layer: Its name.
        shape: Height, width and channels of its input.
        kernel: Shape of the kernel, of a convolution.
    """

    kind: str
    layer: str
    shape: tuple[int, int, int]
    kernel: tuple[int, int, int, int] | None = None

    def function(self, implementation: str) -> Callable[..., tf.Tensor]:
        """Returns what computes it, from activations and the kernel if it has one."""
        if implementation == "tf.nn":
            return tensorflow_lrn
        if self.kind == "lrn":
            return lambda x: Formula(**LRN).normalise(x, implementation)
        first = self.kind == "strided_conv"
        return lambda x, kernel: grouped_conv.grouped_convolution(
            x,
            kernel,
            groups=1 if first else 2,
            strides=4 if first else 1,
            padding="VALID" if first else "SAME",
            channels_last=True,
            implementation=implementation,
        )

    def work(self, direction: str, dtype: str, images: int) -> float:
        """Returns what one execution works on: bytes moved at least, or FLOP."""
        if self.kernel is None:
            # x and y; the gradient reads x and dy, and writes dx.
            tensors = {"forward": 2, "gradient": 3}[direction]
            return tensors * tf.as_dtype(dtype).size * images * math.prod(self.shape)
        height, products = self.shape[0], 1
        if self.kind == "strided_conv":
            height = (height - self.kernel[0]) // 4 + 1
        elif direction == "gradient":
            products = 2  # To the input and to the kernel; images need no gradient.
        return products * 2 * height**2 * math.prod(self.kernel) * images


OPERATIONS = (
    Operation("lrn", "norm1", (55, 55, 96)),
    Operation("lrn", "norm2", (27, 27, 256)),
    Operation("strided_conv", "conv1", (227, 227, 3), (11, 11, 3, 96)),
    Operation("grouped_conv", "conv2", (27, 27, 96), (5, 5, 48, 256)),
    Operation("grouped_conv", "conv4", (13, 13, 384), (3, 3, 192, 384)),
    Operation("grouped_conv", "conv5", (13, 13, 384), (3, 3, 192, 256)),
)
TINY = (
    Operation("lrn", "norm1", (3, 3, 8)),
    Operation("strided_conv", "conv1", (19, 19, 3), (11, 11, 3, 4)),
    Operation("grouped_conv", "conv2", (4, 4, 8), (3, 3, 4, 8)),
)


def run(report: Report) -> None:
    """Measures, reports, and compares with what is chosen."""
    options = report.options
    default = 2 if options.quick else 512 if has_gpu() else 64
    report.settings["batch_size"] = images = next(iter(options.batch_sizes), default)
    # Seconds of all places, infinite where an implementation is left out in one.
    totals: dict[tuple[str, ...], float] = collections.defaultdict(float)
    with Comparison(report) as comparison:
        work = add_limits(comparison)
        rates, _ = report_limits(report, work, comparison.run())
        places = TINY if options.quick else OPERATIONS
        for place, *how in itertools.product(places, DTYPES, DIRECTIONS):
            seconds = measure(report, comparison, rates, images, place, *how)
            for form in forms(place.kind):
                median = statistics.median(seconds.get(form, [math.inf]))
                totals[(place.kind, *how, form)] += median
    report.settings["choices"] = choices(totals)


def forms(kind: str) -> dict[str, tuple[str, bool]]:
    """Returns implementations and whether XLA compiles all around, by their names."""
    # On GPUs it does so with a training step.
    around = ("", WHOLE) if has_gpu() else ("",)
    names = itertools.product(IMPLEMENTATIONS[kind], around)
    return {name + whole: (name, bool(whole)) for name, whole in names}


def measure(
    report: Report,
    comparison: Comparison,
    rates: Mapping[str, float],
    images: int,
    operation: Operation,
    dtype: str,
    direction: str,
) -> Seconds:
    """Times and reports all forms of an operation; `rates` are the limits."""
    comparison.begin(case := f"{operation.layer}, {dtype}, {direction}")
    arguments = {"operation": operation, "images": images, "dtype": dtype}
    arguments["direction"] = direction
    for form, (name, xla) in forms(operation.kind).items():
        comparison.add(form, make, implementation=name, xla=xla, **arguments)
    seconds = comparison.run()
    key, unit, factor = dtype, "TFLOP/s", 1e12
    if operation.kernel is None:
        key, unit, factor = "copy", "GB/s", 1e9
    limits = {key: rates[key] / factor} if key in rates else {}
    amount = operation.work(direction, dtype, images) / factor
    report.add(case, seconds, amount, unit, limits=limits)
    return seconds


def choices(totals: Mapping[tuple[str, ...], float]) -> list[dict[str, object]]:
    """Prints and returns which lines of the table of choices would be faster how.

    Args:
        totals: Seconds by kind, dtype, direction and form.
    """
    device, rows = device_kind(tf.zeros(())), []
    lines = [one for one in CHOICES.items() if one[0][0] in IMPLEMENTATIONS]
    for ((kind, where, graph), chosen), dtype in itertools.product(lines, DTYPES):
        if where != device:
            continue
        # Graphs without compiled functions are for inference, in exports.
        plain = graph == "plain"
        form = WHOLE if device == "GPU" and not plain else ""
        seconds = {}
        for name in IMPLEMENTATIONS[kind]:
            taken = [totals[kind, dtype, x, name + form] for x in DIRECTIONS]
            total = taken[0] if plain else sum(taken)
            if math.isfinite(total) and not (plain and name.startswith("xla")):
                seconds[name] = total
        best = min(seconds, key=seconds.get, default=None)
        faster = seconds[chosen] / seconds[best] if chosen in seconds else None
        row = {"operation": kind, "kind": graph, "device": device, "dtype": dtype}
        row |= {"chosen": chosen, "fastest": best, "times_faster": faster}
        rows.append({**row, "seconds": seconds})
        spelled = ", ".join(f"{k} {duration(x)}" for k, x in seconds.items())
        print(f"{kind}, {graph}, {dtype} | chosen: {chosen} | {spelled}")
    better = sum((row["times_faster"] or 0) > WORTH_IT for row in rows)
    print(
        f"{better} of {len(rows)} would be faster by more than {WORTH_IT - 1:.0%} with "
        "another implementation here."
    )
    return rows


def make(
    operation: Operation,
    implementation: str,
    direction: str,
    dtype: str,
    xla: bool,
    images: int,
) -> Work:
    """Makes an operation's work, once it has proved to compute what it should.

    Args:
        operation: What and where.
        implementation: How.
        direction: `"forward"`, or `"gradient"` alone.
        dtype: Of the input and the kernel.
        xla: Whether XLA compiles it as a whole.
        images: On how many it works.

    Raises:
        ArithmeticError: It computes something else.
    """
    gpu = has_gpu()  # Before its first use.
    inputs = [_random((images, *operation.shape), dtype)]
    if operation.kernel:
        deviation = math.prod(operation.kernel[:3]) ** -0.5
        inputs.append(_random(operation.kernel, dtype, deviation))
    function = operation.function(implementation)
    outputs = tf.function(function, autograph=False)(inputs[0][:2], *inputs[1:])
    sample = [tf.cast(x, tf.float32) for x in (inputs[0][:2], *inputs[1:])]
    expected = operation.function(IMPLEMENTATIONS[operation.kind][0])(*sample).numpy()
    tolerance = "TF32" if gpu and dtype == "float32" else dtype
    check_outputs(tf.cast(outputs, tf.float32).numpy(), expected, tolerance)
    outer = _random((images, *outputs.shape[1:]), dtype)
    # Nobody takes the gradient of the images, which conv1 sees.
    watched = 1 if operation.kind == "strided_conv" else 0

    # They return whole tensors: XLA would compute one element only if it could.
    @tf.function(autograph=False, jit_compile=xla or None)
    def compute(inputs, outer):
        if direction == "forward":
            return [function(*inputs)]
        with tf.GradientTape() as tape:
            tape.watch(inputs[watched:])
            outputs = function(*inputs)
        return tape.gradient(outputs, inputs[watched:], outer)

    def work(count: int) -> list[float]:
        for _ in range(count):
            outputs = compute(inputs, outer)
        return [float(tf.reshape(y, (-1,))[0]) for y in outputs]

    return work


def _random(shape: Sequence[int], dtype: str, deviation: float = 1.0) -> tf.Tensor:
    return tf.cast(tf.random.stateless_normal(shape, (0, 1)) * deviation, dtype)


def tensorflow_lrn(x: tf.Tensor) -> tf.Tensor:
    """Normalises by TensorFlow's own operation, which has no bfloat16."""
    y = tf.nn.local_response_normalization(
        tf.cast(x, tf.float32), LRN["size"] // 2, LRN["k"], LRN["alpha"], LRN["beta"]
    )
    return tf.cast(y, x.dtype)
