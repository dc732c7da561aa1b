"""The fuzzer accepts intact inputs, detects wrong pixels and counts its inputs."""

import json
import sys

import numpy as np
import pytest

from benchmarks import fuzz


def test_intact_inputs_are_accepted() -> None:
    assert fuzz.read_zip(fuzz.zipped(fuzz.competition(), 0))
    assert fuzz.read_png(fuzz.competition()["train/a_green.png"])


def test_wrong_pixels_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fuzz.zipped(fuzz.competition(), 0)
    monkeypatch.setattr(fuzz, "TRUTH", np.zeros_like(fuzz.TRUTH))
    with pytest.raises(AssertionError, match="wrong pixels"):
        fuzz.read_zip(whole)


def test_the_last_line_counts_the_inputs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["fuzz", "--minutes", "0.02"])
    fuzz.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["tried"] >= 5
    assert figures["failures"] == 0
