"""params.yaml as frozen, typed sections.

No section has defaults: every value stands in params.yaml, where DVC tracks it. This module
therefore cannot change a result, and no stage lists it as a dependency.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.errors import InputError, run_stage
from pipeline.labels import LABELS

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
View = Literal["identity", "rot90", "rot180", "rot270", "flip", "flip_rot90", "flip_rot180", "flip_rot270"]
LossName = Literal["focal", "bce", "asymmetric", "soft_f1", "lovasz"]
Policy = Literal["fixed", "global", "per_label", "counts", "expected"]
Blending = Literal["probabilities", "logits", "ranks", "weights"]
Calibrating = Literal["none", "temperature", "platt"]

MEASURED = "measured"
"""The backbone that is none: features of classical image analysis."""


class Section(BaseModel):
    """A part of params.yaml: immutable, nothing converted silently, nothing unknown let in."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Data(Section):
    """Where the images come from: the first source holds the test set, the others add training samples."""

    sources: Annotated[tuple[Name, ...], Field(min_length=1)]


class Sample(Section):
    """The simulated competition."""

    seed: Seed
    train: Count
    test: Count
    size: Annotated[int, Field(ge=64)]
    fields_per_antibody: Positive
    near_duplicates: Share
    test_exposure: Positive


class Pack(Section):
    """The packed array."""

    size: Annotated[int, Field(ge=32)]


class Folds(Section):
    """Cross-validation."""

    ids: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=2)]
    near_duplicates: Annotated[int, Field(ge=0, le=256)]
    seed: Seed

    @field_validator("ids")
    @classmethod
    def _unique(cls, ids: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(ids)) < len(ids):
            raise ValueError("fold ids repeat")
        return ids


class Augment(Section):
    """Random changes to a training image; ``off`` is 0 (or 1 for the factors)."""

    crop: Annotated[float, Field(gt=0, le=1)]
    warp: Share
    zoom: Annotated[float, Field(ge=1)]
    shift: Share
    shear: Annotated[float, Field(ge=0, lt=45)]
    gain: Annotated[float, Field(ge=1)]
    gamma: Annotated[float, Field(ge=1)]
    noise: Annotated[float, Field(ge=0)]


class Focal(Section):
    """Focal loss."""

    gamma: Annotated[float, Field(ge=0)]
    alpha: Share | None


class Asymmetric(Section):
    """Asymmetric loss."""

    gamma_positive: Annotated[float, Field(ge=0)]
    gamma_negative: Annotated[float, Field(ge=0)]
    margin: Annotated[float, Field(ge=0, lt=1)]


class Repeat(Section):
    """Rare-label sampling; off where ``most`` is 1."""

    below: Share
    most: Annotated[float, Field(ge=1)]


class Model(Section):
    """One model: its network, its input and its training recipe."""

    backbone: str
    channels: tuple[Count, Count, Count, Count] | None
    attention: Literal["none", "channel", "spatial", "cbam", "nonlocal", "self"]
    init: Literal["identity", "paper"]
    head: Literal["pooled", "label_queries", "kernel", "forest"]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    size: Annotated[int, Field(ge=32)]
    normalise: Literal["image", "dataset"]
    pretrained: bool | Annotated[str, Field(min_length=1)]
    yellow: Literal["mean", "red", "zero"]
    loss: Annotated[dict[LossName, Positive], Field(min_length=1)]
    focal: Focal
    asymmetric: Asymmetric
    label_balance: Share
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    repeat: Repeat
    epochs: Count
    evaluate_every: Count
    batch_size: Annotated[int, Field(ge=2)]
    accumulate: Count
    learning_rate: Positive
    weight_decay: Annotated[float, Field(ge=0)]
    warmup: Share
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    keep: Literal["last", "best_loss"]
    clip_norm: Positive
    precision: Literal["auto", "fp32", "bf16"]
    compile: bool
    augment: Augment
    seed: Seed

    @model_validator(mode="after")
    def _measured_or_seen(self) -> "Model":
        if (self.head == "forest") != (self.backbone == MEASURED):
            raise ValueError(
                f"backbone {MEASURED} and head forest go together: it takes what is measured, and nothing else"
            )
        if self.head == "forest" and self.pretrained is not False:
            raise ValueError(f"backbone {MEASURED} has no weights: pretrained must be false")
        return self

    @model_validator(mode="after")
    def _frozen_from_something(self) -> "Model":
        if self.head == "kernel" and self.pretrained is False:
            raise ValueError("head kernel trains no network: pretrained must say with what weights")
        return self


