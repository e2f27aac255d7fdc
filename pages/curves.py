"""The curves of a run: figures by step, read from its log, and charts of them as SVG."""

import math
import re
from html import escape

LINE_LIMIT, ROW_LIMIT, NAME_LIMIT = 2**14, 20_000, 100  # bytes of a line; lines and names that are kept
POINTS = 250  # of a curve in a chart
WIDTH, HEIGHT = 480, 240  # of a chart, in units of SVG
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 8, 24  # margins around the curves
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # the colour-blind can tell them apart
DASHES = ("", "6 3", "2 2", "8 3 2 3", "12 4", "1 3")  # for prints in grey
LOGGED = re.compile(r"\S+ \S+ (measured at |health at )?step (\d{1,10}):? (.*)")
PAIR = re.compile(r"([\w()%.-]{1,60}) (\S{1,30})")


def read_log(path):
    """(training, measured, health): the figures in the file log.txt of a run. Each is {name: [(step, value), …]}.

    The memory it takes is bounded, whatever the file holds: of a long log it keeps every second line, every fourth, and
    so on. Lines of other kinds are ignored.
    """
    kinds = {None: _Rows(), "measured at ": _Rows(), "health at ": _Rows()}
    with open(path, "rb") as file:
        while line := file.readline(LINE_LIMIT):
            if match := LOGGED.match(line.decode("utf-8", "replace")):
                kinds[match[1]].add((int(match[2]), PAIR.findall(match[3])[:NAME_LIMIT]))
    return [_by_name(rows.kept) for rows in kinds.values()]


class _Rows:
    """Rows at even distances: of all rows added so far, every `apart`-th, at most ROW_LIMIT."""

    def __init__(self):
        self.kept, self.apart, self.added = [], 1, 0

    def add(self, row):
        if self.added % self.apart == 0:
            self.kept.append(row)
        self.added += 1
        if len(self.kept) > ROW_LIMIT:
            del self.kept[1::2]
            self.apart *= 2


def _by_name(rows):
    curves = {}
    for step, pairs in rows:
        for name, text in pairs:
            value = _number(text)
            if value is not None and (name in curves or len(curves) < NAME_LIMIT):
                curves.setdefault(name, []).append((step, value))
    return curves


def _number(text):
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < 1e30 else None  # also None for NaN


def chart(curves):
    """An SVG of `curves`, {label: [(step, value), …]}, and their legend. All text in it is escaped.

    A curve of many points is drawn through the means of neighbouring ones.
    """
    curves = {label: _thinned(sorted(points)) for label, points in curves.items() if points}
    steps, values = zip(*(point for points in curves.values() for point in points), strict=True)
    low, high = _limits(values)
    first, last = min(steps), max(max(steps), min(steps) + 1)

    def place(step, value):
        x = LEFT + (WIDTH - LEFT - RIGHT) * (step - first) / (last - first)
        y = TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)
        return f"{x:.1f},{y:.1f}"

    lines = []
    for value in _ticks(low, high):
        y = place(first, value).partition(",")[2]
        lines.append(f'<path class="rule" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
        lines.append(f'<text x="{LEFT - 6}" y="{y}" dy=".35em" text-anchor="end">{_short(value)}</text>')
    for step in _ticks(first, last):
        x = place(step, low).partition(",")[0]
        anchor = "end" if float(x) > WIDTH - 30 else "middle"
        lines.append(f'<text x="{x}" y="{HEIGHT - 6}" text-anchor="{anchor}">{_short(step)}</text>')
    legend = []
    for number, (label, points) in enumerate(curves.items()):
        style = f'stroke="{COLOURS[number % len(COLOURS)]}" stroke-dasharray="{DASHES[number % len(DASHES)]}"'
        marks = " ".join(place(*point) for point in points)
        lines.append(f'<polyline {style} points="{marks}"/>')
        if len(points) == 1:
            x, _, y = marks.partition(",")
            lines.append(f'<circle {style} cx="{x}" cy="{y}" r="2.5"/>')
        sample = f'<svg viewBox="0 0 24 8"><path {style} d="M0 4H24"/></svg>'
        legend.append(f"<span>{sample}{escape(label)}</span>")
    shown = ", ".join(curves)
    picture = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(shown)}">{"".join(lines)}</svg>'
    return f'{picture}<div class="legend">{"".join(legend)}</div>'


def _thinned(points):
    """At most POINTS points: the means of as many groups of neighbours."""
    size = math.ceil(len(points) / POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [tuple(sum(column) / len(group) for column in zip(*group, strict=True)) for group in groups]


def _limits(values):
    """The lowest and the highest value of an axis for `values`."""
    low, high = min(values), max(values)
    margin = (high - low) / 20 or abs(high) / 10 or 1
    return low - margin, high + margin


def _ticks(low, high, most=5):
    """Round numbers from `low` to `high`, at most about `most`."""
    rough = max((high - low) / most, 1e-300)  # below, the power of ten would be 0
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def _short(value):
    """A number on an axis, such as 0.5, 20k or 3M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"
