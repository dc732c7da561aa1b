"""``python -m pipeline submit-to-kaggle`` on a finished run, against a server that stands for Kaggle."""

from pathlib import Path

import pandas as pd
import pytest

from pipeline.commands import submit_to_kaggle
from pipeline.core import paths
from pipeline.core.errors import InputError
from tests.fixtures import archives
from tests.fixtures.competition import blend_ids
from tests.fixtures.kaggle_server import KaggleServer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def handed_in(finished_run: Path) -> Path:
    """A finished run whose first source has the competition's tables."""
    folder = paths.source("one")
    archives.write_files(folder, archives.competition({"a": "0"}, blend_ids()))
    return finished_run


@pytest.mark.usefixtures("handed_in")
def test_a_submission_is_checked_sent_scored_and_kept(kaggle: KaggleServer, capsys: pytest.CaptureFixture[str]) -> None:
    submit_to_kaggle.main([])
    assert kaggle.uploaded == paths.SUBMISSION.read_bytes()
    (message,) = kaggle.submitted
    assert "cross-validated macro-F1 0." in message
    told = capsys.readouterr().out
    assert "Kaggle's macro-F1: public 0.50000, private 0.51234; cross-validated 0." in told
    assert "kept in submissions/kaggle-scores.csv" in told
    submit_to_kaggle.main([])
    assert len(kaggle.submitted) == 1, "the same file is not sent twice"
    table = pd.read_csv(paths.KAGGLE_SCORES)
    assert table[["message", "public", "private"]].to_numpy().tolist() == [[message, 0.5, 0.51234]]
    submit_to_kaggle.main(["--again"])
    assert len(kaggle.submitted) == len(pd.read_csv(paths.KAGGLE_SCORES)) == 2


@pytest.mark.usefixtures("handed_in")
def test_it_can_be_checked_alone(kaggle: KaggleServer, capsys: pytest.CaptureFixture[str]) -> None:
    submit_to_kaggle.main(["--check"])
    assert "submission.csv is right; its message would be: " in capsys.readouterr().out
    assert not kaggle.users
    rows = paths.SUBMISSION.read_text().splitlines()
    paths.SUBMISSION.write_text("\n".join([rows[0], rows[2], rows[1], *rows[3:]]) + "\n")
    with pytest.raises(InputError, match=r"order is not that of sample_submission"):
        submit_to_kaggle.main([])
    assert not kaggle.users


def test_the_simulated_test_set_is_not_handed_in(finished_run: Path, kaggle: KaggleServer) -> None:
    text = (finished_run / "params.yaml").read_text().replace("sources: [one, two]", "sources: [sample]")
    (finished_run / "params.yaml").write_text(text)
    with pytest.raises(InputError, match=r"the source sample, which is simulated: nothing to hand in"):
        submit_to_kaggle.main([])
    assert not kaggle.users
