"""Charts for reports: figures become pixels here, the template draws them as SVG that follows the page's colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.ticker import LogLocator, MaxNLocator

from orchard.files import atomic, disk_error

WIDTH, HEIGHT = 440, 270  # small enough to stay legible when a phone shows it at three quarters
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 24, 40  # margins; the upper one holds what is said of the mark
LOG_FROM = 30  # ratio of largest to smallest value from which a falling curve is drawn on a logarithmic axis
STEPS = [1, 2, 2.5, 5, 10]  # of round values
MOST_POINTS = 160  # of a line; more cannot be told apart

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One curve: `style` is its class in the style sheet; `dots` marks its points, which then say their values."""

    label: str
    points: Sequence[Point]
    style: str
    dots: bool = False


@dataclass(frozen=True)
class Spot:
    """One thing measured in two ways, with the smallest and largest of its repetitions upwards."""

    label: str
    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Band:
    """One curve with a range around it: points (x, y, low, high)."""

    label: str
    points: Sequence[tuple[float, float, float, float]]


@dataclass(frozen=True)
class Axis:
    """Values to pixels. `percent` says how the ticks are written."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    percent: bool = False

    def place(self, value: float) -> float:
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        value = math.log(max(value, self.low)) if self.log else value
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """(pixel, text) of each round value on the axis."""
        values = _round_values(self.low, self.high, self.log)
        if self.log or max(map(abs, values)) >= 1e4 or 0 < max(map(abs, values)) < 1e-3:
            return [(self.place(v), short(v)) for v in values]
        scale, unit = (100, " %") if self.percent else (1, "")
        digits = max(len(f"{v * scale:.6g}".partition(".")[2]) for v in values)  # as many as the longest needs
        return [(self.place(v), f"{v * scale:,.{digits}f}{unit}") for v in values]


@dataclass
class Chart:
    """What the template draws."""

    title: str
    x_label: str
    y_label: str
    x: Axis
    y: Axis
    lines: list[dict[str, Any]] = field(default_factory=list)
    spots: list[dict[str, Any]] = field(default_factory=list)
    bands: list[dict[str, Any]] = field(default_factory=list)
    mark: tuple[float, str] | None = None
    summary: str = ""  # what someone who cannot see it is told
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    percent: bool = False,
    falling: bool = False,
    mark: tuple[float, str] | None = None,
) -> Chart | None:
    """Curves over a common axis; None where there is not a single point.

    A `falling` quantity gets a logarithmic axis once its values are far apart. `mark` is a place on the x axis and
    what is to be said of it.
    """
    lines = [Line(line.label, thin(line.points), line.style, line.dots) for line in lines if line.points]
    if not lines:
        return None
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    log = falling and min(ys) > 0 and max(ys) / min(ys) > LOG_FROM
    x = _axis(min(0.0, *xs), max(xs), LEFT, WIDTH - RIGHT, tight=True)
    y = _axis(min(ys) if log else min(0.0, *ys), max(ys), HEIGHT - BOTTOM, TOP, log=log, percent=percent)
    chart = Chart(title, x_label, y_label, x, y)
    for line in lines:
        pixels = [(x.place(a), y.place(b)) for a, b in line.points]
        path = "M" + "L".join(f"{a:g},{b:g}" for a, b in pixels)
        says = [f"{line.label}: {_value(b, percent)} at {x_label} {a:g}" for a, b in line.points]
        radius = 2.6 if line.dots and len(pixels) <= 60 else 0
        dots = [(a, b, text) for (a, b), text in zip(pixels, says, strict=True)]
        chart.lines.append({"label": line.label, "style": line.style, "path": path, "dots": dots, "radius": radius})
    if mark:
        chart.mark = (x.place(mark[0]), mark[1])
    ends = (f"{line.label} goes from {_value(line.points[0][1], percent)} to {_value(line.points[-1][1], percent)}"
            for line in lines)  # fmt: skip
    chart.summary = f"{title}: " + "; ".join(ends)
    return chart


def scatter_chart(title: str, points: Sequence[Point], *, x_label: str, y_label: str) -> Chart | None:
    """Pairs of what is equal where all is right, with the line on which they are; None where there is no finite one."""
    points = [point for point in points if all(map(math.isfinite, point))]
    if not points:
        return None
    ends = [value for point in points for value in point]
    x, y = (_axis(min(ends), max(ends), *span) for span in ((LEFT, WIDTH - RIGHT), (HEIGHT - BOTTOM, TOP)))
    chart = Chart(title, x_label, y_label, x, y)
    low, high = max(x.low, y.low), min(x.high, y.high)
    path = f"M{x.place(low):g},{y.place(low):g}L{x.place(high):g},{y.place(high):g}"
    chart.lines.append({"label": "exact", "style": "ideal", "path": path, "dots": [], "radius": 0})
    dots = [(x.place(a), y.place(b), f"{x_label} {short(a)}, {y_label} {short(b)}") for a, b in points]
    chart.lines.append({"label": "records", "style": "train", "path": "", "dots": dots, "radius": 2.6})
    chart.summary = f"{title}: {y_label} against {x_label} of {len(points)} records"
    return chart


def spot_chart(title: str, spots: Sequence[Spot], *, x_label: str, y_label: str, percent: bool = True) -> Chart | None:
    """Values upwards against amounts on a logarithmic axis, shares in per cent; None where there is nothing to draw."""
    if not spots:
        return None
    xs, lows, highs = [s.x for s in spots], [s.low for s in spots], [s.high for s in spots]
    room = max(max(highs) - min(lows), 0.01) * 0.15
    bottom, top = min(lows) - room, max(highs) + room
    if percent:
        bottom, top = max(bottom, 0.0), min(top, 1.0)
    width, height, left = 640, 360, 78
    x = Axis(min(xs) / 1.6, max(xs) * 1.6, left, width - RIGHT, log=True)
    y = _axis(bottom, top, height - 50, TOP, percent=percent)
    chart = Chart(
        title, x_label, y_label, x, y, width=width, height=height, left=left, right=width - RIGHT, bottom=height - 50
    )
    last = -math.inf
    for number, spot in sorted(enumerate(spots), key=lambda pair: -pair[1].y):
        place = x.place(spot.x), y.place(spot.y)
        last = max(place[1] + 5, last + 20)  # names keep a line's distance from the one above
        chart.spots.append(
            {"x": place[0], "y": place[1], "low": y.place(spot.low), "high": y.place(spot.high), "number": number % 8,
             "label": spot.label, "label_y": last, "flip": place[0] > width * 0.65,
             "says": f"{spot.label}: {_value(spot.y, percent)}, {short(spot.x)} {x_label}"}
        )  # fmt: skip
    chart.summary = f"{title}: " + "; ".join(spot["says"] for spot in chart.spots)
    return chart


def band_chart(title: str, bands: Sequence[Band], *, x_label: str, y_label: str, percent: bool = True) -> Chart | None:
    """Curves with ranges; None where none has two points. What lies far outside all curves is not drawn."""
    bands = [band for band in bands if len(band.points) > 1]
    if not bands:
        return None
    xs, ys = [p[0] for band in bands for p in band.points], [p[1] for band in bands for p in band.points]
    room = 0.25 * max(max(ys) - min(ys), 1e-9)
    low = max(min(p[2] for band in bands for p in band.points), min(ys) - room)
    high = min(max(p[3] for band in bands for p in band.points), max(ys) + room)
    x = _axis(min(0.0, *xs), max(xs), LEFT, WIDTH - RIGHT, tight=True)
    y = _axis(min(low, 0.0), high, HEIGHT - BOTTOM, TOP, percent=percent)
    chart = Chart(title, x_label, y_label, x, y)
    for number, band in enumerate(bands):
        upper = [(x.place(a), y.place(min(top, high))) for a, _, _, top in band.points]
        lower = [(x.place(a), y.place(max(bottom, low))) for a, _, bottom, _ in reversed(band.points)]
        area = "M" + "L".join(f"{a:g},{b:g}" for a, b in upper + lower) + "Z"
        path = "M" + "L".join(f"{x.place(a):g},{y.place(b):g}" for a, b, _, _ in band.points)
        chart.bands.append({"label": band.label, "area": area, "path": path, "number": number % 8})
    ends = (f"{band.label} ends at {_value(band.points[-1][1], percent)}" for band in bands)
    chart.summary = f"{title}: " + "; ".join(ends)
    return chart


def thin(points: Sequence[Point]) -> list[Point]:
    """At most MOST_POINTS points, each the mean of its neighbours."""
    group = math.ceil(len(points) / MOST_POINTS)
    chunks = [points[i : i + group] for i in range(0, len(points), max(group, 1))]
    return [(sum(x for x, _ in c) / len(c), sum(y for _, y in c) / len(c)) for c in chunks]


def _axis(
    low: float, high: float, start: float, end: float, *, log: bool = False, percent: bool = False, tight: bool = False
) -> Axis:
    """An axis from round value to round value; a `tight` one ends with the last point."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    if log:
        return Axis(low / 1.15, high * 1.15, start, end, log, percent)
    step = (high - low) * 1e-6
    values = [float(v) for v in MaxNLocator(5, steps=STEPS).tick_values(low, high)]
    below, above = [v for v in values if v <= low + step], [v for v in values if v >= high - step]
    return Axis(below[-1] if below else low, above[0] if above and not tight else high, start, end, log, percent)


