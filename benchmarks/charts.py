"""Bars as SVG, by hand: a picture of a few numbers needs no library."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

_WIDTH, _LABEL, _BAR, _GAP, _TOP = 720, 210, 20, 10, 34
#: Room on the right for the number.
_NUMBER = 80
_STYLE = (
    "text{font:13px sans-serif;fill:#24292f}.title{font-weight:bold}.ours{fill:#1f6feb}.peer{fill:#8c959f}"
    "@media(prefers-color-scheme:dark){text{fill:#c9d1d9}.peer{fill:#6e7681}}"
)


def bars(title: str, values: Sequence[tuple[str, float, bool]], unit: str, note: str = "") -> str:
    """A horizontal bar for each value.

    Args:
        title: above the bars.
        values: label, value, and whether it is ours, which is drawn in another colour.
        unit: behind each number.
        note: below the bars.

    Returns:
        The text of an SVG file.
    """
    end = _TOP + len(values) * (_BAR + _GAP)
    height = end + (_BAR if note else 0)
    longest = max((value for _, value, _ in values), default=0.0) or 1.0
    drawn = [_bar(number, label, value, longest, unit, ours) for number, (label, value, ours) in enumerate(values)]
    told = "; ".join(f"{label} {_number(value)} {unit}" for label, value, _ in values)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
            f"<title>{escape(title)}</title><desc>{escape(told)}</desc><style>{_STYLE}</style>",
            f'<text class="title" x="0" y="18">{escape(title)}</text>',
            *drawn,
            *([f'<text x="{_LABEL}" y="{end + 12}">{escape(note)}</text>'] if note else []),
            "</svg>\n",
        ]
    )


def _bar(number: int, label: str, value: float, longest: float, unit: str, ours: bool) -> str:
    top = _TOP + number * (_BAR + _GAP)
    # A bar that cannot be seen would look like a missing one.
    width = max(1.0, value / longest * (_WIDTH - _LABEL - _NUMBER))
    base = top + _BAR - 5
    return (
        f'<text x="{_LABEL - 8}" y="{base}" text-anchor="end">{escape(label)}</text>'
        f'<rect class="{"ours" if ours else "peer"}" x="{_LABEL}" y="{top}" width="{width:.1f}" height="{_BAR}"/>'
        f'<text x="{_LABEL + width + 6:.1f}" y="{base}">{_number(value)} {escape(unit)}</text>'
    )


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
