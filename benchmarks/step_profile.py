"""Where does the time of a training step of alexnet_2012 go, operation by operation?

    keras-alexnet benchmark step_profile

The list adds up to the step: at each instant the operations that run share it equally,
and the instants without any are the host's. Operations on different threads compete for
the same cores and memory, so an operation's share is not what it would take alone. On
GPUs the operations are the kernels there, and the host's part is where none runs.
"""

from __future__ import annotations

import collections
import dataclasses
import re
import statistics
import time
from collections.abc import Callable

import keras
import tensorflow as tf

from keras_alexnet.benchmarks import models
from keras_alexnet.benchmarks.comparison import Comparison
from keras_alexnet.benchmarks.devices import has_gpu
from keras_alexnet.benchmarks.networks import ALEXNET_2012, Network, network_for
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import write_json
from keras_alexnet.benchmarks.tracing import STEP, Operation, shares, trace_steps

# Rows that take less than this part of the step are added up in one.
SMALL = 0.004
# What the layers without weights are for, by the beginnings of their names.
ROLES = {
    "norm": "normalisation",
    "pool": "pooling",
    "drop": "dropout",
    "relu": "ReLU",
    "predictions": "softmax and loss",
}


@dataclasses.dataclass(frozen=True)
class Step:
    """Which step is profiled.

    Attributes:
        precision: Of the computations.
        batch_size: Images per step.
        network: Whose step it is.
        repetitions: How many steps are traced, after as many that are not.
        xla: Whether XLA compiles the step.
    """

    precision: str = "float32"
    batch_size: int = 128
    network: Network = ALEXNET_2012
    repetitions: int = 5
    xla: bool = False


class Places:
    """Says to which layer an operation belongs, and what it does there.

    Args:
        model: The model whose step it is.
        graph: The traced step.
    """

    def __init__(self, model: keras.Model, graph: tf.Graph):
        self._optimizer = model.optimizer.name
        self._layers = {layer.name: layer for layer in model.layers}
        self._order = list(self._layers)
        self._graph = graph

    def of(self, operation: Operation) -> tuple[str, str]:
        """Returns the layer, or what stands in place of one, and the kind of work."""
        parts = operation.name.split("/")
        if self._optimizer in parts:
            return "optimizer", f"optimizer, {operation.kind}"
        backward = "gradient_tape" in parts
        if "compile_loss" in parts:
            direction = "gradient" if backward else "forward"
            return "loss", f"softmax and loss, {direction}"
        layer = self._named_in(operation.name)
        if layer is None:
            layer = self._of_written_gradient(operation.name)
            backward = True
        if layer is not None:
            return self._in_layer(layer, operation.kind, operation.name, backward)
        kind = "casts" if operation.kind == "Cast" else "metrics and others"
        return "step", kind

    def _named_in(self, name: str) -> str | None:
        for part in name.split("/"):
            # A layer that is called for the second time is called conv1_1.
            for candidate in (part, part.rpartition("_")[0]):
                if candidate in self._layers:
                    return candidate
        return None

    def _of_written_gradient(self, name: str) -> str | None:
        """Finds the layer of a gradient that is not derived, whose name says nothing.

        Those are the normalisations'. What one computes is read by the gradient of the
        same layer or of the one before.
        """
        try:
            readers = [self._graph.get_operation_by_name(name)]
        except KeyError:  # Made by TensorFlow's optimisation of the graph.
            return None
        seen = set()
        while readers:
            reader = readers.pop(0)
            if reader in seen:
                continue
            seen.add(reader)
            layer = self._named_in(reader.name)
            if layer is None:
                readers += [x for out in reader.outputs for x in out.consumers()]
            elif "gradient_tape" in reader.name:
                later = self._order[self._order.index(layer) :]
                return next((x for x in later if x.startswith("norm")), None)
        return None

    def _in_layer(
        self, layer: str, kind: str, name: str, backward: bool
    ) -> tuple[str, str]:
        direction = "gradient" if backward else "forward"
        if "Fused" in kind:
            # oneDNN calls what it fuses by the last of it, the activation.
            places = self._order[: self._order.index(layer) + 1]
            weighted = [x for x in places if hasattr(self._layers[x], "kernel")]
            return weighted[-1], "product with bias and activation, forward"
        if kind == "Cast":
            return layer, f"casts, {direction}"
        if hasattr(self._layers[layer], "kernel"):
            if re.search("Conv2D|MatMul", kind):
                if backward:
                    # Those of x @ w are called MatMul, to x, and MatMul_1, to w.
                    to_weights = "Filter" in kind or name.endswith("MatMul_1")
                    direction += f" to {'weights' if to_weights else 'input'}"
                return layer, f"product, {direction}"
            if "Bias" in kind:
                return layer, f"bias, {direction}"
            return layer, f"split, join and others, {direction}"
        for start, role in ROLES.items():
            if layer.startswith(start):
                return layer, f"{role}, {direction}"
        return layer, f"others, {direction}"


