"""The section of params.yaml for pre-training without labels, and what it reads of a model's section."""

import json
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from pipeline.core.errors import InputError
from pipeline.core.model_params import BY_STAGE, BackboneModel, Count, Positive, Section, Seed, Share, Text

Reconstructing = Literal["denoise", "masked", "protein"]
OF_PRETRAIN = ("kind", "seed", "pretrained")
"""Keys of a model that pre-training does not read: it has its own."""


class Pretrain(Section):
    """Pre-training without labels: an autoencoder whose encoder is a model's backbone, on all packed images."""

    models: tuple[Text, ...] = Field(
        description="Models that are pre-trained, each of which has pretrained: stage; none by default."
    )
    start: bool | Text = Field(
        description="What the encoder starts from: false: random weights; true: timm's, downloaded; or a weight file."
    )
    objective: Reconstructing = Field(
        description="What is reconstructed: denoise: the image from one with noise. masked: patches that are hidden in "
        "all channels. protein: the protein's channel from the three reference stains."
    )
    noise: Positive = Field(
        description="denoise: standard deviation of the Gaussian noise, in units of the normalised image."
    )
    mask_share: float = Field(gt=0, lt=1, description="masked: share of the patches that are hidden.")
    mask_patch: int = Field(ge=2, multiple_of=2, description="masked: side of a patch (pixels), an even number.")
    epochs: Count = Field(description="Training epochs.")
    batch_size: int = Field(ge=2, description="Images per batch, over all processes.")
    learning_rate: Positive = Field(description="Peak learning rate of AdamW.")
    weight_decay: float = Field(ge=0, description="Weight decay of AdamW, on weight matrices only.")
    warmup: Share = Field(description="Linear warm-up, as a share of all steps; cosine decay follows.")
    ema_decay: float = Field(
        ge=0, lt=1, description="Decay of the moving average of the weights, which is what is saved; 0 is off."
    )
    clip_norm: Positive = Field(description="Maximum gradient norm; larger gradients are clipped.")
    compile: bool = Field(description="Use torch.compile: takes minutes at the start, speeds up steps on a GPU.")
    seed: Seed = Field(description="Random seed of the pre-training.")

    @field_validator("models")
    @classmethod
    def _unique(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(models)) < len(models):
            raise ValueError("models repeat")
        return models

    @field_validator("start")
    @classmethod
    def _not_itself(cls, start: bool | str) -> bool | str:
        if start == BY_STAGE:
            raise ValueError("an encoder cannot start from itself: name a weight file, true or false")
        return start


def encoder_section(model: BackboneModel) -> str:
    """What pre-training reads of a model's section, as JSON: not its head, nor how that is trained."""
    return model.model_dump_json(indent=2, include=set(BackboneModel.model_fields), exclude=set(OF_PRETRAIN))


def load_encoder(path: Path, pretrain: Pretrain) -> BackboneModel:
    """Read what ``encoder_section`` returned, as the section of a model that starts as ``pretrain`` says.

    Raises:
        InputError: the file is missing or of another version.
    """
    own = {"kind": "encoder", "seed": pretrain.seed, "pretrained": pretrain.start}
    try:
        return BackboneModel.model_validate_json(json.dumps(json.loads(path.read_text(encoding="utf-8")) | own))
    except (FileNotFoundError, ValueError):
        raise InputError(f"{path} is missing or of another version: run dvc repro complete-models") from None
