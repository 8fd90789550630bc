"""The presets: what each network looks like, and how it is trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final, Literal

from train.model import Architecture


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """How far training images are bent at most; every image and every step draws its own.

    Attributes:
        degrees: rotation, either way.
        scale: enlargement or reduction, as a share, for each axis by itself.
        shear: displacement of a row by this share of its distance from the middle.
        shift: displacement in pixels, for each axis by itself.
        elastic: displacement in pixels of each of 5x5 control points, for each axis by itself.
    """

    degrees: float
    scale: float
    shear: float
    shift: float
    elastic: float

    def scaled(self, share: float) -> Distortion:
        """Give this share of every limit."""
        return Distortion(**{name: share * limit for name, limit in asdict(self).items()})


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """How much worse training images are made at most (train.degrade); every image and every step draws its own.

    Attributes:
        share: the share of the images that each of these is done to.
        thickness: how far strokes grow or shrink, in pixels on each side, up to 1.
        blur: the share of the full blur.
        fading: the share of the ink that is lost.
        noise: the standard deviation of what is added to each pixel, in shares of full ink.
    """

    share: float
    thickness: float
    blur: float
    fading: float
    noise: float


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Attributes:
        initialisation: how the weights are drawn (train.initialise).
        epochs: the times that every training image is shown, where `steps` is None.
        steps: the number of batches in all, or None.
        batch: images a step, over all processes.
        learning_rate: that of Adam; with `one_cycle` the highest.
        one_cycle: whether the learning rate rises to the highest and falls to almost 0 (Smith and Topin 2018,
            arXiv:1708.07120).
        weight_decay: that of AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101); at 0 this is Adam.
        label_smoothing: the share of the target that is spread over all answers, "no digit" among them.
        early_rows: the share of the loss on the answers after rows 1 to 27, which rises with the square of the row;
            the answer after row 28 has the rest.
        average_decay: the network that is kept is a running mean of the trained weights with this decay; at 0 it is
            the trained weights themselves.
        report_every: steps between two lines of metrics, with the accuracy on the step's own batch; None for a line
            an epoch, with the accuracy on the held-out images.
        distortion: how training images are bent at first, or None.
        last_distortion: the share of it that is left at the end, to which it falls steadily: the last images are more
            like those that will be read (Touvron et al. 2019, arXiv:1906.06423).
        degradation: how much worse they are made after that, or None.
        negatives: images of no digit (train.negatives) that are added to each batch; with them the network learns an
            eleventh answer, "no digit", whose logit is always 0. So the logarithm of the sum of the ten digits'
            exponentials, their negative energy (Liu et al. 2020, arXiv:2010.03759), is the log-odds of a digit.
        teacher_share: the share of the target that is what a teacher says of the same bent image (Hinton et al. 2015,
            arXiv:1503.02531; with the same view for both, Beyer et al. 2022, arXiv:2106.05237), where there is one;
            the label has the rest.
        precision: what the network computes with in training; weights, optimizer and loss are float32 all the same.
            bfloat16 is much faster where a CPU has units for it (AMX) and slower elsewhere. On a GPU the LSTM stays in
            float32, or the TF32 that cuDNN takes for it, and bfloat16 reaches the other layers alone.
    """

    initialisation: Literal["tutorial", "orthogonal"]
    epochs: int
    steps: int | None = None
    batch: int
    learning_rate: float
    one_cycle: bool
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    early_rows: float = 0.0
    average_decay: float = 0.0
    report_every: int | None = None
    distortion: Distortion | None = None
    last_distortion: float = 1.0
    degradation: Degradation | None = None
    negatives: int = 0
    teacher_share: float = 0.8
    precision: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A network and its recipe."""

    architecture: Architecture
    recipe: Recipe


PRESETS: Final = {
    # The TensorFlow tutorial's network and recipe, to the letter.
    "seed": Preset(
        architecture=Architecture(hidden=128, projection=128),
        recipe=Recipe(
            initialisation="tutorial",
            epochs=1,
            steps=501,
            batch=100,
            learning_rate=1e-3,
            one_cycle=False,
            report_every=50,
        ),
    ),
    # The smallest network that reads digits well: it must stay under 90,000 weights and 100,000 bytes as int8.
    "edge": Preset(
        architecture=Architecture(hidden=126),  # with the two sentinels of its int8 file 128, what kernels like best
        recipe=Recipe(
            initialisation="orthogonal",
            epochs=100,
            batch=128,
            learning_rate=5e-3,
            one_cycle=True,
            weight_decay=0.02,
            label_smoothing=0.02,
            early_rows=1 / 3,
            average_decay=0.999,
            distortion=Distortion(degrees=13, scale=0.12, shear=0.15, shift=2, elastic=1.6),
            degradation=Degradation(share=0.3, thickness=0.8, blur=1, fading=0.7, noise=0.25),
            negatives=16,
        ),
    ),
    # Accuracy first, for half an hour of a core: the LSTM reads what convolutions see, both ways.
    "accurate": Preset(
        architecture=Architecture(hidden=64, bidirectional=True, convolutions=(16, 32, 32)),
        recipe=Recipe(
            initialisation="orthogonal",
            epochs=100,
            batch=128,
            learning_rate=3e-3,
            one_cycle=True,
            weight_decay=0.05,
            label_smoothing=0.02,
            average_decay=0.999,
            distortion=Distortion(degrees=20, scale=0.12, shear=0.15, shift=4, elastic=1.6),
            last_distortion=0.4,
            degradation=Degradation(share=0.3, thickness=0.8, blur=1, fading=0.7, noise=0.25),
            negatives=16,
        ),
    ),
}
