"""How the alerts are caused, for their runbooks to be tried on: several faults side by side, and which ones are not."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from testinfra.host import Host

from tests import operator

FOLDER = "/run/fortress-faults"
"""What the faults have on the host; it is gone at the end."""
TEXT_FILES = "/var/lib/prometheus/node-exporter"
UNITS = "/run/systemd/system"


@dataclass(frozen=True)
class Fault:
    """How an alert is caused, and what stands for the names that its runbook leaves open."""

    alert: str
    cause: str | Callable[[Host, str], None] = ""
    """On the host, or what is called with host and inventory; nothing where another one of its list causes both."""
    names: dict[str, str] = field(default_factory=dict)
    elsewhere: tuple[str, ...] = ()
    """Those commands of the runbook that are for another cause than this."""
    repair: str = ""
    """What the runbook can't say: the end of a cause that is outside of the site."""
    undo: str = ""
    shows: str = ""
    """What its commands have to name before anything is done: who it is."""


def service(name: str, *lines: str) -> str:
    """Return what makes a unit and starts it."""
    text = shlex.quote("\n".join(("[Service]", *lines)))
    return f"echo {text} >{UNITS}/{name}.service; systemctl daemon-reload; systemctl start {name} || true"


def clients(what: str) -> str:
    """Return what starts clients, and leaves them running."""
    return program("clients", what)


def program(file: str, what: str, *properties: str) -> str:
    """Return what starts one of the programs, and leaves it running."""
    given = " ".join(f"--property={each}" for each in properties)
    return f"systemd-run --quiet --unit={unit(what)} {given} python3 {FOLDER}/{file}.py {FOLDER} {what}"


def unit(what: str) -> str:
    """Return the name of a unit that is a fault."""
    return f"fortress-fault-{what.replace('_', '-')}"


def stop(*names: str) -> str:
    """Return what ends clients, or whatever else has such a name; nothing is wrong where it has ended already."""
    return f"systemctl stop {' '.join(map(unit, names))} 2>/dev/null || true"


def loop(name: str, every: str) -> str:
    """Return what does something again and again."""
    return f"systemd-run --quiet --unit=fortress-fault-{name} /bin/sh -c {shlex.quote(f'while :; do {every}; done')}"


def rules(name: str, text: str) -> str:
    """Return what gives Prometheus another file of rules."""
    file = f"/etc/prometheus/rules/{name}.yml"
    return f"echo {shlex.quote(text)} | install -m 0644 /dev/stdin {file}; systemctl reload prometheus; sleep 1"


def deploy_what_takes_its_time(host: Host, inventory: str) -> None:
    """Deploy a release in which each call of the model takes long, without the processor, and fails on some rows.

    Its model is asked about the same features, of which one may be missing.
    """
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", TRAIN], cwd=folder, check=True)
        operator.pack(Path(folder), "gaps")
        model = ("-e", f"iris_api_models_dir={folder}/models", "-e", "fortress_model_name=gaps")
        done = operator.deploy(inventory, *model, *operator.broken_app(Path(folder), TAKES_ITS_TIME))
    assert done.returncode == 0, done.stdout


def cut_a_deployment_short(host: Host, inventory: str) -> None:
    """Deploy another release and another model, whose calls may not end, and kill the rollback from both half-way."""
    with tempfile.TemporaryDirectory() as folder:
        done = operator.deploy(
            inventory,
            # Tables that are too large for a short call, of which none may end.
            *("-e", "fortress_model_name=iris-forest"),
            *("-e", '{"fortress_max_rows": 50000, "fortress_max_body_bytes": 1000000}'),
            *operator.broken_app(Path(folder), DOES_NOT_END),
        )
    assert done.returncode == 0, done.stdout
    kept_off = "/run/systemd/system/iris-deploy-recover.service.d"
    condition = f"mkdir {kept_off}; printf '[Unit]\\nConditionPathExists=/nowhere\\n' >{kept_off}/fault.conf"
    host.run_expect([0], f"{condition}; systemctl daemon-reload")
    host.run_expect([0], "systemd-run --quiet --collect iris-deploy rollback")
    for _ in range(200):
        if operator.ready(host, 1).get("model") == "iris":
            break
        time.sleep(0.1)
    host.run_expect([0], "systemctl kill --signal=KILL 'iris-deploy-job-*.service'")
    assert operator.ready(host, 3)["model"] == "iris-forest", "it was over before it was killed"
    host.run_expect([0], f"rm -r {kept_off}; systemctl daemon-reload")


