"""Packaging of keras_alexnet.

`layers/`, `tuning/` and `benchmarks/` stand at the top of the repository and are
installed inside the package, as `keras_alexnet.layers` and so on.
"""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = {}
exec((ROOT / "keras_alexnet" / "_version.py").read_text(encoding="utf-8"), VERSION)

ONNX, ONNX_RUNTIME = "onnx>=1.17,<2", "onnxruntime>=1.20,<2"
OPENVINO, NNCF, SERVE = "openvino>=2026.4,<2027", "nncf>=3.4,<4", "aiohttp>=3.10,<4"

setup(
    name="keras-alexnet",
    version=VERSION["__version__"],
    description="AlexNet for Keras 3 on TensorFlow: exact, fast, on any number of "
    "devices",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=[
        *find_packages(include=["keras_alexnet", "keras_alexnet.*"]),
        "keras_alexnet.layers",
        "keras_alexnet.tuning",
        "keras_alexnet.benchmarks",
    ],
    package_dir={
        "keras_alexnet": "keras_alexnet",
        "keras_alexnet.layers": "layers",
        "keras_alexnet.tuning": "tuning",
        "keras_alexnet.benchmarks": "benchmarks",
    },
    license_files=["LICENSE", "NOTICE"],
    package_data={
        "keras_alexnet": [
            "inspect/page.html",
            "py.typed",
            "weights/imagenet_classes.tsv",
        ]
    },
    install_requires=[
        # The lower bounds are what pip resolves on Python 3.10, the upper bounds the
        # next release that nobody has tried.
        "tensorflow>=2.21,<2.22",
        "keras>=3.12,<3.16",
        "tensorflow-datasets>=4.9.9,<4.10",
        "keras-tuner>=1.4.7,<1.5",
        "numpy>=2.0,<3",
        "ml_dtypes>=0.5,<1",
        # Needed by the four above without their saying so: Keras Tuner imports
        # TensorBoard, its Bayesian search SciPy; TFDS importlib_resources.
        "tensorboard>=2.19,<3",
        "importlib_resources>=6",
        "scipy>=1.13,<2",
        # The embedded digits, figures, command line, tables, checkpoints, locks.
        "scikit-learn>=1.5,<2",
        "matplotlib>=3.9,<4",
        "tyro>=1.0,<1.1",
        "rich>=13,<16",
        # GIF and BMP files, of which TensorFlow reads some kinds wrongly.
        "pillow>=11,<14",
        "safetensors>=0.5,<1",
        "filelock>=3.12,<5",
    ],
    extras_require={
        # TensorFlow with the CUDA libraries that it was built against.
        "gpu": ["tensorflow[and-cuda]>=2.21,<2.22"],
        # What `keras-alexnet export --format onnx` writes with and compares by.
        "onnx": [ONNX, ONNX_RUNTIME],
        # The same for openvino, which is made of the ONNX graph; and its int8.
        "openvino": [ONNX, OPENVINO],
        "openvino-int8": [ONNX, OPENVINO, NNCF],
        # The HTTP server of `keras-alexnet serve`.
        "serve": [SERVE],
        # Networks called hf://user/name.
        "hub": ["huggingface_hub>=1,<3"],
        # The trackers of `keras-alexnet train --wandb --mlflow`.
        "wandb": ["wandb>=0.22,<1"],
        "mlflow": ["mlflow>=3,<4"],
        # What `make bench` compares with; it leaves out what is missing.
        "bench": [ONNX, ONNX_RUNTIME, OPENVINO, "torch>=2.13,<2.14"],
        "dev": [
            *(SERVE, ONNX, ONNX_RUNTIME),
            "build>=1.2",
            "hypothesis>=6.100,<7",
            # The notebooks of examples/notebooks, in the tests.
            "ipykernel>=6.29,<8",
            "nbclient>=0.10,<1",
            "pytest>=8,<10",
            "pytest-xdist>=3.6,<4",
            "ruff>=0.14,<0.18",
            "setuptools>=70",
        ],
    },
    entry_points={"console_scripts": ["keras-alexnet=keras_alexnet.cli:main"]},
    classifiers=[
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
