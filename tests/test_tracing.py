"""Reading TensorFlow's traces, and dividing the time among operations."""

import pytest
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from keras_alexnet.benchmarks.tracing import (
    STEP,
    Operation,
    read_operations,
    shares,
    trace_steps,
)


def operation(name, begin, end):
    return Operation(name, "Op", begin, end)


def test_operations_one_after_the_other_have_all_of_their_time():
    one, other = operation("one", 0, 10), operation("other", 15, 20)
    assert shares([other, one]) == {one: 10, other: 5}


def test_operations_at_the_same_time_share_it():
    # 0-10 a; 10-20 a and b; 20-30 a, b and c; 30-40 c.
    a, b, c = operation("a", 0, 30), operation("b", 10, 30), operation("c", 20, 40)
    taken = shares([a, b, c])
    assert taken == pytest.approx(
        {a: 10 + 5 + 10 / 3, b: 5 + 10 / 3, c: 10 / 3 + 10}, rel=1e-12
    )
    assert sum(taken.values()) == pytest.approx(40)


def test_an_operation_that_begins_where_another_ends_is_not_beside_it():
    one, other = operation("one", 0, 10), operation("other", 10, 20)
    assert shares([other, one]) == {one: 10, other: 10}


def plane(name, events):
    """Makes a plane of one line that began at 2 ns; times in picoseconds."""
    made = xplane_pb2.XPlane(name=name)
    line = made.lines.add(timestamp_ns=2)
    ids: dict[str, int] = {}

    def number_of(text, metadata):
        if text not in ids:
            ids[text] = len(ids) + 1
            metadata[ids[text]].name = text
        return ids[text]

    for text, offset, duration, stats in events:
        event = line.events.add(
            metadata_id=number_of(text, made.event_metadata),
            offset_ps=offset,
            duration_ps=duration,
        )
        for key, value in stats.items():
            number = number_of(key, made.stat_metadata)
            event.stats.add(metadata_id=number, str_value=value)
    return made


HOST = plane(
    "/host:CPU",
    [
        (STEP, 0, 1000, {}),
        ("net/conv1/Conv2D:_FusedConv2D", 100, 50, {}),
        ("EagerLocalExecute: __inference_step", 0, 900, {}),
        ("ExecutorState::Process", 0, 900, {}),
        (
            "ExecutorState::ProcessAsync::Start",
            200,
            30,
            {"name": "net/norm1/call", "kernel_type": "PartitionedCall"},
        ),
        ("net/nothing/NoOp:NoOp", 300, 0, {}),
    ],
)


def test_operations_are_told_from_other_events():
    assert list(read_operations(xplane_pb2.XSpace(planes=[HOST]))) == [
        Operation(STEP, STEP, 2000, 3000),
        Operation("net/conv1/Conv2D", "_FusedConv2D", 2100, 2150),
        Operation("net/norm1/call", "PartitionedCall", 2200, 2230),
    ]


def test_on_gpus_the_kernels_count_in_place_of_what_starts_them():
    kernel = ("gemm_kernel_128", 500, 200, {"tf_op": "net/fc6/MatMul:MatMul"})
    space = xplane_pb2.XSpace(planes=[HOST, plane("/device:GPU:0", [kernel])])
    assert list(read_operations(space)) == [
        Operation(STEP, STEP, 2000, 3000),
        Operation("net/fc6/MatMul", "MatMul", 2500, 2700, "gemm_kernel_128"),
    ]


def test_steps_are_traced_one_by_one():
    x = tf.random.normal((64, 64))

    @tf.function(autograph=False)
    def product():
        return tf.matmul(x, x, name="the_product")

    steps = trace_steps(lambda: product().numpy(), repetitions=2)
    assert len(steps) == 2
    for step in steps:
        (whole,) = [part for part in step if part.name == STEP]
        assert any("the_product" in part.name for part in step)
        parts = [part for part in step if part is not whole]
        assert sum(shares(parts).values()) <= whole.end - whole.begin