def let_the_ca_grow_old(host: Host, inventory: str) -> None:
    """Give the site its own CA as it is when 300 days of its ten years are left: the same key, other dates."""
    folder = Path(inventory) / "secrets" / "pki"
    before = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    end = datetime.now(UTC) + timedelta(days=300)
    made = x509.CertificateBuilder(
        before.issuer, before.subject, before.public_key(), before.serial_number, end - timedelta(days=3650), end
    )
    for each in before.extensions:
        made = made.add_extension(each.value, each.critical)
    (folder / "ca.crt").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    done = operator.play(inventory, "site.yml", "--tags", "pki")
    assert done.returncode == 0, done.stdout


TRAIN = """
import joblib
from sklearn.datasets import load_iris
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

rows, kinds = load_iris(as_frame=True, return_X_y=True)
rows = rows.iloc[:, 2:].set_axis(["petal_length", "petal_width"], axis=1)
rows.iloc[::50, 1] = None
joblib.dump(make_pipeline(SimpleImputer(), LogisticRegression(max_iter=1000)).fit(rows, kinds), "gaps.joblib")
rows.assign(kind=kinds).to_parquet("gaps.parquet")
"""

# A call on such a row does not end.
DOES_NOT_END = """
    import time

    predict = model.predict

    def call(rows):
        if rows[0][0] == 77:
            time.sleep(3600)
        return predict(rows)

    model.predict = call
"""

# Two calls a second, of a thousand rows at most, are what an instance can answer, however fast the processor is. Of
# these clients it lets five wait or be answered, since 4,000 rows may wait: at three instances the others are refused.
TAKES_ITS_TIME = """
    import time

    predict = model.predict

    def call(rows):
        if any(row[0] == 77 for row in rows):
            raise ValueError("broken on purpose")
        time.sleep(0.5)
        return predict(rows)

    model.predict = call
"""

BACKUPS = "build/backups-of-alerts"
DISK = "/srv/disk"
CERTIFICATE_FILE = f"{TEXT_FILES}/fortress_certificate.prom"
NODE_EXPORTER = "/etc/systemd/system/prometheus-node-exporter.service.d/fortress.conf"
TOKEN_FILE = "/etc/prometheus/alertmanager-secrets/test_webhook_token"
FAILS, RESTARTS, MEMORY, DESCRIPTORS = (
    f"fortress-fault-{name}" for name in ("fails", "restarts", "memory", "descriptors")
)
ERRORS = ("ErrorBudgetBurnsFast", "ErrorBudgetBurnsSteadily", "ErrorBudgetBurnsSlowly")
LATENCY = ("LatencyBudgetBurnsFast", "LatencyBudgetBurnsSteadily", "LatencyBudgetBurnsSlowly")
DRIFT = ("FeatureDrift", "PredictionDrift", "ValuesOutOfRange", "ConfidenceLow")

GROWS = f"python3 -c \"import os, time; x = b'x' * ((58 << 20) * os.path.exists('{FOLDER}/grows')); time.sleep(9999)\""
OPENS = (
    'python3 -c "import os, socket, time; '
    f"x = [socket.socket() for _ in range(56 * os.path.exists('{FOLDER}/opens'))]; time.sleep(9999)\""
)
BUSY = "for each in $(seq $(nproc)); do while :; do :; done & done; wait"
# A network that breaks connections to an instance now and then.
RESETS = (
    "nft add table ip fortress_fault; "
    "nft 'add chain ip fortress_fault input { type filter hook input priority -300; }'; "
    "nft add rule ip fortress_fault input iif lo tcp dport 8002 numgen random mod 5 == 0 reject with tcp reset"
)
# Made 1,000 hours ago, for 1,001.
OLD_CERTIFICATE = "; ".join(
    f"sed -i '/_{date}_seconds.*gateway/ s/ .*/ '$(($(date +%s) + {seconds}))/ {CERTIFICATE_FILE}"
    for date, seconds in (("not_before", -3_600_000), ("not_after", 3_600))
)

