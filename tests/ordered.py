"""Puts the files of a folder into an order that is not the alphabet's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest


def put_in_order(items: list[pytest.Item], folder: Path, names: Sequence[str]) -> None:
    """Sort the tests of a folder by their files, `attack` being test_attack.py; those of others stay where they are.

    `attack::test_one` is that test alone: what begins early and is looked at late may stand in one file.
    """

    def rank(item: pytest.Item) -> int:
        file = item.path.stem.removeprefix("test_")
        test = f"{file}::{getattr(item, 'originalname', item.name)}"
        return names.index(test if test in names else file)

    places = [place for place, item in enumerate(items) if item.path.parent == folder]
    ours = sorted((items[place] for place in places), key=rank)
    for place, item in zip(places, ours, strict=True):
        items[place] = item
