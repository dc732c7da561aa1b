"""params.yaml as frozen, typed sections. ``python -m pipeline params`` prints every key.

No key has a default in code: every value is in params.yaml, where DVC tracks it. Changing this module therefore cannot
change a result.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.core.labels import LABELS
from pipeline.core.model_params import (
    BY_STAGE,
    KINDS,
    Asymmetric,
    Augment,
    BackboneModel,
    ClassicalModel,
    Count,
    Focal,
    FrozenModel,
    LossName,
    Model,
    NetworkModel,
    Positive,
    Precision,
    Repeat,
    Section,
    Seed,
    Share,
)
from pipeline.core.pack_params import LONGEST_NAME, ChannelScaling, Name, Pack, Percentile
from pipeline.core.pretrain_params import Pretrain, Reconstructing, encoder_section, load_encoder
from pipeline.core.search_params import Dimension, Kind, Objective, Pruner, Range, Search, Value
from pipeline.core.section_files import read_sections

__all__ = [
    "BY_STAGE", "KINDS", "Asymmetric", "Augment", "BackboneModel", "Blending", "Calibrating", "ChannelScaling",
    "ClassicalModel", "Data", "Dimension", "Ensemble", "Focal", "Folds", "FrozenModel", "Kind", "LossName", "Machine",
    "Model", "NetworkModel", "Objective", "Pack", "Params", "Percentile", "Policy", "Precision", "Pretrain", "Pruner",
    "Range", "Reconstructing", "Repeat", "Score", "Search", "Section", "Simulation", "Tta", "Value", "View",
    "WeightsProfile", "complete_models", "encoder_section", "load", "load_encoder", "load_model",
    "load_weights_profile", "parse_model",
]  # fmt: skip

ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=LONGEST_NAME)]
"""Without dots, at which DVC splits ``models.NAME``."""
OUTPUTS = tuple(
    path.name for path in (paths.PACKED, paths.CONTACT_SHEETS, paths.FOLDS, paths.DUPLICATES, paths.FOLDS_AUDIT)
)
"""Names in data/ of what the pipeline writes."""
RESERVED = ("con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10)))
"""Names that Windows reserves for devices."""
View = Literal["identity", "rot90", "rot180", "rot270", "flip", "flip_rot90", "flip_rot180", "flip_rot270"]
Policy = Literal["fixed", "global", "per_label", "counts", "expected", "bagged"]
Blending = Literal["probabilities", "logits", "ranks", "weights"]
Calibrating = Literal["none", "temperature", "platt"]
ModelSection = Annotated[Model, Field(discriminator="kind")]


class Data(Section):
    """Sources of the images."""

    sources: tuple[Name, ...] = Field(
        min_length=1,
        description="Folders in data/. The first one contains the test set; the others add training samples.",
    )
    draws: dict[Name, Positive] = Field(
        description="Times that an epoch shows a sample of a source, on average, by source; those of sources that are "
        "not named here are shown once. 0.25 shows a fourth of them, another one in each epoch. Read by models of kind "
        "network."
    )


class Simulation(Section):
    """The simulated competition."""

    seed: Seed = Field(description="Random seed of the simulation.")
    train: Count = Field(description="Training samples.")
    test: Count = Field(description="Test samples.")
    size: int = Field(ge=64, description="Side of the simulated images (pixels).")
    fields_per_antibody: Positive = Field(description="Fields of view per antibody, on average.")
    near_duplicates: Share = Field(description="Share of samples that are near-duplicates of another sample.")
    test_exposure: Positive = Field(
        description="Brightness of test images relative to training images (0.75 in the real competition)."
    )


class Folds(Section):
    """Cross-validation."""

    ids: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=2, description="Fold ids.")
    near_duplicates: int = Field(
        ge=0,
        le=256,
        description="Images are near-duplicates if their perceptual hashes differ in at most this many of 256 bits.",
    )
    seed: Seed = Field(description="Random seed of the assignment, which breaks ties.")

    @field_validator("ids")
    @classmethod
    def _unique(cls, ids: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(ids)) < len(ids):
            raise ValueError("fold ids repeat")
        return ids


class Templates(Section):
    """One whole section of each kind, with the values of the keys that models omit. Templates are not trained."""

    network: NetworkModel
    frozen: FrozenModel
    classical: ClassicalModel


class Tta(Section):
    """Test-time augmentation."""

    views: tuple[View, ...] = Field(min_length=1, description="Views whose probabilities are averaged.")

    @field_validator("views")
    @classmethod
    def _unique(cls, views: tuple[View, ...]) -> tuple[View, ...]:
        if len(set(views)) < len(views):
            raise ValueError("views repeat")
        return views


class Ensemble(Section):
    """Blending, calibration and decision thresholds, all fitted to out-of-fold predictions."""

    blend: Blending = Field(
        description="Mean of probabilities, logits or ranks. weights: mean of logits with learned weights."
    )
    weight_l2: float = Field(
        ge=0,
        description="blend weights: L2 penalty towards equal weights, which matters less with more samples; 0 is off.",
    )
    calibration: Calibrating = Field(
        description="temperature: one scale for all logits. platt: also an offset per label."
    )
    offset_sd: float = Field(
        ge=0, description="platt: standard deviation of the labels' offsets around the shared one (logits)."
    )
    thresholds: Policy = Field(
        description="fixed: a constant. global: one threshold with the best macro-F1. per_label: best F1 of each "
        "label, shrunk towards the global threshold. counts: as many positives as the label's proportion. expected: "
        "highest F1 expected under the probabilities. bagged: from there, shifted to each label's best F1 and to the "
        "best macro-F1, averaged over bootstrap resamples."
    )
    fixed_threshold: Share = Field(description="fixed: the decision threshold (probability).")
    shrinkage: float = Field(
        ge=0,
        description="per_label, expected, bagged: positives at which a label's own threshold and what all labels share "
        "weigh the same.",
    )
    proportions: dict[str, Share] = Field(
        description="counts: proportion of samples by label name; other labels use their training proportion."
    )

    @field_validator("proportions")
    @classmethod
    def _labels_exist(cls, proportions: dict[str, float]) -> dict[str, float]:
        if unknown := sorted(set(proportions) - set(LABELS)):
            raise ValueError(f"no such label: {', '.join(unknown)}")
        return proportions


class Score(Section):
    """Confidence intervals by a bootstrap over groups."""

    resamples: Count = Field(description="Bootstrap resamples.")
    confidence: float = Field(gt=0, lt=1, description="Confidence level of the intervals.")
    seed: Seed = Field(description="Random seed of the bootstrap.")


class Machine(Section):
    """Settings of this machine. No result depends on them; a change reruns only the report, which shows the file."""

    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        description="Worker processes for loading and simulation; auto is one per core."
    )
    predict_batch: Count = Field(description="Images per batch when predicting.")
    devices: Count = Field(
        description="Processes that train one network together, each on its own GPU. With 1, several GPUs train "
        "several jobs side by side."
    )
    save_minutes: float = Field(
        ge=0, description="Minutes between saved training states, all that a killed training loses; 0: every step."
    )
    tensorboard: bool = Field(description="Also write logs/tensorboard/; needs the package tensorboard.")


class Params(Section):
    """All of params.yaml."""

    data: Data
    sample: Simulation
    pack: Pack
    folds: Folds
    templates: Templates
    models: dict[ModelName, ModelSection] = Field(min_length=1)
    pretrain: Pretrain
    tta: Tta
    ensemble: Ensemble
    score: Score
    search: Search
    machine: Machine

    @model_validator(mode="after")
    def _names_are_names_of_folders(self) -> "Params":
        for section, names in (("models", list(self.models)), ("data.sources", list(self.data.sources))):
            lower = [name.lower() for name in names]
            for name in names:
                if lower.count(name.lower()) > 1:
                    raise ValueError(f"{section}: {name!r} occurs twice; names that differ in case only count as one")
                if name.lower().partition(".")[0] in RESERVED or name.endswith("."):
                    raise ValueError(f"{section}: {name!r} is no name of a folder on all systems: choose another")
        for name in self.data.sources:
            if name.lower() in OUTPUTS:
                raise ValueError(f"data.sources: data/{name} is written by the pipeline: choose another name")
        by_source: dict[str, Mapping[str, object]] = {
            "data.draws": self.data.draws,
            "pack.scaling": self.pack.scaling,
            "pack.planes": self.pack.planes,
        }
        for section, settings in by_source.items():
            if unknown := [name for name in settings if name not in self.data.sources]:
                raise ValueError(f"{section}: {', '.join(unknown)}: not among data.sources")
        return self

    @model_validator(mode="after")
    def _sizes_fit(self) -> "Params":
        for name, model in self.models.items():
            if model.size > self.pack.size:
                raise ValueError(f"models.{name}.size is {model.size}, larger than pack.size {self.pack.size}")
        return self

    @model_validator(mode="after")
    def _dropped_stains_are_zero(self) -> "Params":
        for name, model in self.models.items():
            if isinstance(model, BackboneModel) and model.augment.drop_stains and model.normalise == "dataset":
                raise ValueError(
                    f"models.{name}.augment.drop_stains is {model.augment.drop_stains}, but normalise: dataset does "
                    "not map dropped stains to 0: use normalise: image, or drop_stains: 0"
                )
        return self

    @model_validator(mode="after")
    def _pretrained_models_exist(self) -> "Params":
        for name in self.pretrain.models:
            model = self.models.get(name)
            if model is None:
                raise ValueError(f"pretrain.models: there is no model {name!r}: choose from {', '.join(self.models)}")
            if not isinstance(model, BackboneModel):
                raise ValueError(f"pretrain.models: {name!r} is of kind {model.kind}, which has no network")
            if model.pretrained != BY_STAGE:
                raise ValueError(
                    f"pretrain.models names {name!r}, but models.{name}.pretrained is {model.pretrained!r}: set it to "
                    f"{BY_STAGE}, or remove the model from pretrain.models"
                )
        for name, model in self.models.items():
            by_stage = isinstance(model, BackboneModel) and model.pretrained == BY_STAGE
            if by_stage and name not in self.pretrain.models:
                raise ValueError(
                    f"models.{name}.pretrained is {BY_STAGE}, but pretrain.models does not name {name!r}: add it "
                    f"there (a weight file of that name is written as ./{BY_STAGE})"
                )
        return self

    @property
    def networks(self) -> list[NetworkModel]:
        """The models that are trained by gradient descent.

        Raises:
            InputError: there is no such model.
        """
        found = [model for model in self.models.values() if isinstance(model, NetworkModel)]
        if not found:
            raise InputError("params.yaml has no model of kind network")
        return found


class WeightsProfile(Section):
    """A profile of ``python -m pipeline train-weights``: the simulated fields, and the model that learns from them."""

    fields: Simulation
    model: NetworkModel


def load(path: Path = Path("params.yaml")) -> Params:
    """Read and check the whole file, so that a typo in any section is reported at once and not hours later.

    Raises:
        InputError: the file is missing or not YAML, or a key is unknown, missing or of the wrong type;
            the message names every such key with what is allowed.
    """
    return read_sections(Params, path, complete_models)


def complete_models(raw: Any) -> Any:
    """Give each model the keys of its kind's template that it lacks, also within augment and the like.

    YAML's merge keys (``<<``) would do the same, but DVC spells them out when it writes the file (``dvc exp run -S``),
    and a later change of the template would no longer reach the models.

    Args:
        raw: contents of the file; what is not as it should be is left to the checks that follow.
    """
    if not (isinstance(raw, dict) and isinstance(raw.get("templates"), dict) and isinstance(raw.get("models"), dict)):
        return raw
    models = {}
    for name, model in raw["models"].items():
        kind = str(model.get("kind")) if isinstance(model, dict) else ""
        template = raw["templates"].get(kind)
        models[name] = _merged(KINDS[kind], template, model) if kind in KINDS and isinstance(template, dict) else model
    return raw | {"models": models}


def _merged(section: type[BaseModel], template: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    merged = template | own
    for name, field in section.model_fields.items():
        is_section = isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        base, changes = template.get(name), own.get(name)
        if is_section and isinstance(base, dict) and isinstance(changes, dict):
            merged[name] = base | changes
    return merged


def load_weights_profile(path: Path) -> WeightsProfile:
    """Read and check a profile of ``train-weights``, as ``load`` does."""
    return read_sections(WeightsProfile, path)


def load_model(path: Path) -> Model:
    """Read a model's whole section as the stage ``complete-models`` wrote it.

    Raises:
        InputError: the file is missing or of another version.
    """
    try:
        return parse_model(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError):
        raise InputError(f"{path} is missing or of another version: run dvc repro complete-models") from None


def parse_model(text: str) -> Model:
    """Parse a model's section from the JSON in a weight file.

    Raises:
        ValidationError: the text is not a valid section in this version.
    """
    return TypeAdapter[Model](ModelSection).validate_json(text)
