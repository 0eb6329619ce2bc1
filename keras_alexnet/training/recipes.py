"""Recipes: named configurations.

keras-alexnet train --recipe digits --run-dir runs/digits
keras-alexnet train --recipe alexnet-2012 --data folder:imagenet --run-dir runs/2012
keras-alexnet train --recipe fine-tune --data folder:photos \
    --weights alexnet-owt-7be5be79.pth --run-dir runs/photos
"""

from __future__ import annotations

from typing import Any

from keras_alexnet.errors import UserError, unknown

RECIPES: dict[str, dict[str, Any]] = {
    # The paper, sections 4 and 5. Its rate was divided by ten, by hand, when the
    # validation error stopped falling. The fractions of 90 epochs at which that was so
    # in the logged run (25, 51 and 79 of 91) stand in for it: unlike plateau(0.01) they
    # need no images to be kept from training and are known before a run. The decay
    # multiplies the rate outside the gradient there, as an L2 penalty of half its size
    # does. All layers have an equal rate, it says, and of biases nothing: they have the
    # same here, and twice as much in alexnet-2012-source, as the program gave them.
    "alexnet-2012": {
        "architecture": "alexnet_2012",
        "epochs": 90,
        "global_batch_size": 128,
        "learning_rate": "step(0.01, boundaries=(0.275, 0.56, 0.868))",
        "bias_multiplier": "1",
        "momentum": 0.9,
        "weight_decay": 0.0005,
        "dropout": "0.5",
        "horizontal_flip": True,
        "color_noise": "0.1",
    },
    # The run behind the paper's 40.7 / 18.2 %: network #145, whose settings and log are
    # layer-params-145.cfg of the published source. Fractions of 91 epochs are cut after
    # six digits, so that they lie in the first step of their epoch.
    "alexnet-2012-source": {
        "architecture": "alexnet_2012_source",
        # The log ends there, before the rate was "pushed up again".
        "epochs": 91,
        # Default of convnet.py.
        "global_batch_size": 128,
        # epsW, divided by ten in epochs 25, 51 and 79.
        "learning_rate": "step(0.01, boundaries=(0.274725, 0.560439, 0.868131))",
        # epsB, which is 0.02 at the start and still is in the file that the run left:
        # as a multiple of a rate that falls.
        "bias_multiplier": (
            "piecewise((2, 20, 200, 2000), (0.274725, 0.560439, 0.868131))"
        ),
        # epsW of conv1: 1e-5, a tenth of the others', in epoch 67 and 0 in epoch 72.
        "rate_multipliers": ("conv1=piecewise((1, 0.1, 0), (0.736263, 0.791208))",),
        # momW, momB, wc.
        "momentum": 0.9,
        "weight_decay": 0.0005,
        "dropout": "0.5",
        "horizontal_flip": True,
        # Switched off in epoch 67; until then divided by 1.1 (convdata_jpeg.py).
        "color_noise": "piecewise((0.1, 0), (0.736263,))",
        "color_noise_form": "program",
        # Its centre, from every crop.
        "mean": "image",
        # Of which 224 are cut at any of 33 x 33 places.
        "resize_size": 256,
    },
    # models/bvlc_alexnet of Caffe: solver.prototxt and train_val.prototxt.
    "caffe": {
        "architecture": "bvlc_alexnet",
        # max_iter 450,000 of 256 images are 89.9 passes over 1,281,167. (The published
        # weights are those after 360,000.)
        "epochs": 90,
        "global_batch_size": 256,
        # base_lr 0.01, gamma 0.1, stepsize 100,000 of the 450,410 steps of 90 epochs.
        "learning_rate": (
            "step(0.01, boundaries=(0.222019, 0.444039, 0.666059, 0.888079))"
        ),
        # lr_mult 2 and decay_mult 0 of every bias.
        "bias_multiplier": "2",
        "momentum": 0.9,
        "weight_decay": 0.0005,
        # dropout_ratio of drop6 and drop7.
        "dropout": "0.5",
        # transform_param: mirror and crop, nothing else.
        "horizontal_flip": True,
        "color_noise": "0",
    },
    # layer-params-*.cfg of cuda-convnet, the 2012 program: epsW, epsB, momW and momB,
    # wc of each layer; the image of means (convdata.py), no augmentation. The file of
    # 80sec says to divide the rate by ten after 8 epochs and not when to stop; that of
    # 18pct after 120 and after 130; that of 19pct says nothing, and has the same here.
    **{
        f"cifar-{name}": {
            "architecture": f"cifar_{name}",
            "epochs": epochs,
            "global_batch_size": 128,
            "learning_rate": f"step(0.001, boundaries={boundaries})",
            "bias_multiplier": "2",
            "momentum": 0.9,
            "weight_decay": 0.004,
            "decay_multipliers": decays,
            "dropout": "0",
            "horizontal_flip": False,
            "color_noise": "0",
            "mean": "image",
            "resize_size": 32,
        }
        for name, epochs, boundaries, decays in (
            ("80sec", 10, "(0.8,)", ("fc64=7.5", "fc10=7.5")),
            ("19pct", 140, "(0.857142, 0.928571)", ("fc10=750",)),
            ("18pct", 140, "(0.857142, 0.928571)", ("fc10=250",)),
        )
    },
    # From published weights to other classes. Rates are those of Caffe's example of it,
    # models/finetune_flickr_style: base_lr 0.001, a tenth of the rate from scratch, the
    # new output layer 10 times as fast, biases twice. To keep the convolutions as they
    # are: --freeze "conv*".
    "fine-tune": {
        # That of the weights.
        "architecture": None,
        "class_weights": None,
        "horizontal_flip": None,
        "validation_fraction": 0.1,
        "keep": "best",
        "precision": "auto",
        # 10 for fc8, and for hidden layers that the weights do not have.
        "rate_multipliers": None,
        "bias_multiplier": "2",
        "momentum": 0.9,
        "weight_decay": 0.0005,
        "dropout": "0.5",
        "color_noise": "0",
        # Ours: a cosine needs no boundaries that would depend on the number of images.
        # Its rise keeps the new layer's first gradients from disturbing the others.
        "learning_rate": "cosine(0.001, warmup=0.05)",
        "epochs": 20,
        "global_batch_size": 64,
    },
    # For images of one's own: what is None is chosen when they are known (`choices`).
    # Everything that is chosen on the way is chosen on validation images.
    "images": {
        "architecture": None,
        "class_weights": None,
        "horizontal_flip": None,
        "crop_padding": None,
        "zoom": None,
        "color_noise": "0",
        "validation_fraction": 0.1,
        "keep": "best",
        "epochs": None,
        "global_batch_size": None,
        "learning_rate": None,
        "momentum": 0.9,
        "weight_decay": None,
        "dropout": "0.2",
        "precision": "auto",
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


# Recipes that leave settings to be chosen when the images are known.
CHOOSING = ("images", "fine-tune")


def recipe_settings(
    name: str, data: str, weights: str | None = None
) -> tuple[str, dict[str, Any]]:
    """Returns a recipe's own name and its settings.

    `"auto"` is the recipe that suits the data and the weights to start from.

    Raises:
        ValueError: There is no such recipe.
    """
    if name == "auto":
        name = "digits" if data == "digits" else "images"
        name = "fine-tune" if weights is not None else name
    if name not in RECIPES:
        raise UserError(unknown(name, "recipe", [*RECIPES, "auto"]))
    return name, RECIPES[name]
