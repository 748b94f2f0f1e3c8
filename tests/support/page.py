"""Reads a report's page: its table, and its plots back into numbers.

A curve's points are read from where they stand, by the axes' own ticks."""

import math
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br", "link", "img", "input", "hr"}


@dataclass
class Node:
    tag: str
    attributes: dict
    children: list = field(default_factory=list)  # nodes and texts

    def find(self, tag=None, **attributes):
        """All nodes below with this tag and these attributes (class: one of its words)."""
        found = []
        for child in self.children:
            if isinstance(child, Node):
                if (tag is None or child.tag == tag) and all(
                    v in (child.attributes.get(k) or "").split() if k == "class"
                    else child.attributes.get(k) == v
                    for k, v in attributes.items()
                ):
                    found.append(child)
                found += child.find(tag, **attributes)
        return found

    def text(self):
        return "".join(c if isinstance(c, str) else c.text() for c in self.children)


class TreeBuilder(HTMLParser):
    """Every element is closed in order, or this fails."""

    def __init__(self):
        super().__init__()
        self.root = Node("", {})
        self.open = [self.root]

    def handle_starttag(self, tag, attributes):
        node = Node(tag, dict(attributes))
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag, attributes):
        self.open[-1].children.append(Node(tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].children.append(data)


def parse(text):
    builder = TreeBuilder()
    builder.feed(text)
    builder.close()
    assert len(builder.open) == 1, [n.tag for n in builder.open]
    return builder.root


def number(text):
    return float(text.replace(",", ""))


@dataclass
class Axis:
    """Values from places, and how far the rounding of the places can put them off."""

    ticks: list  # (place, value)
    logarithmic: bool

    def value(self, place):
        (p0, v0), (p1, v1) = self.ticks[0], self.ticks[-1]
        if self.logarithmic:
            v0, v1 = math.log(v0), math.log(v1)
        value = v0 + (place - p0) / (p1 - p0) * (v1 - v0)
        return math.exp(value) if self.logarithmic else value

    def tolerance(self, place):
        return abs(self.value(place + 0.02) - self.value(place - 0.02))


def axis(plot, name):
    (group,) = plot.find("g", **{"class": name})
    ticks = []
    for text in group.find("text"):
        if "class" not in text.attributes:
            ticks.append((float(text.attributes[name]), number(text.text())))
    steps = [b[1] - a[1] for a, b in zip(ticks, ticks[1:])]
    places = [abs(b[0] - a[0]) for a, b in zip(ticks, ticks[1:])]
    # Equal steps at unequal places, or unequal steps, are a logarithm's.
    even = max(steps) - min(steps) < 1e-9 * max(steps) and max(places) - min(places) < 0.05
    return Axis(ticks, not even)


def marked_points(curve):
    return [tuple(float(v) for v in re.findall(r"[-\d.]+", m.attributes["transform"]))
            for m in curve.find("path", **{"class": "marker"})]


def line_points(curve):
    """The corners of a line of M, L, H and V; H and V make one point together."""
    (line,) = curve.find("path", **{"class": "line"})
    points, x = [], 0.0
    for command, numbers in re.findall(r"([MLHV])([-\d. ]+)", line.attributes["d"]):
        values = [float(v) for v in numbers.split()]
        if command in "ML":
            points.append(tuple(values))
        elif command == "H":
            x = values[0]
        else:
            points.append((x, values[0]))
    return points


def curves(root, plot_id):
    """{label: [((x, y), (tolerance of x, of y))]} of a plot's curves."""
    (plot,) = root.find("svg", id=plot_id)
    x, y = axis(plot, "x"), axis(plot, "y")
    found = {}
    for curve in plot.find("g", **{"class": "curve"}):
        places = line_points(curve)
        marks = marked_points(curve)
        assert marks in ([], places), "markers stand on the line"
        found[curve.attributes["data-curve"]] = [
            ((x.value(px), y.value(py)), (x.tolerance(px), y.tolerance(py))) for px, py in places
        ]
    return found


def table(root):
    """The rows of the table of runs: {first cell: [other cells]}."""
    (runs,) = root.find("table", id="runs")
    rows = [[c.text() for c in r.children if isinstance(c, Node)] for r in runs.find("tr")[1:]]
    return {row[0]: row[1:] for row in rows}
