"""Compute the attention maps of a model for the example samples of the report.

Reads tables/examples.csv, data/folds.csv, the packed images and models/<model>/; writes maps/<model>.npz. The maps of a
sample are those of the model trained without its fold.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from pipeline.core import entry, hardware, params, paths
from pipeline.core.entry import run_main
from pipeline.core.errors import InputError
from pipeline.data.fold_table import read_folds
from pipeline.evaluation.result_files import AttentionMaps
from pipeline.inference.attention_maps import MAP_SIZE, label_maps
from pipeline.models import checkpoint
from pipeline.sources.images import shrink_quickly
from pipeline.sources.packed_array import open_images


def read_pairs() -> pd.DataFrame:
    """Read the (sample, label) pairs, each once: ``id``, ``label``, ``source``, ``row`` and ``fold``, sorted by fold.

    Raises:
        InputError: the table is missing or damaged, or contains samples that have no fold.
    """
    path = paths.TABLES / "examples.csv"
    remedy = "run the score stage again (python -m pipeline.stages.score)"
    try:
        pairs = pd.read_csv(path, dtype={"id": str}, keep_default_na=False)[["id", "label"]].drop_duplicates()
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise InputError(f"{path} is missing or damaged ({error}): {remedy}") from None
    joined = pairs.merge(read_folds()[["id", "source", "row", "fold"]], on="id", how="left")
    if joined["fold"].isna().any():
        raise InputError(f"{path}: its samples are not those of {paths.FOLDS}: {remedy}")
    return joined.sort_values("fold", kind="stable", ignore_index=True)


def draw(name: str, fold: int, pairs: pd.DataFrame) -> dict[str, npt.NDArray[np.uint8]]:
    """The maps of the pairs of one fold, (n, MAP_SIZE, MAP_SIZE), by kind."""
    network, recipe = checkpoint.load(paths.model(name, fold))
    network = network.to(hardware.device()).eval()
    images = {source: open_images(source) for source in pairs["source"].unique()}
    shown = [
        shrink_quickly(images[source][int(row)], recipe.size)
        for source, row in zip(pairs["source"], pairs["row"], strict=True)
    ]
    batch = torch.from_numpy(np.stack(shown).transpose(0, 3, 1, 2).copy()).to(hardware.device())
    labels = torch.tensor(pairs["label"].tolist()).to(hardware.device())
    return {kind: to_bytes(found) for kind, found in label_maps(network, batch, labels, MAP_SIZE).items()}


def to_bytes(maps: Tensor) -> npt.NDArray[np.uint8]:
    """Convert maps in 0..1 to uint8 in 0..255."""
    scaled: npt.NDArray[np.uint8] = (maps * 255).round().to(torch.uint8).cpu().numpy()
    return scaled


def main() -> None:
    """Compute the maps of the model given on the command line."""
    name = entry.model_name(params.load())
    pairs = read_pairs()
    by_fold = [draw(name, int(str(fold)), rows) for fold, rows in pairs.groupby("fold")]
    kinds = list(by_fold[0])
    maps = np.concatenate([np.stack([found[kind] for kind in kinds], axis=1) for found in by_fold])
    AttentionMaps(pairs["id"].to_numpy(dtype=np.str_), pairs["label"].to_numpy(), np.array(kinds), maps).save(name)


if __name__ == "__main__":
    run_main(main)
