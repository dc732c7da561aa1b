"""Progress in a log: whole lines with count, rate and time left, and nothing redrawn."""

import time

import pytest

from pipeline.core import progress


def test_a_log_gets_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOG_INTERVAL_S", 0.0)
    assert list(progress.track(range(3), "packing")) == [0, 1, 2]
    with progress.count("training", total=4, unit="images") as bar:
        bar.update(4)
        progress.say("epoch 1")
    output = capsys.readouterr().err
    assert "\r" not in output
    lines = output.splitlines()
    assert lines[0].startswith("packing: 0/3 samples")
    assert any(line.startswith("packing: 3/3 samples, ") and line.endswith(" left") for line in lines)
    assert "epoch 1" in lines
    assert all(line.strip() for line in lines)


def test_items_of_an_earlier_run_are_shown_but_not_counted_for_the_rate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LOG_INTERVAL_S", 0.0)
    with progress.count("training", total=2_000_000, done=1_000_000) as bar:
        time.sleep(0.02)
        bar.update(1)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("training: 1000001/2000000 samples, ")
    assert float(last.split(", ")[1].split()[0]) < 100
