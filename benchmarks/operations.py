"""Single operations of alexnet_2012 in every implementation: forward and gradient."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_alexnet.benchmarks.comparison import TENSORFLOW, Comparison, check_outputs
from keras_alexnet.benchmarks.devices import has_gpu
from keras_alexnet.benchmarks.limits import Limits, add_limits
from keras_alexnet.benchmarks.networks import LRN
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import Report
from keras_alexnet.benchmarks.workers import Work
from keras_alexnet.layers import grouped_conv, lrn_implementations
from keras_alexnet.layers.lrn import local_response_normalization

DTYPES = ("bfloat16", "float32")
DIRECTIONS = ("forward", "gradient")
OURS = "keras_alexnet "


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation at one place in the network.

    Attributes:
        kind: `"lrn"`, `"grouped_conv"` or `"strided_conv"`, as in the table of choices.
        layer: Its name.
        shape: Height, width and channels of its input.
        kernel: Shape of the kernel, of a convolution.
    """

    kind: str
    layer: str
    shape: tuple[int, int, int]
    kernel: tuple[int, int, int, int] | None = None

    def function(
        self, implementation: str, channels_last: bool = True
    ) -> Callable[..., tf.Tensor]:
        """Returns what computes it, from activations and the kernel if it has one."""
        if self.kind == "lrn":
            if implementation == "tf.nn":
                return tensorflow_lrn
            return lambda x: local_response_normalization(
                x, **LRN, channels_last=channels_last, implementation=implementation
            )
        first = self.kind == "strided_conv"
        return lambda x, kernel: grouped_conv.grouped_convolution(
            x,
            kernel,
            groups=1 if first else 2,
            strides=4 if first else 1,
            padding="VALID" if first else "SAME",
            channels_last=channels_last,
            implementation=implementation,
        )

    def work(self, direction: str, dtype: str, images: int) -> tuple[float, str]:
        """Returns what one execution works on: bytes moved at least, or FLOP."""
        if self.kernel is None:
            # x and y; the gradient reads x and dy, and writes dx.
            tensors = {"forward": 2, "gradient": 3}[direction]
            size = tf.as_dtype(dtype).size
            return tensors * size * images * math.prod(self.shape) / 1e9, "GB/s"
        height, width, _ = self.shape
        # The gradient has two products as large: to the input and to the kernel.
        flop = 2 * height * width * math.prod(self.kernel) * images
        return flop * {"forward": 1, "gradient": 2}[direction] / 1e12, "TFLOP/s"


def operations(kind: str, quick: bool) -> list[Operation]:
    """Lists where alexnet_2012 has an operation."""
    if kind == "lrn":
        layers = {"norm1": ((55, 55, 96),), "norm2": ((27, 27, 256),)}
        tiny = {"norm1": ((3, 3, 8),)}
    elif kind == "strided_conv":
        layers = {"conv1": ((227, 227, 3), (11, 11, 3, 96))}
        tiny = {"conv1": ((19, 19, 3), (11, 11, 3, 4))}
    else:
        layers = {
            "conv2": ((27, 27, 96), (5, 5, 48, 256)),
            "conv4": ((13, 13, 384), (3, 3, 192, 384)),
            "conv5": ((13, 13, 384), (3, 3, 192, 256)),
        }
        tiny = {"conv2": ((4, 4, 8), (3, 3, 4, 8))}
    return [Operation(kind, *row) for row in _rows(tiny if quick else layers)]


def _rows(layers: dict) -> list[tuple]:
    return [(name, *shapes) for name, shapes in layers.items()]


def implementations(kind: str) -> Sequence[str]:
    """Lists ours, by their names in the table of choices."""
    return {
        "lrn": lrn_implementations.IMPLEMENTATIONS,
        "grouped_conv": grouped_conv.IMPLEMENTATIONS,
        "strided_conv": grouped_conv.STRIDED_IMPLEMENTATIONS,
    }[kind]


def batch_size(options: Options) -> int:
    """Returns on how many images each operation works."""
    default = 2 if options.quick else 512 if has_gpu() else 64
    return next(iter(options.batch_sizes), default)


