"""Which operations TensorFlow ran, when, and what each took of the time that passed."""

from __future__ import annotations

import collections
import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

# What TensorFlow calls the part of an operation that ends by a callback, as compiled
# functions do. Its name is among its statistics.
ASYNCHRONOUS = "ExecutorState::ProcessAsync::Start"
# The marks between which a step happens, in the trace.
STEP = "benchmark_step"


@dataclasses.dataclass(frozen=True)
class Operation:
    """One execution of one operation.

    Attributes:
        name: Its name in the graph, such as `alexnet_2012/conv1/Conv2D`.
        kind: Its type, such as `Conv2D`.
        begin: In picoseconds.
        end: In picoseconds.
        kernel: On GPUs, the kernel's name.
    """

    name: str
    kind: str
    begin: int
    end: int
    kernel: str = ""


def trace_steps(step: Callable[[], None], repetitions: int) -> list[list[Operation]]:
    """Runs a step several times and lists what it consisted of.

    Args:
        step: Returns when its work is done.
        repetitions: How often.

    Returns:
        For each repetition its operations, and one called `STEP` that is the whole.
    """
    options = tf.profiler.experimental.ProfilerOptions(
        host_tracer_level=2, python_tracer_level=0, device_tracer_level=1
    )
    with tempfile.TemporaryDirectory() as directory:
        tf.profiler.experimental.start(directory, options=options)
        for repetition in range(repetitions):
            with tf.profiler.experimental.Trace(STEP, step_num=repetition):
                step()
        tf.profiler.experimental.stop()
        (file,) = Path(directory).glob("plugins/profile/*/*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(file.read_bytes())
    operations = list(read_operations(space))
    wholes = [whole for whole in operations if whole.name == STEP]
    return [
        [part for part in operations if whole.begin <= part.begin < whole.end]
        for whole in wholes
    ]


def read_operations(space: xplane_pb2.XSpace) -> Iterator[Operation]:
    """Finds the operations in a trace: those on GPUs, or else those on the CPU."""
    on_gpus = [
        plane
        for plane in space.planes
        if plane.name.startswith("/device:GPU") and any(x.events for x in plane.lines)
    ]
    for plane in space.planes:
        on_gpu = plane in on_gpus
        if not on_gpu and not plane.name.startswith("/host:CPU"):
            continue
        for line in plane.lines:
            # Others on GPUs sum up what the streams hold.
            if on_gpu and line.name and not line.name.startswith("Stream"):
                continue
            begin = line.timestamp_ns * 1000
            for event in line.events:
                text, kind, kernel = _named(plane, event, on_gpu)
                wanted = on_gpu or not on_gpus or text == STEP
                if kind and wanted and event.duration_ps:
                    start = begin + event.offset_ps
                    end = start + event.duration_ps
                    yield Operation(text, kind, start, end, kernel)


def _named(
    plane: xplane_pb2.XPlane, event: xplane_pb2.XEvent, on_gpu: bool
) -> tuple[str, str, str]:
    """Returns an event's operation, its type, "" where it is none, and its kernel."""
    text = plane.event_metadata[event.metadata_id].name
    if text == STEP:
        return STEP, STEP, ""
    stats = {plane.stat_metadata[stat.metadata_id].name: stat for stat in event.stats}
    if text == ASYNCHRONOUS:
        return _text(plane, stats["name"]), _text(plane, stats["kernel_type"]), ""
    if on_gpu:
        # A kernel says whose it is; what XLA makes names the operation without type.
        owner = _text(plane, stats["tf_op"]) if "tf_op" in stats else ""
        name, _, kind = owner.rpartition(":")
        return name or owner or text, kind if name else "kernel", text
    name, separator, kind = text.partition(":")
    # Names of C++ functions have two colons, those of other events a space behind one.
    return name, kind if separator and kind.isidentifier() else "", ""


def _text(plane: xplane_pb2.XPlane, stat: xplane_pb2.XStat) -> str:
    return stat.str_value or plane.stat_metadata[stat.ref_value].name


def shares(operations: Iterable[Operation]) -> dict[Operation, float]:
    """Divides the time that passed among the operations.

    At each instant, those that run have equal shares of it. So what operations on
    several threads took adds up to the time that passed while any of them ran.

    Args:
        operations: In any order.

    Returns:
        Picoseconds of each.
    """
    changes = []
    for operation in operations:
        changes += [
            (operation.begin, True, operation),
            (operation.end, False, operation),
        ]
    taken: dict[Operation, float] = collections.defaultdict(float)
    running: list[Operation] = []
    last = 0
    for now, begins, operation in sorted(changes, key=lambda change: change[:2]):
        for other in running:
            taken[other] += (now - last) / len(running)
        last = now
        if begins:
            running.append(operation)
        else:
            running.remove(operation)
    return dict(taken)
