"""What holds for all tests, those of the application too."""

import gc

# A million objects are imported and collected, and all of them stay.
gc.disable()


def pytest_runtestloop() -> None:
    """Collect garbage seldom: the million objects that tests import would be looked through again and again."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()