def add(
    comparison: Comparison,
    operation: Operation,
    implementation: str,
    *,
    direction: str,
    dtype: str,
    xla: bool = False,
    channels_last: bool = True,
) -> None:
    """Adds one implementation to a comparison."""
    foreign = implementation.startswith("tf.")
    name = implementation if foreign else OURS + implementation
    name += ("" if channels_last else ", channels first") + (", XLA" if xla else "")
    comparison.add(
        name,
        make,
        TENSORFLOW,
        operation=operation,
        implementation=implementation,
        direction=direction,
        dtype=dtype,
        xla=xla,
        channels_last=channels_last,
        images=batch_size(comparison.options),
    )


def make(
    operation: Operation,
    implementation: str,
    direction: str,
    dtype: str,
    xla: bool,
    channels_last: bool,
    images: int,
) -> Work:
    """Makes an operation's work, once it has proved to compute what it should.

    Args:
        operation: What and where.
        implementation: How: one of ours, or `"tf.nn"`.
        direction: `"forward"`, or `"gradient"` alone.
        dtype: Of the input and the kernel.
        xla: Whether XLA compiles it as a whole.
        channels_last: Whether channels are on the last axis, or else on axis 1.
        images: On how many it works.

    Raises:
        ArithmeticError: It computes something else.
    """
    gpu = has_gpu()
    shape = (images, *operation.shape)
    inputs = [_random(shape, dtype)]
    if operation.kernel:
        deviation = math.prod(operation.kernel[:3]) ** -0.5
        inputs.append(_random(operation.kernel, dtype, deviation))
    sample = [tf.cast(x[:2] if x is inputs[0] else x, tf.float32) for x in inputs]
    reference = {"lrn": "tf.nn", "grouped_conv": "native", "strided_conv": "direct"}
    reference = reference[operation.kind]
    expected = operation.function(reference)(*sample).numpy()
    to_first = (0, 3, 1, 2)
    if not channels_last:
        inputs[0] = tf.transpose(inputs[0], to_first)
        expected = expected.transpose(to_first)
    function = operation.function(implementation, channels_last)
    outputs = tf.function(function, autograph=False)(inputs[0][:2], *inputs[1:])
    tolerance = "TF32" if gpu and dtype == "float32" else dtype
    check_outputs(tf.cast(outputs, tf.float32).numpy(), expected, tolerance)
    outer = _random((images, *outputs.shape[1:]), dtype)
    # Nobody takes the gradient of the images, which conv1 sees.
    watched = 1 if operation.kind == "strided_conv" else 0
    return _executions(function, inputs, outer, direction, xla, watched)


def _executions(
    function: Callable[..., tf.Tensor],
    inputs: list[tf.Tensor],
    outer: tf.Tensor,
    direction: str,
    xla: bool,
    watched: int,
) -> Work:
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


def answer(question: str, options: Options, variants: Sequence[dict]) -> None:
    """Measures an operation in all implementations and reports.

    Args:
        question: `"lrn"` or `"grouped_conv"`.
        options: Of the question.
        variants: Arguments of `add`; each implementation takes part in all of them.
    """
    report = Report(question, options, batch_size=batch_size(options))
    with Comparison(options) as comparison:
        limits = Limits(comparison)
        rates = add_limits(report, limits, comparison.run())
        for operation in operations(question, options.quick):
            for dtype in DTYPES:
                for direction in DIRECTIONS:
                    comparison.clear()
                    for variant in variants:
                        names = implementations(question)
                        for name in ("tf.nn", *names) if question == "lrn" else names:
                            add(
                                *(comparison, operation, name),
                                **{"direction": direction, "dtype": dtype, **variant},
                            )
                    case = f"{operation.layer}, {dtype}, {direction}"
                    _report(report, case, comparison, operation, limits, rates)
    report.write()


def _report(report, case, comparison, operation, limits, rates) -> None:
    layer, dtype, direction = case.split(", ")
    work, unit = operation.work(direction, dtype, batch_size(report.options))
    limit = "copy" if unit == "GB/s" else limits.product(dtype)
    scale = 1e9 if unit == "GB/s" else 1e12

    def share(name: str, rate: float) -> tuple[float, str] | None:
        if limit not in rates:
            return None
        return rate * scale / rates[
            limit
        ], limit if limit == "copy" else f"{limit} product"

    report.add(case, comparison.run(), work, unit, share=share)
    report.skip({f"{case}: {name}": x for name, x in comparison.skipped.items()})
    report.save()
