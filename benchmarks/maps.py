"""Do the maps show where the protein is? ``python -m benchmarks.maps``, after a run of the simulated competition.

The simulator knows where each label's signal is. For every label of every test sample, which no network was
trained on, each kind of map of each model (its first fold) is held against that mask:

- hit: the map's highest point is within 15 pixels of the mask (the pointing game: Zhang et al., "Top-Down Neural
  Attention by Excitation Backprop", IJCV 2018); by chance, that is the share of the field within 15 pixels;
- auc: area under the ROC curve of the map's values as a classifier of the mask's pixels; by chance 0.5.

It prints a table by model and kind, one by label for the maps that give reasons (Grad-CAM, occlusion), and last a line
of JSON. Intervals are 95 % by bootstrap over antibodies. The images are simulated: the figures rank maps, they say
nothing of real images.
"""

import argparse
import sys
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
"""Pixels at a side of 512; in proportion at other sizes."""
STRIDE = 4
"""Every fourth pixel of every fourth row is enough for the area under a curve."""

Map = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Judgement:
    """One map of one label of one sample."""

    model: str
    kind: str
    label: int
    group: str
    hit: bool
    hit_by_chance: float
    auc: float


def judge(found: Map, mask: Mask) -> tuple[bool, float, float]:
    """Hold a map (S, S) against a mask (S, S) that is neither empty nor full: hit, its chance, and the area."""
    near: Mask = distance_transform_edt(~mask) <= TOLERANCE * len(mask) / 512
    # A flat map points nowhere: its hit is one of chance, not that of its first pixel.
    hit = near[found == found.max()].mean() > 0.5 if found.min() < found.max() else False
    return (
        bool(hit),
        float(near.mean()),
        float(roc_auc_score(mask[::STRIDE, ::STRIDE].ravel(), found[::STRIDE, ::STRIDE].ravel())),
    )


def judge_sample(
    networks: dict[str, tuple[AnyModel, int]], image: npt.NDArray[np.uint8], entry: Entry, settings: params.Simulation
) -> list[Judgement]:
    """Judge all maps of one sample.

    Args:
        networks: each with the size it sees, by the model's name.
        image: (S, S, 4), packed.
        entry: the sample in the simulator's plan.
        settings: the simulator's section.
    """
    shown = masks(entry, settings)
    labels = [label for label in entry.labels if 0 < shown[label][::STRIDE, ::STRIDE].mean() < 1]
    judged = []
    for name, (network, size) in networks.items():
        pixels = torch.from_numpy(shrink_quickly(image, size).transpose(2, 0, 1).copy())
        batch = pixels.expand(len(labels), -1, -1, -1)
        for kind, maps in label_maps(network, batch, torch.tensor(labels), settings.size).items() if labels else []:
            for label, found in zip(labels, maps.numpy(), strict=True):
                judged.append(Judgement(name, kind, label, entry.group, *judge(found, shown[label])))
    return judged


def with_interval(values: "pd.Series[float]", groups: "pd.Series[str]") -> str:
    """The mean over antibodies with its interval, as text."""
    means = values.astype(float).groupby(groups).mean().to_numpy()
    if len(means) < 2 or means.min() == means.max():
        return f"{means.mean():.3f}"
    low, high = bootstrap((means,), np.mean, n_resamples=1000, rng=0, method="percentile").confidence_interval
    return f"{means.mean():.3f} ({low:.3f} to {high:.3f})"


def summary(judged: pd.DataFrame) -> pd.DataFrame:
    """A row for each model and kind."""
    rows = []
    for (model, kind), part in judged.groupby(["model", "kind"], sort=False):
        rows.append(
            {
                "model": model,
                "kind": kind,
                "hit": with_interval(part["hit"], part["group"]),
                "by chance": round(float(part["hit_by_chance"].mean()), 3),
                "auc": with_interval(part["auc"], part["group"]),
                "maps": len(part),
                "antibodies": part["group"].nunique(),
            }
        )
    return pd.DataFrame(rows)


def main(samples: int) -> pd.DataFrame:
    """Judge, print, and return every judgement.

    Args:
        samples: of the test set, at most.
    """
    settings = params.load()
    if settings.pack.size != settings.sample.size:
        raise InputError("params.yaml: pack.size and sample.size differ, so masks and maps would not match")
    fold = settings.folds.ids[0]
    networks: dict[str, tuple[AnyModel, int]] = {}
    for name in settings.models:
        network, recipe = checkpoint.load(paths.model(name, fold))
        networks[name] = (network, recipe.size)
    index, images = read_index("sample"), open_images("sample")
    rows = dict(zip(index["id"], index["row"].tolist(), strict=True))
    entries = [entry for entry in plan(settings.sample) if entry.split == "test"][:samples]
    judged: list[Judgement] = []
    for entry in track(entries, "judging maps", total=len(entries)):
        judged += judge_sample(networks, images[rows[entry.id]], entry, settings.sample)
    table = pd.DataFrame([asdict(judgement) for judgement in judged])
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
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10**9, help="of the test set, at most")
    count = parser.parse_args().samples
    try:
        main(count)
    except InputError as error:
        sys.exit(f"error: {error}")
