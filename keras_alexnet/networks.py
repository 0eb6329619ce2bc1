"""Networks by where they are kept: runs, files of weights, and published ones by name.

`open_network` is the one function that opens a network.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any, Literal

import h5py
import keras

from keras_alexnet.builder import build
from keras_alexnet.errors import UserError, check_packages
from keras_alexnet.images.preprocessing import Preprocessing
from keras_alexnet.model import AlexNet
from keras_alexnet.registry import list_layers
from keras_alexnet.training import optimizer  # noqa: F401, loaded models may have it
from keras_alexnet.training.checkpoint import Checkpoint, CheckpointStore, restore
from keras_alexnet.training.loop import epoch_ends
from keras_alexnet.training.preparation import build_network
from keras_alexnet.training.rates import dropouts
from keras_alexnet.training.run_directory import RunDirectory

# What the names of models on the Hugging Face Hub begin with.
HUB = "hf://"


def load_model(path: str | Path, **kwargs: Any) -> keras.Model:
    """Loads what Keras saved, with this package's and all plugins' layers known.

    Args:
        path: A `.keras` or `.h5` file, of any version of Keras 3 that is supported; or
            `hf://user/name`, a model on the Hugging Face Hub, where Keras saves what is
            saved under such a name. It is kept in the Hub's cache and opened from there
            without a network (`HF_HUB_OFFLINE=1` does not even ask for a newer one).
        **kwargs: Arguments of `keras.models.load_model`.

    Returns:
        The model, an `AlexNet` where one was saved.

    Raises:
        ValueError: There is no such file, or it holds no model.
    """
    if str(path).startswith(HUB):
        list_layers()
        return _from_hub(str(path), **kwargs)
    if not Path(path).is_file():
        raise UserError(f"No such model file: {path}")
    if not _is_model(Path(path)):
        raise UserError(f"{path} is no model that Keras saved.")
    # Keras finds classes that have been imported; it imports none by itself.
    list_layers()
    return keras.models.load_model(path, **kwargs)


def open_network(
    where: str | Path, *, checkpoint: Literal["best", "last"] | None = None
) -> AlexNet:
    """Opens a network, whatever it is kept in.

    Args:
        where: A run's directory; a model that Keras saved, `.keras` or `.h5`; a file of
            weights, of any format that `keras_alexnet.weights` reads; the name of
            published weights (see `list_weights()`), or `"imagenet"`; or
            `hf://user/name`, a model on the Hugging Face Hub.
        checkpoint: Of a run, open its `"best"` or `"last"` checkpoint. None is the
            trained model, or the best checkpoint where training has not finished.

    Returns:
        The model. Its `metadata` say what is known of its architecture, preprocessing,
        classes and origin; `bind` adds what is not.

    Raises:
        ValueError: There is nothing of the kind, or it is damaged or no network.

    Example:
    >>> model = keras_alexnet.open_network("torchvision-alexnet")
    >>> model.decode_predictions(model.predict(model.preprocess(image)))
    """
    if str(where).startswith(HUB):
        return _as_alexnet(load_model(where), where)
    path = Path(where).expanduser()
    if path.is_dir():
        return _open_run(RunDirectory.open(path), checkpoint)
    if checkpoint is not None:
        raise UserError(f"Only a run's directory has checkpoints. Received: {where}")
    if path.is_file() and _is_model(path):
        return _as_alexnet(load_model(path), path)
    if not path.is_file():
        path = where
    return build(weights=path)


def _from_hub(name: str, **kwargs: Any) -> keras.Model:
    """Loads a model from the Hugging Face Hub by Keras's own support."""
    check_packages("hub", "huggingface_hub")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name.removeprefix(HUB)):
        raise UserError(f"Models on the Hub are named hf://user/name. Received: {name}")
    try:
        return keras.models.load_model(name, **kwargs)
    except OSError as error:  # Of HTTP, and of the cache.
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{name} cannot be had from the Hub: {reason}") from None


def _open_run(run: RunDirectory, checkpoint: str | None) -> AlexNet:
    if checkpoint not in (None, "best", "last"):
        raise UserError(f"checkpoint must be best or last. Received: {checkpoint!r}")
    finished = checkpoint is None and (run / "model.keras").is_file()
    store = CheckpointStore(run / "checkpoints")
    if not finished and not store.steps():
        raise UserError(f"{run.path} has no trained model yet, and no checkpoint.")
    data = run.read_json("data.json")
    if finished:
        model = _as_alexnet(load_model(run / "model.keras"), run / "model.keras")
    else:
        model = _from_checkpoint(run, store.load(checkpoint or "best"), data)
    # Runs of earlier versions keep these here only.
    model.bind(Preprocessing.from_config(data["preprocessing"]))
    if not model.metadata.class_names:
        model.bind(class_names=data["class_names"])
    return model


def _from_checkpoint(
    run: RunDirectory, saved: Checkpoint, data: dict[str, Any]
) -> AlexNet:
    config = run.config()
    model = build_network(
        config,
        channels=data["preprocessing"]["channels"],
        classes=len(data["class_names"]),
    )
    restore(saved, model)
    # Not among the variables, but the dropout of 2012 scales by it in inference.
    settings = config.global_batch_size, config.epochs, config.steps
    last = epoch_ends(data["train"], *settings)[-1]
    for name, schedule in dropouts(config, model).items():
        model.get_layer(name).rate = schedule(saved.step / last)
    model.bind(weights=f"step {saved.step} of {run.path}")
    return model


def _is_model(path: Path) -> bool:
    """Says whether Keras saved a whole model in a file, by its content."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return {"config.json", "model.weights.h5"} <= set(archive.namelist())
    if h5py.is_hdf5(path):
        with h5py.File(path) as file:
            return "model_config" in file.attrs
    return False


def _as_alexnet(model: keras.Model, path: str | Path) -> AlexNet:
    """Returns a functional model of any class as one that knows itself."""
    if isinstance(model, AlexNet):
        return model
    inputs, outputs = (getattr(model, kind, None) for kind in ("inputs", "outputs"))
    if not inputs or len(outputs) != 1:
        raise UserError(f"{path} is no functional model with a single output.")
    inputs = inputs[0] if len(inputs) == 1 else inputs
    return AlexNet(inputs, outputs[0], name=model.name)
