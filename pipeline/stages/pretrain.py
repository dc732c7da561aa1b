"""Pre-train a model's backbone without labels: ``python -m pipeline.stages.pretrain --model NAME``.

Reads model-params/<model>.encoder.json, weights/ and the packed images of all sources, test images included, but no
label. Writes autoencoders/<model>.safetensors, the encoder that ``pretrained: stage`` starts from, .csv (the learning
curve) and .npz (some reconstructions). The states of a training are kept in ``.resume/pretrain/`` until the stage
reconstructions of the model has ended: by then DVC has recorded the encoder.
"""

import dataclasses
from pathlib import Path

import pandas as pd

from pipeline.core import code_digest, entry, hardware, params, paths, stage_inputs
from pipeline.core.entry import run_main
from pipeline.core.errors import InputError
from pipeline.core.paths import replacing
from pipeline.evaluation.prediction_files import write_arrays
from pipeline.models import checkpoint
from pipeline.models.network import compute_type
from pipeline.models.pretrained import head_weights
from pipeline.models.provenance import Provenance
from pipeline.sources.packed_array import open_images, read_index
from pipeline.training.distributed import join
from pipeline.training.reconstruction import EpochErrors, build_autoencoder, fit_autoencoder
from pipeline.training.saved_states import SavedStates, fingerprint


def main() -> None:
    """Pre-train the model given on the command line."""
    settings = params.load()
    name, task = entry.model_name(settings), settings.pretrain
    if name not in task.models:
        raise InputError(f"pretrain.models in params.yaml does not name {name}: add it, with pretrained: stage")
    encoder, model = params.load_encoder(paths.encoder_params(name), task), settings.models[name]
    written = paths.encoder_params(name).read_text(encoding="utf-8").strip()
    current = isinstance(model, params.BackboneModel) and params.encoder_section(model) == written
    if not current and not stage_inputs.run_by_dvc():
        raise InputError(f"{paths.encoder_params(name)} is older than params.yaml: run dvc repro complete-models")
    world = join(settings.machine.devices)
    if task.compile:
        hardware.check_compiler()
    table = all_images(settings.data.sources)
    images = {source: open_images(source) for source in settings.data.sources}
    autoencoder, inherited = build_autoencoder(encoder, task, table)
    rows: list[EpochErrors] = []
    states = SavedStates(paths.pretraining_states(name), run_fingerprint(encoder, task, settings.data.sources))
    trained, shown = fit_autoencoder(
        autoencoder, table, images, encoder, task, settings.machine, rows.append, states, world
    )
    if not world.is_main:
        return
    stage_inputs.check()  # before the saved states are removed: who takes an edit back goes on from them
    provenance = inherited.union(Provenance.of_samples(table).without_labels())
    described = {"model": encoder.model_dump(), "pretrain": task.model_dump(exclude={"models"})}
    # A head that was trained for the labels is worth more to the model than a new one, also on another backbone.
    weights = head_weights(encoder.pretrained) | trained.encoder_weights()
    checkpoint.write(paths.autoencoder(name), weights, described, provenance)
    write_arrays(paths.reconstructions(name), shown)
    with replacing(paths.pretraining_history(name)) as temporary:
        pd.DataFrame([dataclasses.asdict(row) for row in rows]).to_csv(temporary, index=False)


def all_images(sources: tuple[str, ...]) -> pd.DataFrame:
    """All images of all sources, as ``Samples`` takes them: ``source``, ``row``, and an empty ``target``."""
    tables = [read_index(source)[["id", "row"]].assign(source=source, target="") for source in sources]
    return pd.concat(tables, ignore_index=True)


def run_fingerprint(encoder: params.BackboneModel, task: params.Pretrain, sources: tuple[str, ...]) -> str:
    """Identify a training run by everything its result depends on; the indexes contain a digest of every image."""
    files = [paths.packed_index(source) for source in sources]
    if isinstance(encoder.pretrained, str):
        weights = Path(encoder.pretrained).expanduser()
        files += [weights] if weights.exists() else []  # a missing file is an error of start_from_weights
    shapes = [open_images(source).shape for source in sources]
    described = [encoder.model_dump_json(), task.model_dump_json(exclude={"models"}), compute_type(encoder.precision)]
    return fingerprint(f"{described} {shapes} {code_digest.of_module('pipeline.stages.pretrain')}", files)


if __name__ == "__main__":
    run_main(main)
