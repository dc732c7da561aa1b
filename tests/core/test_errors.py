"""Problems are reported all at once, and signals end in the handler that was asked for."""

import os
import signal
from pathlib import Path

import pytest

from pipeline.core.errors import InputError, Problem, raise_problems, when_asked_to_stop


def test_problems_are_counted_by_kind_and_the_first_of_each_are_named() -> None:
    raise_problems(Path("data/a"), [])
    problems = [Problem(f"x{number}", "files are missing: look again") for number in range(1200)]
    with pytest.raises(InputError) as caught:
        raise_problems(Path("data/a"), [*problems, Problem("y", "a damaged image: download it again")])
    assert str(caught.value).splitlines() == [
        "data/a: 1,201 problems; nothing was written",
        "  files are missing: look again",
        "    x0, x1, x2, x3, x4, and 1,195 more",
        "  a damaged image: download it again",
        "    y",
    ]


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_handled_within_the_block_only(by: signal.Signals) -> None:
    before, seen = signal.getsignal(by), list[signal.Signals]()
    with when_asked_to_stop(seen.append):
        os.kill(os.getpid(), by)
    assert seen == [by]
    assert signal.getsignal(by) == before
