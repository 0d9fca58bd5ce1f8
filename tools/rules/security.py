"""Who tries passwords, and who asks for more than their share: counts, since a rate says nothing of a burst."""

from tools.rules.parts import HOST, Alert, Group, where


def refused_logins(matcher: str = "") -> str:
    """Return the logins that each gateway refused in five minutes."""
    return f"sum by (instance) (increase(fortress_gateway_refused_logins_total{where(matcher)}[5m]))"


def limited_requests(matcher: str = "") -> str:
    """Return the requests over the limit at each gateway in five minutes."""
    return f"sum by (instance) (increase(fortress_gateway_limited_requests_total{where(matcher)}[5m]))"


GROUPS = [
    Group(
        "security",
        [
            Alert(
                "LoginsRefused",
                "warning",
                f"{refused_logins()} > 30",
                "{{ $value | humanize }} logins were refused by {{ $labels.instance }} in 5 minutes.",
                "Somebody tries passwords, or a client has an old one. `make top` names the addresses.",
                labels=HOST,
            ),
            Alert(
                "ClientsLimited",
                "warning",
                f"{limited_requests()} > 300",
                "{{ $value | humanize }} requests were over the limit at {{ $labels.instance }} in 5 minutes.",
                "A client asks for more than its share and is told so; the others are served. `make top` names it.",
                labels=HOST,
            ),
        ],
    ),
]
