"""What watches the API dies, and the API never notices."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from tests.faults.traffic import Load, Record

testinfra_hosts = ["ansible://gateway"]

UNITS = {
    "Prometheus": ("prometheus", "http://127.0.0.1:9090/-/ready"),
    "Alertmanager": ("prometheus-alertmanager", "http://127.0.0.1:9093/-/ready"),
    "the nginx exporter": ("prometheus-nginx-exporter", "http://127.0.0.1:9113/metrics"),
    "the node exporter": ("prometheus-node-exporter", "http://127.0.0.1:9100/metrics"),
    "mtail": ("mtail", "http://127.0.0.1:3903/metrics"),
    "the blackbox exporter": ("prometheus-blackbox-exporter", "http://127.0.0.1:9115/metrics"),
    "Grafana": ("grafana-server", "http://127.0.0.1:3000/grafana/api/health"),
}
# Kills a unit, and says how many seconds later its address answers again.
KILL = """
old=$(systemctl show {unit} --property=MainPID --value)
test "$old" != 0 && began=$(date +%s%3N) && kill -KILL $old || exit 1
for _ in $(seq 200); do
    new=$(systemctl show {unit} --property=MainPID --value)
    if test "$new" != 0 && test "$new" != "$old" && curl --silent --fail --max-time 1 --output /dev/null {url}; then
        echo $(($(date +%s%3N) - began)) && exit
    fi
    sleep 0.1
done
exit 1
"""


@pytest.mark.parametrize("name", UNITS)
def test_a_part_of_the_monitoring_is_killed(host: Host, load: Load, record: Record, name: str) -> None:
    unit, url = UNITS[name]
    if not host.service(unit).is_enabled:
        pytest.skip(f"{name} is not installed")
    standin = name == "Grafana" and "standin" in host.run("dpkg-query --show grafana").stdout
    with load() as traffic:
        traffic.strike()
        done = host.run(KILL.format(unit=unit, url=url))
    assert done.rc == 0, f"{unit} did not come back: {host.run(f'systemctl status {unit}').stdout}"
    took = int(done.stdout) / 1000
    record(f"kill -9 of {name}", traffic, took, "a stand-in for Grafana" if standin else "")
    traffic.assert_nothing_failed()
    assert took < 15
