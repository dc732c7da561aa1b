"""The order of the tests."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those of minutes first, so that no worker is left with one of them when the others are done."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
