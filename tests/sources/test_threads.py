"""Work in threads: in order, and only a few items ahead."""

import threading
import time

from pipeline.sources.threads import AHEAD, in_threads


def test_threads_keep_the_order_and_wait_for_the_reader() -> None:
    started: list[int] = []
    lock = threading.Lock()

    def work(item: int) -> int:
        with lock:
            started.append(item)
        time.sleep(0.001 * (item % 3))
        return item * item

    results = in_threads(work, range(100), threads=4)
    first = [next(results) for _ in range(5)]
    time.sleep(0.05)
    assert len(started) <= 5 + 4 * AHEAD
    assert first + list(results) == [item * item for item in range(100)]
