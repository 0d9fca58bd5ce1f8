"""What holds for all tests, those of the application too."""

import gc


def pytest_collection_finish() -> None:
    """Collect garbage seldom: the million objects that tests import would be looked through again and again."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
