"""Localisation accuracy of the attention maps on simulated images: ``python -m benchmarks.maps``.

Run it after a run of the simulated competition. The simulator knows the pixels of each label's signal. Each kind of map
of each model (its first fold) is compared with this mask, for every label of every test sample:

- hit: the map's maximum is within 15 pixels of the mask (the pointing game: Zhang et al., "Top-Down Neural Attention by
  Excitation Backprop", IJCV 2018). The chance level is the share of the image within 15 pixels of the mask.
- auc: ROC AUC of the map's values as a classifier of the mask's pixels. The chance level is 0.5.

It prints a table by model and kind, a table by label for the label-specific maps (query, gradient, occlusion), and a
last line of JSON. Intervals are 95 % by bootstrap over antibodies. On simulated images the figures compare kinds of
maps; they do not carry over to real images.
"""

import argparse
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.ndimage import distance_transform_edt
from scipy.stats import bootstrap
from sklearn.metrics import roc_auc_score

from benchmarks.interleaved import report
from pipeline.core import params, paths
from pipeline.core.entry import run_main
from pipeline.core.errors import InputError
from pipeline.core.labels import LABELS
from pipeline.core.progress import track
from pipeline.inference.attention_maps import LABEL_MAPS, label_maps
from pipeline.models import checkpoint
from pipeline.models.checkpoint import AnyModel
from pipeline.simulation.competition import Entry, plan
from pipeline.simulation.render import masks
from pipeline.sources.images import shrink_quickly
from pipeline.sources.packed_array import open_images, read_index

TOLERANCE = 15
"""Pixels for images of 512 x 512; scaled for other sizes."""
STRIDE = 4
"""The AUC uses every fourth pixel of every fourth row."""

Map = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MapScore:
    """The scores of one map, of one label of one sample."""

    model: str
    kind: str
    label: int
    group: str
    hit: bool
    hit_by_chance: float
    auc: float


def score_map(values: Map, mask: Mask) -> tuple[bool, float, float]:
    """Hit, chance level of a hit, and AUC of a map (S, S); the mask (S, S) must be neither empty nor full."""
    near: Mask = distance_transform_edt(~mask) <= TOLERANCE * len(mask) / 512
    # A constant map has no maximum, so it is no hit. Of several maxima, most must be near the mask.
    hit = near[values == values.max()].mean() > 0.5 if values.min() < values.max() else False
    return (
        bool(hit),
        float(near.mean()),
        float(roc_auc_score(mask[::STRIDE, ::STRIDE].ravel(), values[::STRIDE, ::STRIDE].ravel())),
    )


def score_sample(
    networks: dict[str, tuple[AnyModel, int]], image: npt.NDArray[np.uint8], entry: Entry, settings: params.Simulation
) -> list[MapScore]:
    """Score all maps of one sample.

    Args:
        networks: each with the size of its input, by model name.
        image: (S, S, 4) uint8, packed.
        entry: the sample in the simulator's plan.
        settings: the section sample of params.yaml.
    """
    signal = masks(entry, settings)
    labels = [label for label in entry.labels if 0 < signal[label][::STRIDE, ::STRIDE].mean() < 1]
    if not labels:
        return []
    scores = []
    for name, (network, size) in networks.items():
        pixels = torch.from_numpy(shrink_quickly(image, size).transpose(2, 0, 1).copy())
        batch = pixels.expand(len(labels), -1, -1, -1)
        for kind, maps in label_maps(network, batch, torch.tensor(labels), settings.size).items():
            for label, values in zip(labels, maps.numpy(), strict=True):
                scores.append(MapScore(name, kind, label, entry.group, *score_map(values, signal[label])))
    return scores


def with_interval(values: "pd.Series[float]", groups: "pd.Series[str]") -> str:
    """The mean over antibodies and its interval, as text."""
    means = values.astype(float).groupby(groups).mean().to_numpy()
    if len(means) < 2 or means.min() == means.max():
        return f"{means.mean():.3f}"
    low, high = bootstrap((means,), np.mean, n_resamples=1000, rng=0, method="percentile").confidence_interval
    return f"{means.mean():.3f} ({low:.3f} to {high:.3f})"


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """A row per model and kind of map."""
    rows = []
    for (model, kind), part in scores.groupby(["model", "kind"], sort=False):
        rows.append(
            {
                "model": model,
                "kind": kind,
                "hit": with_interval(part["hit"], part["group"]),
                "chance": round(float(part["hit_by_chance"].mean()), 3),
                "auc": with_interval(part["auc"], part["group"]),
                "maps": len(part),
                "antibodies": part["group"].nunique(),
            }
        )
    return pd.DataFrame(rows)


def main(samples: int) -> None:
    """Score all maps and print the tables.

    Args:
        samples: largest number of test samples.
    """
    settings = params.load()
    if settings.pack.size != settings.sample.size:
        raise InputError("params.yaml: pack.size and sample.size differ: set them to the same size and run dvc repro")
    fold = settings.folds.ids[0]
    networks: dict[str, tuple[AnyModel, int]] = {}
    for name in settings.models:
        network, recipe = checkpoint.load(paths.model(name, fold))
        networks[name] = (network, recipe.size)
    index, images = read_index("sample"), open_images("sample")
    rows = dict(zip(index["id"], index["row"].tolist(), strict=True))
    entries = [entry for entry in plan(settings.sample) if entry.split == "test"][:samples]
    scores: list[MapScore] = []
    for entry in track(entries, "maps", total=len(entries)):
        scores += score_sample(networks, images[rows[entry.id]], entry, settings.sample)
    table = pd.DataFrame([asdict(score) for score in scores])
    of_one_label = table[table["kind"].isin(LABEL_MAPS)]
    by_label = of_one_label.groupby(["kind", "label"])[["hit", "hit_by_chance", "auc"]].mean()
    by_label.insert(0, "maps", of_one_label.groupby(["kind", "label"]).size())
    print(
        by_label.rename(index=dict(enumerate(LABELS)), level="label").to_string(
            float_format=lambda value: f"{value:.3f}"
        ),
        "\n",
    )
    overall = table.assign(name=table["model"] + " " + table["kind"]).groupby("name")
    means = overall[["hit", "hit_by_chance", "auc"]].mean().round(4)
    report(summary(table), {str(name): row.to_dict() for name, row in means.iterrows()})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10**9, help="largest number of test samples (default: all)")
    arguments = parser.parse_args()
    run_main(lambda: main(arguments.samples))
