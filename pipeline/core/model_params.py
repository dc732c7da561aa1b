"""The sections of params.yaml that describe a model: three kinds, each with only the keys that it reads."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

LossName = Literal["focal", "bce", "asymmetric", "soft_f1", "lovasz"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Attention = Literal["none", "channel", "spatial", "cbam", "nonlocal", "self"]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Text = Annotated[str, StringConstraints(min_length=1)]
BY_STAGE = "stage"
"""As ``pretrained``: the encoder from the stage ``pretrain``. A file of this name is written as ``./stage``."""


class Section(BaseModel):
    """A section of params.yaml: immutable, without type conversion; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Augment(Section):
    """Random augmentation of training images. 1 turns off crop, zoom, gain and gamma; 0 turns off the others."""

    crop: float = Field(
        gt=0, le=1, description="Side of a random crop, as a share of the image side; it is not rescaled."
    )
    warp: Share = Field(
        description="Share of images with a random affine transform (rotation by any angle, zoom, shift, shear); "
        "the others are only rotated by multiples of 90 degrees, without interpolation. All are flipped at random."
    )
    zoom: float = Field(ge=1, description="Scale factor, drawn from 1/zoom to zoom.")
    shift: Share = Field(description="Maximum translation, as a share of the image side.")
    shear: float = Field(ge=0, lt=45, description="Maximum shear (degrees).")
    gain: float = Field(ge=1, description="Factor of each channel after normalisation, drawn from 1/gain to gain.")
    gamma: float = Field(ge=1, description="Gamma of each channel, drawn from 1/gamma to gamma.")
    noise: float = Field(ge=0, description="Maximum standard deviation of Gaussian noise, as a share of 255.")
    drop_stains: Share = Field(
        description="Share of images in which a random subset of the three reference stains is set to 0, so that the "
        "model can predict samples that lack them. The protein is never dropped."
    )


class Focal(Section):
    """Focal loss."""

    gamma: float = Field(ge=0, description="Focusing exponent: higher values give easy samples less weight.")
    alpha: Share | None = Field(description="Weight of positives; negatives get 1 - alpha. null: no weights.")


class Asymmetric(Section):
    """Asymmetric loss."""

    gamma_positive: float = Field(ge=0, description="Focusing exponent of positives.")
    gamma_negative: float = Field(ge=0, description="Focusing exponent of negatives.")
    margin: float = Field(
        ge=0, lt=1, description="Subtracted from the probability of negatives; below it, their loss is 0."
    )


class Repeat(Section):
    """Repeat-factor sampling of rare labels."""

    below: Share = Field(description="Labels that less than this share of the samples have are oversampled.")
    most: float = Field(ge=1, description="Maximum times that an epoch shows a sample; 1 turns oversampling off.")


class ImageModel(Section):
    """Keys of every kind of model."""

    kind: str = Field(description="Kind of model; each kind has its own keys.")
    size: int = Field(ge=32, description="Side of the model's input images (pixels).")
    seed: Seed = Field(description="Random seed of this model.")


class BackboneModel(ImageModel):
    """Keys of the kinds with a neural network."""

    backbone: str = Field(description="Name of a timm model with feature maps, convolutional or a transformer.")
    widths: tuple[Count, Count, Count, Count] | None = Field(
        description="Feature maps in the four stages of a ResNet; null keeps the backbone's default."
    )
    attention: Attention = Field(
        description="Attention blocks: channel (SE), spatial, cbam, nonlocal, or self (local self-attention). In a "
        "ResNet, they are in its blocks: channel, spatial and cbam replace those it brings (seresnet50: SE), which "
        "stay with none, nonlocal and self. In other convolutional networks, they follow each stage (nonlocal: two), "
        "and self does not exist. Transformers have none."
    )
    gate_init: Literal["identity", "paper"] = Field(
        description="Initial value of attention gates: identity is exactly 1, paper (as published) is about 0.5."
    )
    normalise: Literal["image", "dataset"] = Field(
        description="Normalise inputs by the statistics of each image, or of the training folds (dataset)."
    )
    yellow: Literal["mean", "red", "zero"] = Field(
        description="Yellow channel's filters when pretrained weights are RGB: mean of red and green, red, or zero."
    )
    pretrained: bool | Text = Field(
        description="Initial weights: false: random; true: timm's, downloaded; stage: the model's own encoder from the "
        "stage pretrain; or a weight file, e.g. weights/NAME."
    )
    precision: Precision = Field(
        description="Type of the forward pass. auto: bf16 if the hardware supports it natively, fp16 on older GPUs, "
        "fp32 on other CPUs."
    )
    augment: Augment


