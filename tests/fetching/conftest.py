"""Kaggle's API as a server on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kagglesdk import kaggle_env

from tests.fixtures.kaggle_server import KaggleServer, serving_kaggle


@pytest.fixture
def kaggle(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[KaggleServer]:
    """Kaggle, for somebody with a key in the environment and an empty home."""
    home: Path = tmp_path_factory.mktemp("home")
    with serving_kaggle() as server:
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, server.address)
        for name in ("KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR", "KAGGLE_API_ENVIRONMENT"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {"HOME": str(home), "KAGGLE_USERNAME": "somebody", "KAGGLE_KEY": "secret"}.items():
            monkeypatch.setenv(name, value)
        yield server
