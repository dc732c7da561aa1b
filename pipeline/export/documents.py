"""The texts of a package: its README.md, training data and limits."""

from collections.abc import Sequence

from pipeline.core.labels import CHANNELS, LABELS
from pipeline.core.params import BackboneModel
from pipeline.export.selection import Selection
from pipeline.reporting.blocks import SIMULATED

LIMITS = (
    "The thresholds were chosen on the run's own samples. For other cells, stains or microscopes, rely on the order of "
    "the probabilities, check them on labelled images, and choose thresholds there. Images without one of the four "
    "stains, cropped to a single cell, or of another scale are unlike the training images. Not for diagnosis."
)


def title(selection: Selection) -> str:
    """The package's name; the format allows few characters."""
    count = len(selection.networks)
    return f"Protein localisation in cells ({'fast' if selection.single else f'{count} networks'})"


def summary(selection: Selection, sources: Sequence[str]) -> str:
    """One paragraph on what it does and how well."""
    return (
        "Tells in which of 28 locations of the cell a protein is, from four-channel fluorescence images as in the "
        f"Human Protein Atlas: calibrated probabilities, with a threshold per label. {_sentence(selection, sources)}"
    )


def training_data(selection: Selection, sources: Sequence[str]) -> tuple[str, str]:
    """Name and description of the data set."""
    listed, samples, groups = " and ".join(sources), selection.score.samples, selection.score.groups
    recipes = [model.recipe for folds in selection.models.values() for model in folds]
    starts = {
        f"{recipe.pretrained if isinstance(recipe.pretrained, str) else 'weights of timm'}"
        for recipe in recipes
        if isinstance(recipe, BackboneModel) and recipe.pretrained
    }
    start = f" The networks started from {' and '.join(sorted(starts))}." if starts else ""
    if list(sources) == [SIMULATED]:
        return (
            "Simulated competition",
            f"{samples:,} simulated fields of view of {groups:,} groups (simulated antibodies) with 28 labels, drawn "
            f"by the project itself. No real cells.{start}",
        )
    return f"Sources {listed}", f"{samples:,} fields of view of {groups:,} groups (antibodies): {listed}.{start}"


def readme(selection: Selection, sources: Sequence[str], packed: int, license_: str, authors: Sequence[str]) -> str:
    """README.md, in the package's folder."""
    score = selection.score
    rows = [
        f"| {name} | {threshold:.3f} | {positives} | {f1:.3f} |"
        for name, threshold, positives, f1 in zip(
            LABELS, selection.rule.thresholds, score.positives, score.by_label, strict=True
        )
    ]
    data, about = training_data(selection, sources)
    return f"""# {title(selection)}

{summary(selection, sources)}

## Use

```
pip install onnxruntime pillow
python predict.py FOLDER > predictions.csv
```

FOLDER has four square 8-bit grayscale PNGs per sample, ID_green.png, ID_blue.png, ID_red.png and ID_yellow.png. A row
of the table has the id, the probability of each label, and the predicted labels.

## Input and output

`model.onnx` takes `images`, uint8 (N, 4, H, H), in the order {", ".join(CHANNELS)}, of any batch size and side H, and
returns `probabilities`, float32 (N, 28). Everything between is in the graph: resizing to {packed} px (larger images by
area, smaller ones by linear interpolation), normalisation, {_networks(selection)}, and calibration.
{_exposure(selection)}

A label is predicted if its probability reaches its threshold in `decisions.json`; if none does, the most probable
label is predicted.

## Validation

{_sentence(selection, sources)}

Each sample was decided by models and thresholds that were not fitted on it, and samples of one antibody were kept
together. Macro-F1 is the mean F1 over the 28 labels. F1 of few positives is biased downwards; the interval corrects for
this bias and is shifted upwards.
{_left_out(selection)}

| label | threshold | positives | F1 |
|---|---|---|---|
{chr(10).join(rows)}

To validate it on your own images, run `predict.py` on labelled ones, and compare the labels with yours, per label.

## Training data

{data}: {about}

## Limits

{LIMITS}

## Files

- `rdf.yaml`: the description for the BioImage Model Zoo.
- `model.onnx`: the whole decision path, in float32.
- `decisions.json`: labels, channels, thresholds, and what the graph is made of.
- `predict.py`: reads PNGs and prints the table.
- `test_input.npy`, `test_output.npy`: two samples and their probabilities.
- `cover.png`: the first of them (protein green, nucleus blue, microtubules red), and where the networks look for its
  most probable label.

Authors: {", ".join(authors)}. Licence: {license_}.
"""


def notes(selection: Selection) -> list[str]:
    """What the user should know of the package, one line each."""
    lines = [f"{title(selection)}: {selection.score}"]
    if selection.left_out:
        lines.append(_left_out(selection))
    if selection.single:
        lines.append(
            "one network with one view: the score is of this model with all views, and probably a little higher"
        )
    return lines


def _sentence(selection: Selection, sources: Sequence[str]) -> str:
    kind = " of simulated images" if SIMULATED in sources[:1] else ""
    of = " of its model with all folds and views" if selection.single else ""
    return f"Score{of}{kind}: {selection.score}."


def _networks(selection: Selection) -> str:
    if selection.single:
        return "one network"
    views = len(selection.views)
    return f"{len(selection.networks)} networks, each on {views} view{'s' * (views > 1)} of the image, their mean"


def _exposure(selection: Selection) -> str:
    recipes = [model.recipe for folds in selection.models.values() for model in folds]
    if any(isinstance(recipe, BackboneModel) and recipe.normalise == "dataset" for recipe in recipes):
        return "Normalisation is by the statistics of the training images, so images need their exposure."
    return "Do not stretch the contrast: each image is normalised by its own statistics."


def _left_out(selection: Selection) -> str:
    if not selection.left_out or selection.whole is None:
        return ""
    return (
        f"Left out: {', '.join(selection.left_out)}, whose hand-crafted features ONNX has no operations for. Blend, "
        f"calibration and thresholds were fitted again without: {selection.score}; with, it was {selection.whole}."
    )