class Tta(Section):
    """Test-time augmentation."""

    views: Annotated[tuple[View, ...], Field(min_length=1)]

    @field_validator("views")
    @classmethod
    def _unique(cls, views: tuple[View, ...]) -> tuple[View, ...]:
        if len(set(views)) < len(views):
            raise ValueError("views repeat")
        return views


class Ensemble(Section):
    """From predictions to decisions."""

    blend: Blending
    pull: Annotated[float, Field(ge=0)]
    calibration: Calibrating
    spread: Annotated[float, Field(ge=0)]
    thresholds: Policy
    fixed: Share
    shrinkage: Annotated[float, Field(ge=0)]
    proportions: dict[str, Share]

    @field_validator("proportions")
    @classmethod
    def _labels_exist(cls, proportions: dict[str, float]) -> dict[str, float]:
        if unknown := sorted(set(proportions) - set(LABELS)):
            raise ValueError(f"no such label: {', '.join(unknown)}")
        return proportions


class Score(Section):
    """Intervals."""

    resamples: Count
    confidence: Annotated[float, Field(gt=0, lt=1)]
    seed: Seed


class Machine(Section):
    """How this machine does the work; no result depends on it and no stage is rerun for it."""

    workers: Annotated[int, Field(ge=0)] | Literal["auto"]
    predict_batch: Count
    devices: Count | Literal["auto"]
    save_minutes: Annotated[float, Field(ge=0)]
    tensorboard: bool


class Params(Section):
    """The whole of params.yaml."""

    data: Data
    sample: Sample
    pack: Pack
    folds: Folds
    models: Annotated[dict[Name, Model], Field(min_length=1)]
    tta: Tta
    ensemble: Ensemble
    score: Score
    machine: Machine

    @model_validator(mode="after")
    def _sizes_fit(self) -> "Params":
        for name, model in self.models.items():
            if model.size > self.pack.size:
                raise ValueError(f"models.{name}.size is {model.size}, larger than pack.size {self.pack.size}")
        return self

    @property
    def networks(self) -> list[Model]:
        """The models that are networks.

        Raises:
            InputError: none is.
        """
        found = [model for model in self.models.values() if model.backbone != MEASURED]
        if not found:
            raise InputError("params.yaml: none of its models is a network")
        return found


def load(path: Path = Path("params.yaml")) -> Params:
    """Read and check the whole file, whichever section the caller needs: a typo must not surface hours later.

    Raises:
        InputError: the file is missing or not YAML, or a key is unknown, missing or of the wrong type;
            the message names every such key with what is allowed.
    """
    try:
        # As DVC reads it: "1e-3" is a number, and merge keys (<<) are resolved.
        raw: Any = YAML(typ="safe").load(path)
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run the command in the project's root folder") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    try:
        # JSON's strict mode takes lists for tuples and whole numbers for floats, and converts nothing else.
        return Params.model_validate_json(json.dumps(raw))
    except (TypeError, ValueError) as error:
        problems = _problems(error) if isinstance(error, ValidationError) else [str(error)]
        raise InputError(f"{path}: " + "; ".join(problems)) from None


def _problems(error: ValidationError) -> list[str]:
    """One phrase per wrong key: its dotted name, what is wrong, and the value given."""
    phrases = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = f"unknown key; allowed here: {', '.join(_siblings(item['loc'][:-1]))}"
        elif item["type"] == "missing":
            message = "this key is missing"
        elif not isinstance(item["input"], dict):
            message += f" (it is {item['input']!r})"
        phrases.append(f"{key}: {message}" if key else message)
    return phrases


def _siblings(loc: tuple[int | str, ...]) -> list[str]:
    section: type[BaseModel] = Params
    for part in loc:
        if section is Params and part == "models":
            section = Model
        elif part in section.model_fields:
            annotation = section.model_fields[str(part)].annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                section = annotation
    return list(section.model_fields)


if __name__ == "__main__":
    # `make repro` checks the file before anything runs; DVC would meet a typo only at the stage that reads it.
    run_stage(lambda: print(f"params.yaml is valid: sources {', '.join(load().data.sources)}"))
