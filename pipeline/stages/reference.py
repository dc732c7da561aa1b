"""Describe the training samples as the first network sees them, to compare other samples with.

If no model is a network, trained or frozen, it is the first model. Reads data/folds.csv, the packed images and the
model's weights without the first fold; writes reference.npz: embeddings and channel statistics of all training samples,
and their places on a map. The samples of the first fold are held out from that model.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from sklearn.manifold import TSNE

from pipeline.core import hardware, params, paths
from pipeline.core.entry import run_main
from pipeline.core.progress import track
from pipeline.data.fold_table import read_folds
from pipeline.evaluation.reference_file import Reference, digest
from pipeline.inference.channel_statistics import channel_statistics
from pipeline.inference.embedding import Vectors
from pipeline.inference.fold_model import FoldModel
from pipeline.models import checkpoint
from pipeline.sources.packed_array import open_images

MAPPED = 2_000
"""Most samples on the map; with more, it takes minutes and points hide each other."""

PERPLEXITY = 30
"""Of t-SNE: about how many neighbours of a sample stay close to it. Its authors recommend 5 to 50."""


def choose_model(models: Mapping[str, params.Model]) -> str:
    """The first network, trained or frozen; if there is none, the first model."""
    networks = [name for name, model in models.items() if isinstance(model, params.BackboneModel)]
    return networks[0] if networks else next(iter(models))


def map_places(vectors: Vectors, seed: int) -> npt.NDArray[np.float32]:
    """Place samples on a plane so that similar ones are close, (N, 2); NaN for those left out.

    t-SNE (van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 2008) of the standardised embeddings.

    Args:
        vectors: (N, D).
        seed: of the choice, if there are more than ``MAPPED`` samples.
    """
    places = np.full((len(vectors), 2), np.nan, np.float32)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(vectors))[:MAPPED])
    perplexity = min(PERPLEXITY, (len(chosen) - 1) / 3)
    if perplexity >= 1:
        shown = vectors[chosen]
        scaled = (shown - shown.mean(axis=0)) / np.maximum(shown.std(axis=0), 1e-6)
        method = TSNE(perplexity=perplexity, init="pca", metric="cosine", random_state=seed)
        places[chosen] = method.fit_transform(scaled)
    return places


def main() -> None:
    """Run the stage."""
    settings = params.load()
    name, fold = choose_model(settings.models), settings.folds.ids[0]
    path = paths.model(name, fold)
    network, recipe = checkpoint.load(path)
    model = FoldModel(network.to(hardware.device()), recipe)
    samples = read_folds()
    packed = {source: open_images(source) for source in samples["source"].unique()}
    where = list(zip(samples["source"], samples["row"], strict=True))
    vectors, statistics = [], []
    size = settings.machine.predict_batch
    for start in track(range(0, len(where), size), "reference", unit="batches"):
        images = np.stack([packed[source][row] for source, row in where[start : start + size]])
        vectors.append(model.embed(images, str(path)))
        statistics.append(channel_statistics(images))
    found = np.concatenate(vectors)
    Reference(
        model=name,
        fold=fold,
        weights=digest(path),
        ids=samples["id"].to_numpy(dtype=np.str_),
        targets=samples["target"].to_numpy(dtype=np.str_),
        folds=samples["fold"].to_numpy(),
        vectors=found,
        statistics=np.concatenate(statistics),
        places=map_places(found, recipe.seed),
    ).save(paths.REFERENCE)


if __name__ == "__main__":
    run_main(main)