class NetworkModel(BackboneModel):
    """A network that is trained by gradient descent."""

    kind: Literal["network"] = Field(description="Kind of model; each kind has its own keys.")
    head: Literal["pooled", "label_queries", "hard_label_queries"] = Field(
        description="pooled: average and max pooling, linear layer. label_queries: one attention query per label. "
        "hard_label_queries: in training, each query sees single positions, drawn by its attention."
    )
    pyramid: Count | None = Field(
        description="label_queries: channels of a feature pyramid of the last three stages, in which queries find fine "
        "and coarse positions; null: they see the last stage alone."
    )
    dropout: float = Field(ge=0, lt=1, description="Dropout before the last layer.")
    loss: dict[LossName, Positive] = Field(min_length=1, description="Weighted sum of losses, as {name: weight}.")
    focal: Focal
    asymmetric: Asymmetric
    label_balance: Share = Field(description="Weight of a label in the loss: frequency ** -label_balance; 0 is off.")
    label_smoothing: float = Field(ge=0, lt=1, description="Value s replaces targets by s/2 and 1 - s/2; 0 is off.")
    repeat: Repeat
    epochs: Count = Field(description="Training epochs.")
    evaluate_every: Count = Field(
        description="Epochs between evaluations on the held-out fold; the last epoch always is."
    )
    batch_size: int = Field(ge=2, description="Images per batch, over all processes.")
    accumulate: Count = Field(description="Batches per optimizer step (gradient accumulation).")
    learning_rate: Positive = Field(description="Peak learning rate of AdamW.")
    weight_decay: float = Field(ge=0, description="Weight decay of AdamW, on weight matrices only.")
    warmup: Share = Field(description="Linear warm-up, as a share of all steps; cosine decay follows.")
    ema_decay: float = Field(
        ge=0,
        lt=1,
        description="Decay of the exponential moving average of weights (EMA); that of step t is at most "
        "(1 + t) / (10 + t). 0 is off.",
    )
    keep: Literal["last", "best_loss"] = Field(
        description="Which EMA weights are saved: last epoch's, or those with the lowest loss on the held-out fold."
    )
    clip_norm: Positive = Field(description="Maximum gradient norm; larger gradients are clipped.")
    compile: bool = Field(description="Use torch.compile: takes minutes at the start, speeds up steps on a GPU.")


class FrozenModel(BackboneModel):
    """A frozen network with a kernel ridge regression head, fitted in closed form: for up to thousands of samples."""

    kind: Literal["frozen"] = Field(description="Kind of model; each kind has its own keys.")
    pretrained: Literal[True] | Text = Field(
        description="Weights of the frozen network: true: timm's, downloaded; stage: the model's own encoder from the "
        "stage pretrain; or a weight file, e.g. weights/NAME."
    )
    copies: Count = Field(description="Augmented copies of each training image that the head is fitted to.")


class ClassicalModel(ImageModel):
    """Hand-crafted features of nucleus, cytoplasm and cell rim, and a random forest. No neural network."""

    precision: ClassVar[Precision] = "fp32"
    """Hand-crafted features are not computed in mixed precision."""

    kind: Literal["classical"] = Field(description="Kind of model; each kind has its own keys.")


Model = NetworkModel | FrozenModel | ClassicalModel
KINDS: dict[str, type[Model]] = {"network": NetworkModel, "frozen": FrozenModel, "classical": ClassicalModel}
