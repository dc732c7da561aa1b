"""A model's section of params.yaml: one of three kinds, each with the keys it reads and no others."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

LossName = Literal["focal", "bce", "asymmetric", "soft_f1", "lovasz"]
Precision = Literal["auto", "fp32", "bf16"]
Attention = Literal["none", "channel", "spatial", "cbam", "nonlocal", "self"]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Text = Annotated[str, StringConstraints(min_length=1)]


class Section(BaseModel):
    """A part of params.yaml: immutable, no silent conversion, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Augment(Section):
    """Random changes to a training image. ``1`` turns a factor off, ``0`` everything else."""

    crop: float = Field(gt=0, le=1, description="Side of a random window, as a share of the image's; the scale stays.")
    warp: Share = Field(
        description="Share of images that are rotated by any angle and changed by zoom, shift and shear; the others "
        "are only rotated by quarter turns and flipped, without interpolation."
    )
    zoom: float = Field(ge=1, description="Scale, drawn from 1/zoom to zoom.")
    shift: Share = Field(description="Largest translation, as a share of the side.")
    shear: float = Field(ge=0, lt=45, description="Largest shear (degrees).")
    gain: float = Field(ge=1, description="Brightness factor per channel, drawn from 1/gain to gain.")
    gamma: float = Field(ge=1, description="Gamma per channel, drawn from 1/gamma to gamma.")
    noise: float = Field(ge=0, description="Largest standard deviation of Gaussian noise, as a share of white.")


class Focal(Section):
    """Focal loss."""

    gamma: float = Field(ge=0, description="Focusing exponent: higher values give easy samples less weight.")
    alpha: Share | None = Field(description="Weight of positives; negatives get 1 - alpha. null weighs both alike.")


class Asymmetric(Section):
    """Asymmetric loss."""

    gamma_positive: float = Field(ge=0, description="Focusing exponent of positives.")
    gamma_negative: float = Field(ge=0, description="Focusing exponent of negatives.")
    margin: float = Field(ge=0, lt=1, description="Probability subtracted from negatives; easy ones then cost nothing.")


class Repeat(Section):
    """Repeat-factor sampling of rare labels."""

    below: Share = Field(description="Labels less frequent than this share of the samples are rare.")
    most: float = Field(ge=1, description="How often an epoch shows a sample at most; 1 turns repeats off.")


class ImageModel(Section):
    """What every kind of model has."""

    kind: str = Field(description="Kind of model; each kind has its own keys.")
    size: int = Field(ge=32, description="Side of the images the model sees (pixels).")
    seed: Seed = Field(description="Random seed of this model.")


class BackboneModel(ImageModel):
    """What the kinds with a neural network share."""

    backbone: str = Field(description="Name of a timm ResNet.")
    widths: tuple[Count, Count, Count, Count] | None = Field(
        description="Feature maps of the backbone's four stages; null keeps the backbone's own."
    )
    attention: Attention = Field(
        description="Attention blocks: channel (SE), spatial, cbam, nonlocal, or self (local self-attention)."
    )
    gate_init: Literal["identity", "paper"] = Field(
        description="Initial attention gates: identity starts at exactly 1; paper as published, near one half."
    )
    normalise: Literal["image", "dataset"] = Field(
        description="Input statistics: of each image, or fixed ones of the training folds."
    )
    yellow: Literal["mean", "red", "zero"] = Field(
        description="Filters of the yellow channel where pretrained weights are for RGB: mean of red and green, red, 0."
    )
    pretrained: bool | Text = Field(
        description="Initial weights: false is random, true is timm's from the hub, or a file such as weights/NAME."
    )
    precision: Precision = Field(description="auto uses bf16 where the hardware multiplies it natively.")
    augment: Augment


class NetworkModel(BackboneModel):
    """A network that is trained by gradient descent."""

    kind: Literal["network"] = Field(description="Kind of model; each kind has its own keys.")
    head: Literal["pooled", "label_queries"] = Field(
        description="pooled: average and max pooling, one linear layer. label_queries: each label attends for itself."
    )
    dropout: float = Field(ge=0, lt=1, description="Dropout before the last layer.")
    loss: dict[LossName, Positive] = Field(min_length=1, description="Weighted sum of losses, as {name: weight}.")
    focal: Focal
    asymmetric: Asymmetric
    label_balance: Share = Field(description="Weight of a label in the loss: frequency ** -label_balance; 0 is off.")
    label_smoothing: float = Field(ge=0, lt=1, description="Targets become share/2 and 1 - share/2; 0 is off.")
    repeat: Repeat
    epochs: Count = Field(description="Training epochs.")
    evaluate_every: Count = Field(description="Epochs between evaluations on the held-out fold; the last always is.")
    batch_size: int = Field(ge=2, description="Images per batch, of all processes together.")
    accumulate: Count = Field(description="Batches per optimizer step (gradient accumulation).")
    learning_rate: Positive = Field(description="Peak learning rate of AdamW.")
    weight_decay: float = Field(ge=0, description="Weight decay of AdamW, on weight matrices only.")
    warmup: Share = Field(description="Linear warm-up, as a share of all steps; cosine decay follows.")
    ema_decay: float = Field(ge=0, lt=1, description="Decay of the moving average of the weights (EMA); 0 is off.")
    keep: Literal["last", "best_loss"] = Field(
        description="Which averaged weights are kept: of the last epoch, or of the lowest held-out loss."
    )
    clip_norm: Positive = Field(description="Largest norm of the gradient.")
    compile: bool = Field(description="torch.compile: minutes at the start, faster steps on a GPU.")


class FrozenModel(BackboneModel):
    """A frozen network with a kernel ridge regression head, fitted in closed form: for up to thousands of samples."""

    kind: Literal["frozen"] = Field(description="Kind of model; each kind has its own keys.")
    pretrained: Literal[True] | Text = Field(
        description="Weights of the frozen network: true is timm's from the hub, or a file such as weights/NAME."
    )
    copies: Count = Field(description="Random augmentations of each image that the head is fitted to.")


class ClassicalModel(ImageModel):
    """Hand-crafted features of nucleus, cytoplasm and rim, and a random forest: no neural network."""

    precision: ClassVar[Precision] = "fp32"
    """Hand-crafted features are not computed in mixed precision."""

    kind: Literal["classical"] = Field(description="Kind of model; each kind has its own keys.")


Model = NetworkModel | FrozenModel | ClassicalModel
KINDS: dict[str, type[Model]] = {"network": NetworkModel, "frozen": FrozenModel, "classical": ClassicalModel}
