"""The benchmark of packing, at toy size."""

import json
import sys

import pytest

from benchmarks import pack


def test_the_benchmark_ends_in_its_figures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    toy = "pack --size 64 --samples 2 --copies 2 --rounds 1"
    monkeypatch.setattr(sys, "argv", toy.split())
    pack.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["samples"] == 4
    assert figures["pack_over_decode"] > 0
    assert 20 < figures["peak_memory_mb"] < 1000
