"""The timing of the benchmarks: interleaved rounds and their ratios."""

import json

import pandas as pd
import pytest

from benchmarks.interleaved import measure, ratio, ratio_of_medians, report


def test_every_case_runs_once_a_round_in_turn() -> None:
    calls: list[str] = []
    seconds = measure({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3, warm_up=1)
    assert calls == ["a", "b"] * 4
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 3, "b": 3}


def test_the_ratio_is_the_median_of_the_rounds_ratios() -> None:
    assert ratio({"a": [2.0, 6.0, 100.0], "b": [1.0, 2.0, 1.0]}, over="a", under="b") == 3


def test_the_ratio_of_medians_is_one_of_single_numbers() -> None:
    assert ratio_of_medians({"a": [2.0, 6.0, 100.0], "b": [1.0, 2.0, 1.0]}, over="a", under="b") == 6


def test_the_report_ends_in_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    report(pd.DataFrame({"case": ["a"], "ms": [1.25]}), {"a_over_b": 1.5})
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[-1]) == {"a_over_b": 1.5}
    assert "1.250" in lines[-2]
