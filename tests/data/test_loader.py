"""Batches: the right image with the right target, the same ones whatever the number of workers."""

import multiprocessing
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch

from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.data.loader import Image, Samples, closing_workers, ordered_batches, training_batches

N, SIDE = 11, 64
OFF = params.Repeat(below=0.05, most=1)


@pytest.fixture
def arrays() -> dict[str, npt.NDArray[np.uint8]]:
    random = np.random.default_rng(0)
    return {source: random.integers(0, 256, (N, SIDE, SIDE, 4), dtype=np.uint8) for source in ("a", "b")}


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {"source": ["a", "b"] * (N // 2), "row": range(1, N), "target": ["3 1", "", "27", "0"] * 2 + ["5", "6"]}
    )


class AddSeed:
    """An 'augmentation' that shows its seed."""

    side = SIDE

    def __call__(self, image: Image, seed: int, into: Image) -> Image:
        return np.add(image, np.uint8(seed % 251), into)


def test_images_and_targets_are_those_of_the_table(
    table: pd.DataFrame, arrays: dict[str, npt.NDArray[np.uint8]]
) -> None:
    samples = Samples(table, arrays, SIDE)
    for position, (source, row) in enumerate(zip(table["source"], table["row"], strict=True)):
        images, _ = samples.batch([(0, position, 0)])
        np.testing.assert_array_equal(images[0].numpy().transpose(1, 2, 0), arrays[source][row])
    assert samples.targets[0].nonzero().flatten().tolist() == [1, 3]
    assert samples.targets[1].sum() == 0
    assert samples.targets[2].nonzero().flatten().tolist() == [27]


def test_shrinking_is_by_area(table: pd.DataFrame, arrays: dict[str, npt.NDArray[np.uint8]]) -> None:
    images, _ = Samples(table, arrays, SIDE // 4).batch([(0, 0, 0)])
    blocks = arrays["a"][1].astype(float).reshape(SIDE // 4, 4, SIDE // 4, 4, 4).mean(axis=(1, 3))
    assert np.abs(images[0].numpy().transpose(1, 2, 0) - blocks).max() <= 1  # it is rounded twice


def test_an_epoch_is_the_same_with_any_number_of_workers(
    table: pd.DataFrame, arrays: dict[str, npt.NDArray[np.uint8]]
) -> None:
    def epochs(workers: int) -> list[torch.Tensor]:
        loader, draws = training_batches(
            Samples(table, arrays, SIDE, augmentation=AddSeed(), seed=5), 4, workers, OFF, {}
        )
        seen = []
        for epoch in range(2):
            draws.epoch = epoch
            seen.append(torch.cat([images for images, _ in loader]))
        return seen

    alone, two = epochs(0), epochs(2)
    for left, right in zip(alone, two, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0)
    assert len(alone[0]) == 8  # two whole batches of four; the rest of two is left for another epoch
    assert not torch.equal(alone[0], alone[1])


def test_a_pass_that_was_given_up_leaves_nothing_to_the_next(
    table: pd.DataFrame, arrays: dict[str, npt.NDArray[np.uint8]]
) -> None:
    batches = ordered_batches(Samples(table, arrays, SIDE), 1, 2)
    with closing_workers(batches):
        for taken in range(len(table)):
            next(islice(batches, taken, None))
            for position, (images, _) in enumerate(batches):
                expected = arrays[table["source"][position]][table["row"][position]]
                np.testing.assert_array_equal(images[0].numpy().transpose(1, 2, 0), expected)


def test_ordered_batches_hold_every_sample_once_in_order(
    table: pd.DataFrame, arrays: dict[str, npt.NDArray[np.uint8]]
) -> None:
    samples = Samples(table, arrays, SIDE)
    images = torch.cat([images for images, _ in ordered_batches(samples, 4, 0)])
    assert len(images) == len(table)
    for position in range(len(table)):
        torch.testing.assert_close(images[position], samples.batch([(0, position, 0)])[0][0])


def test_fewer_samples_than_a_batch_are_one_batch(
    table: pd.DataFrame, arrays: dict[str, npt.NDArray[np.uint8]]
) -> None:
    loader, _ = training_batches(Samples(table, arrays, SIDE), 64, 0, OFF, {})
    assert [len(images) for images, _ in loader] == [len(table)]


def test_loading_leaves_the_networks_randomness_alone(
    table: pd.DataFrame, arrays: dict[str, npt.NDArray[np.uint8]]
) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(ordered_batches(Samples(table, arrays, SIDE), 4, 0))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_lies_in_memory_as_the_network_reads_it(
    table: pd.DataFrame, arrays: dict[str, npt.NDArray[np.uint8]]
) -> None:
    for workers in (0, 1):
        images, _ = next(iter(ordered_batches(Samples(table, arrays, SIDE), 4, workers)))
        assert images.shape == (4, 4, SIDE, SIDE)
        assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.skipif(torch.cuda.is_available(), reason="beside a GPU they take nothing from the network")
def test_workers_give_way_to_the_network(table: pd.DataFrame, arrays: dict[str, npt.NDArray[np.uint8]]) -> None:
    batches = ordered_batches(Samples(table, arrays, SIDE), 4, 2)
    with closing_workers(batches):
        list(batches)
        workers = [child.pid for child in multiprocessing.active_children()]
        assert [os.getpriority(os.PRIO_PROCESS, pid) for pid in workers if pid] == [19, 19]
    assert os.getpriority(os.PRIO_PROCESS, 0) < 19


def test_a_failure_ends_the_program_though_its_traceback_holds_the_loader(tmp_path: Path) -> None:
    script = tmp_path / "fails.py"
    script.write_text(
        """
import numpy as np, pandas as pd
from pipeline.data.loader import Samples, closing_workers, ordered_batches
table = pd.DataFrame({"source": ["a"] * 4, "row": range(4), "target": "0"})
batches = ordered_batches(Samples(table, {"a": np.zeros((4, 8, 8, 4), np.uint8)}, 8), 2, 2)
with closing_workers(batches):
    for _ in batches:
        raise RuntimeError("out of memory")
""",
        encoding="utf-8",
    )
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("RuntimeError: out of memory")


def test_a_source_is_shown_as_often_as_the_parameters_say(
    table: pd.DataFrame, arrays: dict[str, npt.NDArray[np.uint8]]
) -> None:
    samples = Samples(table, arrays, SIDE)
    _, draws = training_batches(samples, 2, 0, OFF, {"a": 3.0})
    shown = [samples.sources[position] for batch in draws for _, position, _ in batch]
    expected = {source: int((samples.sources == source).sum()) for source in ("a", "b")}
    assert shown.count("a") == 3 * expected["a"]
    assert shown.count("b") == expected["b"]


def test_an_epoch_without_samples_is_refused(table: pd.DataFrame, arrays: dict[str, npt.NDArray[np.uint8]]) -> None:
    with pytest.raises(InputError, match=r"data\.draws: an epoch would show none of the 10 samples: raise it"):
        training_batches(Samples(table, arrays, SIDE), 2, 0, OFF, dict.fromkeys(arrays, 0.01))


def test_rare_labels_come_more_often_and_each_time_changed_anew(
    table: pd.DataFrame, arrays: dict[str, npt.NDArray[np.uint8]]
) -> None:
    samples = Samples(table, arrays, SIDE, augmentation=AddSeed())
    repeat = params.Repeat(below=1, most=1.5)  # every label is rare: 1.5 times each, but once without a label
    loader, draws = training_batches(samples, 2, 0, repeat, {})
    batches = list(draws)
    shown = [position for batch in batches for _, position, _ in batch]
    assert len(shown) == 2 * len(loader) == 14  # 8 of 10 samples have labels: 14 draws
    drawn = {draw for batch in batches for draw in batch}
    assert len(drawn) == len(shown)
    twice = next(position for position in shown if shown.count(position) == 2)
    first, again = samples.batch([(0, twice, 0), (0, twice, 1)])[0]
    assert not torch.equal(first, again)
