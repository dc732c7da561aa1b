"""What the tests of fetching share."""

from tests.fixtures.kaggle_account import kaggle

__all__ = ["kaggle"]
