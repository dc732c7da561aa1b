"""The comparison: scores and paired differences against scikit-learn, and trainings that are kept."""

from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks import comparison
from benchmarks.comparison import Judge, tabulate
from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.evaluation.metrics import Floats
from tests.fixtures.models import TINY


def judge(count: int = 60) -> Judge:
    rng = np.random.default_rng(0)
    truth = rng.random((count, 28)) < 0.3
    groups = np.repeat(np.arange(count // 2).astype(str), 2)
    return Judge("made up", np.zeros((count, 32, 32, 4), np.uint8), truth, groups, ("identity",))


def test_scores_are_means_over_labels_and_seeds_and_nothing_differs_from_itself() -> None:
    made, rng = judge(), np.random.default_rng(1)
    noisy: list[Floats] = [made.truth + rng.normal(0, 1, made.truth.shape) for _ in range(3)]
    clear: list[Floats] = [made.truth + rng.normal(0, 0.2, made.truth.shape) for _ in range(3)]
    table = tabulate(made, {("none", "pooled"): noisy, ("cbam", "pooled"): clear, ("none", "label_queries"): clear})
    expected_ap = np.mean([average_precision_score(made.truth, scores) for scores in noisy])
    expected_auc = np.mean([roc_auc_score(made.truth, scores) for scores in noisy])
    assert table["mean AP"][0].startswith(f"{expected_ap:.3f} (")
    assert table["mean AUC"][0].startswith(f"{expected_auc:.3f} (")
    assert table["AP, difference to none"][0] == "+0.000 (+0.000 to +0.000)"
    assert table["AP, difference to none"][1].startswith("+")
    assert "(+" in table["AP, difference to none"][1]
    assert table["AP, difference to none"][2] == "+0.000 (+0.000 to +0.000)"


def test_the_interval_holds_the_variation_between_seeds() -> None:
    made, rng = judge(), np.random.default_rng(1)
    steady: list[Floats] = [made.truth + rng.normal(0, 1, made.truth.shape)] * 3
    spread: list[Floats] = [made.truth + rng.normal(0, deviation, made.truth.shape) for deviation in (0.3, 1, 3)]

    def width(by_seed: list[Floats]) -> float:
        low, high = tabulate(made, {("none", "pooled"): by_seed})["mean AP"][0].split("(")[1].rstrip(")").split(" to ")
        return float(high) - float(low)

    assert width(spread) > 2 * width(steady)


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    model = TINY.model_dump(mode="json") | {"size": 64, "head": "label_queries", "pyramid": 8}
    model["augment"] |= {"crop": 0.5, "warp": 0}
    fields = {"seed": 5, "train": 12, "test": 8, "size": 64, "fields_per_antibody": 1.0, "near_duplicates": 0}
    path = tmp_path / "profile.yaml"
    YAML(typ="safe").dump({"fields": fields | {"test_exposure": 1}, "model": model}, path)
    return path


def test_finished_trainings_are_kept(
    profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(comparison, "MACHINE", comparison.MACHINE.model_copy(update={"workers": 0}))
    monkeypatch.setattr(comparison, "scored_labels", lambda truth: np.flatnonzero(truth.any(axis=0)))
    monkeypatch.setattr(comparison, "RESAMPLES", 5)
    out = tmp_path / "tables.md"
    comparison.main(profile, 12, 1, 1, ["cbam"], None, out)
    first, text = capsys.readouterr().out, out.read_text()
    assert text.count("| cbam") == 2
    monkeypatch.setattr(comparison, "train", lambda *_: pytest.fail("trained again"))
    comparison.main(profile, 12, 1, 1, ["cbam"], None, out)
    assert capsys.readouterr().out == first
    assert out.read_text() == text


def test_a_profile_with_an_unknown_key_is_refused(profile: Path) -> None:
    profile.write_text(profile.read_text() + "windows: 3\n")
    with pytest.raises(InputError, match=r"profile\.yaml: windows: unknown key"):
        params.load_weights_profile(profile)