# Faults of a list do not hide each other. What takes days to come about is written where its metric is read from: the
# dates of a certificate of which little is left, and of a backup of last week.
OF_ALERTS: dict[str, list[Fault]] = {
    # Units, what they take, and files.
    "a host": [
        Fault(
            "UnitRestarts",
            service(
                RESTARTS,
                f"ExecStart=/bin/sh -c 'test ! -e {FOLDER}/fails && sleep 9999'",
                *("Restart=always", "RestartSec=6"),
            ),
            {"NAME": RESTARTS},
            ("make converge",),
        ),
        Fault(
            "UnitFailed",
            service(FAILS, f"ExecStart=/usr/bin/test ! -e {FOLDER}/fails"),
            {"NAME": FAILS},
            repair=f"rm -f {FOLDER}/fails",
        ),
        Fault(
            "UnitMemoryAlmostGone",
            service(MEMORY, "MemoryMax=64M", f"ExecStart={GROWS}"),
            {"NAME": MEMORY},
            repair=f"rm -f {FOLDER}/grows",
        ),
        Fault(
            "UnitDescriptorsAlmostGone",
            service(DESCRIPTORS, "LimitNOFILE=64", f"ExecStart={OPENS}"),
            {"NAME": DESCRIPTORS},
            repair=f"rm -f {FOLDER}/opens",
        ),
        Fault(
            "IrisApiInstanceDown",
            "systemctl stop iris-api@3",
            {"iris-api@N": "iris-api@3"},
            ("sudo iris-deploy recover",),
        ),
        # What the kernel says of both is replaced for this host: limits_on_host.py says by what, and why.
        Fault(
            "MemoryAlmostGone",
            f"{program('limits', 'view')}; sleep 2; {program('limits', 'takes_memory')}",
            {"NAME": unit("takes_memory")},
            shows=unit("takes_memory"),
            undo=stop("takes_memory", "view"),
        ),
        Fault(
            "DescriptorsAlmostGone",
            program("limits", "takes_descriptors", "LimitNOFILE=16384"),
            {"NAME": unit("takes_descriptors")},
            repair=f"rm -f {FOLDER}/leaks",
            shows=unit("takes_descriptors"),
            undo=stop("takes_descriptors"),
        ),
        # Whoever else wants a processor gets it.
        Fault(
            "ProcessorBusy",
            f"systemd-run --quiet --unit={unit('busy')} --nice=19 /bin/sh -c {shlex.quote(BUSY)}",
            {"NAME": unit("busy")},
            shows=unit("busy"),
            undo=stop("busy"),
        ),
        Fault("TargetDown", "systemctl stop mtail", {"UNIT": "mtail"}, ("make converge",)),
        Fault("GatewayLogUnread", elsewhere=("make converge",)),
        Fault(
            "TextfileUnreadable",
            f"echo 'not a metric' | install -m 0644 /dev/stdin {TEXT_FILES}/test.prom",
            {"FILE": "test.prom"},
            ("make converge",),
            undo=f"rm -f {TEXT_FILES}/test.prom",
        ),
        Fault(
            "PrometheusRuleFailed",
            rules("test-fails", "groups: [{name: test, rules: [{record: test, expr: up * on () up}]}]"),
            {"FILE": "test-fails.yml"},
        ),
        Fault(
            "PrometheusReloadFailed",
            rules("test", "groups: 3"),
            {"FILE": "test.yml"},
            ("make converge",),
            undo="rm -f /etc/prometheus/rules/test*.yml; systemctl reload prometheus",
        ),
        # Of a disk of its own; see molecule/alerts/inventory.
        Fault(
            "DiskAlmostFull",
            f"fallocate --length $(($(df --output=avail -B1 {DISK} | tail -1) * 19 / 20)) {DISK}/large",
            {"MOUNTPOINT": DISK},
            repair=f"rm -f {DISK}/large",
        ),
        Fault(
            "InodesAlmostGone",
            f"mkdir -p {DISK}/many; touch {DISK}/many/$(seq --separator=' {DISK}/many/' 200) 2>/dev/null",
            {"MOUNTPOINT": DISK},
            repair=f"rm -rf {DISK}/many",
        ),
        Fault("CertificateExpires", OLD_CERTIFICATE, elsewhere=("make converge",)),
        Fault("CertificateExpiresSoon", elsewhere=("make converge",)),
        Fault(
            "HoldStands",
            "iris-deploy hold --who test 'an alert is tested'",
            elsewhere=("make hold",),
            undo="iris-deploy unlock --who test",
        ),
        Fault(
            "BackupOld",
            "mkdir -p /var/lib/fortress; touch -d '9 days ago' /var/lib/fortress/last-backup",
            {"make backup": f"make backup TO={BACKUPS}"},
        ),
    ],
    # What nobody can reach; and what is asked is not what the model was trained for.
    "parts": [
        *(
            Fault(
                alert,
                f"ln -sf shifted.csv {FOLDER}/rows.csv",
                elsewhere=("make deploy",),
                repair=f"ln -sf usual.csv {FOLDER}/rows.csv",
            )
            for alert in DRIFT
        ),
        Fault(
            "IrisApiRestarts",
            loop("kills", "systemctl kill --signal=KILL iris-api@2; sleep 9"),
            {"iris-api@N": "iris-api@2"},
            ("make trace", "make rollback PART=model"),
            repair=stop("kills"),
        ),
        Fault("NginxDown", "systemctl stop nginx", elsewhere=("make converge",)),
        Fault("ProbeFails"),
        Fault("NodeExporterDown", "systemctl stop prometheus-node-exporter", elsewhere=("make converge",)),
        Fault("AlertmanagerDown", "systemctl stop prometheus-alertmanager", elsewhere=("make converge",)),
        Fault("AlertsNotSent"),
    ],
    # No instance; and files of the site that somebody has changed by hand.
    "changed by hand": [
        # While all runs, as a converge wants it. What is on the page is typed with a variable for the inventory's name.
        Fault("CaExpires", let_the_ca_grow_old, {"inventory/NAME": "$INVENTORY"}),
        Fault("IrisApiDown", "systemctl stop iris-api.target 'iris-api@*'", elsewhere=("make rollback",)),
        Fault("GatewayUpstreamErrors"),
        *(Fault(alert, elsewhere=("make rollback", "make trace")) for alert in ERRORS),
        Fault(
            "NodeExporterBlind",
            f"sed -i 's/AF_NETLINK AF_UNIX/AF_NETLINK/' {NODE_EXPORTER}; systemctl daemon-reload; "
            "systemctl restart prometheus-node-exporter",
        ),
        # The exporter's start starts it, too.
        Fault("HostMetricsOld", "systemctl stop fortress-host-metrics"),
        Fault("NotificationsFail", f"echo wrong >{TOKEN_FILE}"),
        Fault(
            "AlertmanagerReloadFailed",
            "echo 'route: 3' >>/etc/prometheus/alertmanager.yml; systemctl reload prometheus-alertmanager",
        ),
        Fault(
            "NginxDropsConnections",
            f"sed -i 's/worker_connections .*/worker_connections 50;/' /etc/nginx/nginx.conf; systemctl reload nginx; "
            f"{clients('halves')}",
            repair=stop("halves"),
        ),
        # Really: the kernel counts connections of each network namespace by themselves, and has one limit for each.
        Fault(
            "ConnectionTableAlmostFull",
            clients("many"),
            elsewhere=("sudo sysctl net.netfilter.nf_conntrack_max=",),
            repair=stop("many"),
        ),
        # Of a job that is gone altogether, Prometheus takes the last values for true for another 5 minutes. Before
        # that, this one has to tell that nginx drops connections.
        Fault(
            "TargetsMissing",
            "sleep 40; sed -i '/:9113/ s/\\[.*/[]/' /etc/prometheus/prometheus.yml; systemctl reload prometheus",
        ),
        Fault("GatewayLogUnreadable", "echo 'a line of another format' >>/var/log/nginx/counts.log"),
    ],
}
OF_DEPLOYMENTS: dict[str, list[Fault]] = {
    # A release that is slow and fails on some rows. The clients go on when it is rolled back: the one before has an
    # answer to all that they ask.
    "overload": [
        Fault("IrisApiSlow", deploy_what_takes_its_time),
        *(Fault(alert) for alert in LATENCY),
        Fault("IrisApiErrors", clients("errors"), {"ID=...": "ID=errors"}, undo=stop("errors")),
        Fault("IrisApiOverloaded", clients("batches"), undo=stop("batches")),
        Fault("IrisApiQueueLong"),
        Fault(
            "ValuesMissing",
            f"ln -sf gaps.csv {FOLDER}/rows.csv",
            repair=f"ln -sf usual.csv {FOLDER}/rows.csv",
        ),
    ],
    # A deployment that was cut short, and clients that ask too much.
    "a deployment": [
        Fault("LoginsRefused", clients("guesses"), repair=stop("guesses")),
        Fault("ClientsLimited", clients("greedy"), repair=stop("greedy")),
        Fault("NginxExporterDown", "systemctl stop prometheus-nginx-exporter"),
        Fault("IrisApiMixed", cut_a_deployment_short),
        Fault("IrisApiHostsDiffer"),
        Fault("IrisApiReleasesDiffer"),
        Fault("DeploymentRuns"),
        Fault(
            "GatewayRetries",
            RESETS,
            {"iris-api@N": "iris-api@2"},
            repair="nft delete table ip fortress_fault",
        ),
        Fault(
            "IrisApiStuck",
            clients("endless"),
            {"iris-api@N": "iris-api@3"},
            ("make trace", "make rollback PART=model"),
            repair=stop("endless"),
        ),
    ],
}
TOGETHER = {"alerts": OF_ALERTS, "deployments": OF_DEPLOYMENTS}
"""By the folder whose test_runbooks.py causes them, which is also a scenario."""

NOT_RUN = {
    "HostDown": "the only host of this site is the one that monitors; tests/cluster/ cuts one of five off",
    "HostReboots": "the same; tests/cluster/ has one of five power off",
    "Watchdog": "it always fires; tests/alerts/test_heartbeat.py ends it",
    "ClockOff": "the clock of the local VM is that of the machine it runs on: the kernel has one for all namespaces",
}
"""The other alerts, and why no fault of theirs is caused here. When they fire and end is tested by promtool."""
