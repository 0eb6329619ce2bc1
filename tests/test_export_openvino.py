"""OpenVINO exports, run by OpenVINO."""

import numpy as np
import pytest
from exported_networks import check_program, network
from reduced import reduced

from keras_alexnet.export.comparison import noise

pytestmark = pytest.mark.slow
NAMES = list("0123456789")


@pytest.fixture(autouse=True)
def installed():
    pytest.importorskip("openvino", reason="OpenVINO is not installed")


@pytest.mark.parametrize(
    "architecture",
    [
        *(reduced(name) for name in ("alexnet_2012_source", "caffenet", "alexnet_owt")),
        *("alexnet_mini", "alexnet_small"),
    ],
)
def test_float32_is_the_model(architecture, tmp_path):
    from keras_alexnet.export.openvino import FORMAT

    model, preprocessing, images = network(architecture)
    model.bind(preprocessing, class_names=NAMES)
    FORMAT.write(model, tmp_path, "float32", ())
    expected = model.predict_on_batch(preprocessing.normalize(images))
    for count in (1, 3):
        found = FORMAT.open(tmp_path)(images[:count])
        np.testing.assert_allclose(found, expected[:count], atol=1e-5)


@pytest.mark.parametrize(
    ("precision", "size", "tolerance"),
    [("float16", 0.52, 0.02), ("bfloat16", 0.52, 0.2), ("int8", 0.3, 0.3)],
)
def test_other_precisions_are_smaller_and_near(precision, size, tolerance, tmp_path):
    from keras_alexnet.export.openvino import FORMAT

    if precision == "int8":
        pytest.importorskip("nncf", reason="NNCF is not installed")
    model, preprocessing, images = network("alexnet_mini")
    model.bind(preprocessing, class_names=NAMES)
    sizes = {}
    for one in ("float32", precision):
        FORMAT.write(model, tmp_path, one, list(noise(preprocessing)))
        sizes[one] = (tmp_path / "model.bin").stat().st_size
    assert sizes[precision] < size * sizes["float32"]
    expected = model.predict_on_batch(preprocessing.normalize(images))
    found = FORMAT.open(tmp_path)(images)
    np.testing.assert_allclose(found, expected, atol=tolerance)


def test_a_program_without_this_package_uses_the_export(tmp_path, command):
    check_program("openvino", command, tmp_path)
