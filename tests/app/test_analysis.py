"""What the page shows of a sample is what `predict` writes of it, and what the run knows of its training samples."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.app.analysis import MAPPED, MOST_MAPPED, SIMILAR, analyse, mapped_labels
from pipeline.app.served_run import ServedRun, load_run
from pipeline.app.uploads import Part, Sample, decode_sample, read_upload
from pipeline.commands import predict
from pipeline.core import params
from pipeline.core.labels import CHANNELS, LABELS
from pipeline.evaluation.reference_file import load_reference
from tests.fixtures.archives import field, png, write_files
from tests.fixtures.prediction import SIDE, files


def uploaded(run: ServedRun, members: dict[str, bytes]) -> Sample:
    upload = read_upload([Part(name, data) for name, data in members.items()])
    return decode_sample(upload, next(iter(upload.samples)), run.size)


def composite(id_: str) -> bytes:
    return png(np.ascontiguousarray(field(id_, SIDE)[..., [2, 0, 1]].reshape(SIDE, -1)), colour=2)


@pytest.mark.parametrize(
    ("members", "options"),
    [
        (files(["a"]), ()),
        (files(["b_1"]), ()),
        ({name: data for name, data in files(["c"]).items() if "yellow" not in name}, ("--stains", "green,blue,red")),
        ({"photo.png": composite("a")}, ("--rgb",)),
    ],
    ids=["four files", "another", "three stains", "composite"],
)
def test_it_is_what_predict_writes(
    members: dict[str, bytes],
    options: tuple[str, ...],
    served: ServedRun,
    served_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(served_folder)
    write_files(tmp_path / "new", members)
    out, maps = tmp_path / "predictions.csv", tmp_path / "maps"
    predict.main([str(tmp_path / "new"), "--out", str(out), "--maps", str(maps), *options])
    (row,) = pd.read_csv(out, dtype=str).to_dict("records")
    found = analyse(served, uploaded(served, members))
    assert found.id == row["id"]
    assert {label: f"{value:.6f}" for label, value in zip(LABELS, found.probabilities, strict=True)} == {
        label: row[label] for label in LABELS
    }
    assert {name for name in LABELS if found.decisions[LABELS.index(name)]} == set(row["labels"].split("; "))
    if "novelty" in row:
        assert f"{found.novelty:.6f}" == row["novelty"]
    else:
        assert found.novelty is None
        assert options
    mapped = [label for label, _ in found.maps]
    given = {path.stem.removeprefix(f"{found.id}_").replace("-", " ") for path in maps.iterdir()}
    assert set(mapped[: len(given)]) == given or len(given) > MOST_MAPPED
    assert found.calibrated


def test_the_table_has_every_label_with_its_threshold_in_the_order_of_probabilities(served: ServedRun) -> None:
    found = analyse(served, uploaded(served, files(["a"])))
    assert sorted(row.label for row in found.rows) == sorted(LABELS)
    assert [row.probability for row in found.rows] == sorted(found.probabilities.tolist(), reverse=True)
    for row in found.rows:
        place = LABELS.index(row.label)
        assert row.threshold == served.rule.thresholds[place]
        assert row.given == found.decisions[place]
    assert list(found.channels) == list(CHANNELS)


def test_the_similar_samples_are_those_of_the_reference_by_brute_force(served: ServedRun, served_folder: Path) -> None:
    assert served.packed is not None
    reference = load_reference(served_folder / "reference.npz")
    id_ = str(reference.ids[7])
    found = analyse(served, served.packed.sample(id_)).similar
    assert found is not None
    assert found[0].id == id_
    assert found[0].similarity == pytest.approx(1, abs=1e-4)
    standard = (reference.vectors - reference.vectors.mean(axis=0)) / np.maximum(reference.vectors.std(axis=0), 1e-6)
    cosines = standard @ standard[7] / np.linalg.norm(standard, axis=1) / np.linalg.norm(standard[7])
    expected = np.sort(cosines)[::-1][:SIMILAR]
    np.testing.assert_allclose([one.similarity for one in found], expected, atol=1e-3)
    targets = dict(zip(reference.ids.tolist(), reference.targets.tolist(), strict=True))
    for one in found:
        assert one.labels == ", ".join(LABELS[int(label)] for label in targets[one.id].split())
        assert one.picture is not None


def test_labels_given_are_mapped_first_and_the_most_probable_others_fill_up() -> None:
    probabilities = np.linspace(0, 0.9, len(LABELS)).astype(np.float32)
    none, two, all_ = (np.zeros(len(LABELS), bool) for _ in range(3))
    two[[3, 20]], all_[:] = True, True
    assert mapped_labels(probabilities, none) == [27, 26, 25, 24, 23][:MAPPED]
    assert mapped_labels(probabilities, two) == [20, 3, 27, 26, 25]
    assert mapped_labels(probabilities, all_) == list(range(27, 27 - MOST_MAPPED, -1))


def test_where_images_are_not_packed_the_rest_is_shown(
    served_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a colleague who has pulled a run without its images."""
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "models", "blend", "predictions", "reference.npz"):
        (tmp_path / name).symlink_to(served_folder / name)
    run = load_run(Path("models"), params.load())
    assert run.packed is None
    found = analyse(run, uploaded(run, files(["a"])))
    assert found.similar is not None
    assert [one.picture for one in found.similar] == [None] * SIMILAR
    assert found.novelty is not None
    assert not found.exposure_compared


def test_models_without_a_run_give_probabilities_and_maps(
    served_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "models"):
        (tmp_path / name).symlink_to(served_folder / name)
    run = load_run(Path("models"), params.load())
    found = analyse(run, uploaded(run, files(["a"])))
    assert not found.calibrated
    assert (found.similar, found.novelty, found.rows[0].right) == (None, None, None)
    assert len(found.maps) >= MAPPED


def test_pictures_of_another_runs_samples_are_not_shown(
    served: ServedRun, served_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "data"):
        (tmp_path / name).symlink_to(served_folder / name)
    assert load_run(served_folder / "models", params.load()).packed is None
    assert served.packed is not None
