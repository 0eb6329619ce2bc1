"""Recipes: named configurations.

keras-alexnet train --recipe digits --run-dir runs/digits
keras-alexnet train --recipe alexnet-2012 --data folder:imagenet --run-dir runs/2012
"""

from __future__ import annotations

from keras_alexnet.config import TrainConfig
from keras_alexnet.errors import unknown

RECIPES = {
    # The paper, sections 4 and 5. Its rate was divided by ten when the validation error
    # stopped falling; the fractions of 90 epochs at which that happened in the logged
    # run (25, 51 and 79 of 91) stand in for it. The decay multiplies the rate outside
    # the gradient there, as an L2 penalty of half its size does.
    "alexnet-2012": {
        "architecture": "alexnet_2012",
        "epochs": 90,
        "global_batch_size": 128,
        "learning_rate": "step(0.01, boundaries=(0.275, 0.56, 0.868))",
        "momentum": 0.9,
        "weight_decay": 0.0005,
        "dropout": "0.5",
        "horizontal_flip": True,
        "color_noise": 0.1,
    },
    # 1,797 handwritten digits of 8 x 8 pixels, enlarged. A mirrored digit is another
    # digit or none, so no flips.
    "digits": {
        "architecture": "alexnet_mini",
        "image_size": 28,
        "resize_size": 28,
        "crop_padding": 3,
        "horizontal_flip": False,
        "rotation": 10.0,
        "zoom": 0.1,
        "epochs": 30,
        "global_batch_size": 64,
        "learning_rate": "cosine(0.02, warmup=0.05)",
        "momentum": 0.9,
        "weight_decay": 0.0005,
        "dropout": "0.5",
    },
}


def get_recipe(name: str, data: str = "digits") -> TrainConfig:
    """Returns the configuration that a recipe stands for.

    Args:
        name: A key of `RECIPES`, or `"auto"` for the one that suits the data.
        data: Where the images come from.

    Raises:
        ValueError: There is no such recipe.
    """
    if name == "auto":
        name = "digits" if data == "digits" else "alexnet-2012"
    if name not in RECIPES:
        raise ValueError(unknown(name, "recipe", [*RECIPES, "auto"]))
    return TrainConfig(**{**RECIPES[name], "recipe": name, "data": data})