def make_step(which: Step) -> tuple[Places, Callable[[], None]]:
    """Makes a training step on noise, and says what belongs where in it."""
    has_gpu()
    model = models.compiled(models.ours(which.network, which.precision), which.xla)
    images, labels = models.noise(which.network, which.batch_size)
    # With weights of examples, as the training engine has them.
    batch = images, labels, tf.ones(which.batch_size)
    step = models.step_function(model, batch)
    graph = step.get_concrete_function(batch).graph
    return Places(model, graph), lambda: float(step(batch)["loss"])


def profile(which: Step) -> dict[str, object]:
    """Traces steps.

    Returns:
        Milliseconds of a step, with and without the trace, and of its parts: `kinds`,
        `places` (a layer and a kind) and `operations`.
    """
    places, step = make_step(which)
    step()
    seconds = []
    for _ in range(which.repetitions + 1):
        begin = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begin)
    kinds, rows, operations = (collections.Counter() for _ in range(3))
    whole = 0.0
    traced = trace_steps(step, which.repetitions)
    for steps in traced:
        (total,) = [part for part in steps if part.name == STEP]
        duration = total.end - total.begin
        whole += duration
        idle = duration
        for operation, taken in shares(x for x in steps if x is not total).items():
            layer, kind = places.of(operation)
            kinds[kind] += taken
            rows[layer, kind] += taken
            named = operation.name, operation.kind, operation.kernel
            operations[named] += taken
            idle -= taken
        kinds["host: no operation runs"] += idle
        rows["", "host: no operation runs"] += idle
    unit = 1e9 * max(1, len(traced))
    return {
        "milliseconds_untraced": 1e3 * statistics.median(seconds[1:]),
        "milliseconds": whole / unit,
        "kinds": {kind: taken / unit for kind, taken in kinds.most_common()},
        "places": [
            {"layer": layer, "kind": kind, "milliseconds": taken / unit}
            for (layer, kind), taken in rows.most_common()
        ],
        "operations": [
            {"name": name, "type": kind, "kernel": kernel, "milliseconds": taken / unit}
            for (name, kind, kernel), taken in operations.most_common()
        ],
    }


def print_rows(title: str, rows: dict[str, float], whole: float, most: int) -> None:
    """Prints what takes how much of the step, the largest first."""
    for number, (what, taken) in enumerate(rows.items()):
        if number == most or taken < SMALL * whole:
            rest = list(rows.values())[number:]
            print(f"{title} | {len(rest)} smaller ones | {sum(rest):.2f} ms")
            break
        print(f"{title} | {what} | {taken:.2f} ms | {taken / whole:.1%}", flush=True)


def run(options: Options) -> None:
    """Measures and reports, in both precisions, on GPUs with and without XLA."""
    gpu = has_gpu()
    network = network_for(options.quick)
    default = 2 if options.quick else 512 if gpu else 128
    batch_size = next(iter(options.batch_sizes), default)
    answers = {}
    with Comparison(options) as comparison:
        for precision in ("bfloat16", "float32"):
            for xla in (False, True) if gpu else (False,):
                name = f"{precision}, XLA" if xla else precision
                with comparison.optional(name):
                    options.check_time()
                    which = Step(
                        precision, batch_size, network, options.repetitions, xla
                    )
                    answers[name] = {**dataclasses.asdict(which), **profile(which)}
                    _print(name, answers[name])
                    write_json("step_profile", options, results=answers)
                keras.backend.clear_session()


def _print(name: str, found: dict) -> None:
    """Prints a profile: kinds of work, layers, and the kernels of a GPU."""
    whole = found["milliseconds"]
    untraced = found["milliseconds_untraced"]
    print(f"{name} | the step | {whole:.2f} ms | without the trace {untraced:.2f} ms")
    print_rows(f"{name}, kinds", found["kinds"], whole, 30)
    layers: collections.Counter = collections.Counter()
    kernels: collections.Counter = collections.Counter()
    for row in found["places"]:
        layers[f"{row['layer']} {row['kind']}"] += row["milliseconds"]
    for row in found["operations"]:
        if row["kernel"]:
            kernels[f"{row['kernel']} ({row['name']})"] += row["milliseconds"]
    print_rows(f"{name}, layers", dict(layers.most_common()), whole, 40)
    print_rows(f"{name}, kernels", dict(kernels.most_common()), whole, 30)
