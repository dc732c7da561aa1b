"""Channel statistics: numpy's, hardly changed by exposure, and finite for empty channels."""

from itertools import combinations

import numpy as np
import pytest

from pipeline.core.labels import CHANNELS
from pipeline.inference.channel_statistics import LEAST, STATISTICS, channel_statistics, with_channels_swapped
from tests.fixtures.archives import field


def named(image: np.ndarray) -> dict[str, float]:
    (row,) = channel_statistics(image[None])
    return dict(zip(STATISTICS, row.tolist(), strict=True))


def test_they_are_what_numpy_computes() -> None:
    image = field("one", 64)
    found = named(image)
    x = image.astype(np.float64) / 255
    for position, channel in enumerate(CHANNELS):
        own = x[..., position]
        assert found[f"contrast of {channel}"] == pytest.approx(np.log((own.std() + LEAST) / (own.mean() + LEAST)))
        assert found[f"saturation of {channel}"] == pytest.approx(np.log((own == 1).mean() + LEAST))
        steps = [((own[:, 4:] - own[:, :-4]) ** 2).mean(), ((own[4:] - own[:-4]) ** 2).mean()]
        roughness = np.log(sum(steps) / (4 * (own.std() + LEAST) ** 2) + LEAST**2)
        assert found[f"roughness of {channel} at 4 px"] == pytest.approx(roughness, rel=1e-4)
    correlation = np.corrcoef(x[..., 0].ravel(), x[..., 2].ravel())[0, 1]
    assert found["correlation of green and red"] == pytest.approx(correlation, abs=0.02)


def test_half_the_exposure_changes_them_little_and_blur_much() -> None:
    image = field("one", 64) // 2 * 2
    before, darker = (channel_statistics(one[None])[0] for one in (image, image // 2))
    kept = [position for position, name in enumerate(STATISTICS) if not name.startswith("saturation")]
    np.testing.assert_allclose(before[kept], darker[kept], atol=0.1)
    smooth = np.stack([image, np.roll(image, 1, 0), np.roll(image, 1, 1)]).mean(axis=0).astype(np.uint8)
    assert np.abs(channel_statistics(smooth[None])[0] - before).max() > 0.3


def test_empty_channels_have_finite_statistics() -> None:
    images = np.zeros((2, 32, 32, 4), np.uint8)
    images[1] = 255
    assert np.isfinite(channel_statistics(images)).all()


@pytest.mark.parametrize("pair", list(combinations(range(4), 2)))
def test_statistics_of_swapped_channels_are_those_of_the_swapped_image(pair: tuple[int, int]) -> None:
    images = np.stack([field("one", 64), field("two", 64)])
    order = list(range(4))
    order[pair[0]], order[pair[1]] = pair[::-1]
    one, other = (CHANNELS[channel] for channel in pair)
    found = with_channels_swapped(channel_statistics(images), one, other)
    np.testing.assert_allclose(found, channel_statistics(images[..., order]), rtol=1e-6, atol=1e-6)
