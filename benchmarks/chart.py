"""The chart: requests a second of every stack, as an SVG. A dozen rectangles are no reason to lock matplotlib."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT, ROW, TOP = 860, 215, 190, 34, 58
COLOURS = {"limit": "#9aa3ad", "ours": "#1f6feb", "naive": "#c9a26b", "peer": "#c9a26b"}


@dataclass(frozen=True)
class Bar:
    """One stack: its median, the slowest and fastest round, what to write behind it."""

    title: str
    kind: str
    value: float
    low: float
    high: float
    note: str


def draw(heading: str, bars: list[Bar]) -> str:
    """Return the picture; longest bar first, a thin line from the slowest round to the fastest."""
    scale = (WIDTH - LEFT - RIGHT) / max(bar.high for bar in bars)
    height = TOP + ROW * len(bars) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
        ' font-family="system-ui, sans-serif" font-size="14" fill="#24292f">',
        f"<title>{escape(heading)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="30" font-size="16" font-weight="600">{escape(heading)}</text>',
    ]
    for number, bar in enumerate(sorted(bars, key=lambda bar: -bar.value)):
        top = TOP + number * ROW
        middle = top + ROW / 2 - 4
        end = LEFT + bar.value * scale
        low, high = LEFT + bar.low * scale, LEFT + bar.high * scale
        weight = ' font-weight="600"' if bar.kind == "ours" else ""
        parts += [
            f'<text x="{LEFT - 10}" y="{middle + 5:.1f}" text-anchor="end"{weight}>{escape(bar.title)}</text>',
            f'<rect x="{LEFT}" y="{top}" width="{end - LEFT:.1f}" height="{ROW - 8}" fill="{COLOURS[bar.kind]}"/>',
            f'<path d="M{low:.1f} {middle:.1f}H{high:.1f}" stroke="#24292f" stroke-width="1.5"/>',
            f'<text x="{max(end, high) + 8:.1f}" y="{middle + 5:.1f}"{weight}>{bar.value:,.0f}'
            f'<tspan fill="#57606a" font-weight="400"> {escape(bar.note)}</tspan></text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