def _round_values(low: float, high: float, log: bool) -> list[float]:
    if not log:
        values = MaxNLocator(5, steps=STEPS).tick_values(low, high)
    else:
        decades = math.log10(high / low)
        values = LogLocator(subs=(1,) if decades > 3 else (1, 3) if decades > 1.5 else (1, 2, 5)).tick_values(low, high)
    slack = (high - low) * 1e-9
    return [float(v) for v in values if low - slack <= v <= high + slack] or [low]


def _value(value: float, percent: bool) -> str:
    return f"{value * 100:.1f} %" if percent else short(value)


def percent(share: float | None) -> str:
    if share is None or not math.isfinite(share):
        return "not a number"
    return f"{share * 100:.1f}\N{NO-BREAK SPACE}%"


def short(value: float | None) -> str:
    """Three figures and a unit prefix: 26,506 → 26.5 k, 1.1e9 → 1.1 G; small numbers as they are."""
    if value is None or not math.isfinite(value):
        return "not a number"
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.3g} {letter}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def seconds_text(seconds: float) -> str:
    """A time as a person would say it."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 90:
        return f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def bytes_text(size: float) -> str:
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= limit:
            return f"{size / limit:.3g} {unit}"
    return f"{size:.0f} bytes"


def write_page(path: Path, template: Path, **content: Any) -> Path:
    """Fill a template, which may build on those of this folder, and write the page whole or not at all."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(
        percent=percent, count=lambda number: f"{number:,}", short=short,
        seconds=seconds_text, bytes=bytes_text,
    )  # fmt: skip
    text = environment.get_template(template.name).render(**content)
    try:
        with atomic(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise disk_error(error, path, "make room and run the same command again") from None
    return path
