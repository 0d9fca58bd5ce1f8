"""The load against a healthy site: what it reports below is the site's doing and not its own."""

from __future__ import annotations

import time
from collections import Counter

from tests.faults.traffic import Load, Record

testinfra_hosts = ["ansible://gateway"]


def test_nothing_fails_where_nothing_happens(load: Load, record: Record) -> None:
    with load() as traffic:
        time.sleep(12)
    traffic.assert_nothing_failed()
    for kind in traffic.kinds.values():
        assert (kind.found_closed, kind.hit_closed, kind.retried) == (0, 0, 0)
    shares = Counter(instance for _, _, instance in traffic.answered)
    assert set(shares) == {"iris-api@1", "iris-api@2", "iris-api@3"}
    assert max(shares.values()) < 1.2 * min(shares.values()), shares
    record("none", traffic)
