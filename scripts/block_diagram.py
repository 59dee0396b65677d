"""Draws docs/machine.svg: the machine on its buses, in dataflow order. The same bytes on every run.

usage: block_diagram.py [FILE.svg|FILE.png]      (run by `make docs`)
"""

import sys
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

DEFAULT = Path(__file__).resolve().parent.parent / "docs" / "machine.svg"

INK = "#24292f"
WEIGHT = ("#dbe9fb", "#2563ab")  # fill, line
ACTIVATION = ("#fde8cf", "#c4630d")
SUM = ("#dcf1de", "#2b7d3c")
CONTROL = ("#ececf1", "#6b6b7d")
PLAIN = ("#ffffff", "#8a8a99")

LANES = {"lane 0": 75.0, "lane L−1": 101.0}  # left edges
PEAS = {"PEA 0": 60.0, "PEA P−1": 38.0}  # lower edges
LANE_WIDTH, PEA_HEIGHT = 14.0, 17.0
TOP, BUS, UNITS = 152.0, 130.0, 113.0  # lower edges: system, what talks to the bus, load and store units
RIGHT = 185.0  # edge of the outer frame

Point = tuple[float, float]
Colours = tuple[str, str]


class Drawing:
    """Boxes, texts and arrows on one pair of axes, in units of the canvas."""

    def __init__(self, axes: Axes) -> None:
        self._axes = axes

    def box(
        self, x: float, y: float, width: float, height: float, text: str, colours: Colours, *,
        size: float = 15, bold: bool = False, rotate: bool = False,
    ) -> None:  # fmt: skip
        shape = FancyBboxPatch(
            (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.9",
            facecolor=colours[0], edgecolor=colours[1], linewidth=1.5, zorder=3,
        )  # fmt: skip
        self._axes.add_patch(shape)
        self.text(x + width / 2, y + height / 2, text, size=size, bold=bold, angle=90 if rotate else 0)

    def frame(self, x: float, y: float, width: float, height: float, colours: Colours) -> None:
        """A box around other boxes."""
        shape = FancyBboxPatch(
            (x, y), width, height, boxstyle="round,pad=0,rounding_size=1.2",
            facecolor=colours[0], edgecolor=colours[1], linewidth=1.2, zorder=1,
        )  # fmt: skip
        self._axes.add_patch(shape)

    def text(
        self, x: float, y: float, text: str, *, size: float = 15, bold: bool = False, colour: str = INK,
        across: str = "center", angle: float = 0,
    ) -> None:  # fmt: skip
        self._axes.text(
            x, y, text, ha=across, va="center", fontsize=size, color=colour, rotation=angle,
            fontweight="bold" if bold else "normal", linespacing=1.25, zorder=5,
        )  # fmt: skip

    def line(self, points: list[Point], colour: str, *, width: float = 2.2, dashed: bool = False) -> None:
        xs, ys = zip(*points, strict=True)
        style = (0, (4, 2.5)) if dashed else "-"
        self._axes.plot(
            xs, ys, color=colour, linewidth=width, linestyle=style, zorder=2, solid_capstyle="round"
        )

    def arrow(self, *points: Point, colour: str, width: float = 2.2, dashed: bool = False) -> None:
        """A line along ``points`` with its head at the last one."""
        if len(points) > 2:
            self.line(list(points[:-1]), colour, width=width, dashed=dashed)
        head = FancyArrowPatch(
            points[-2], points[-1], arrowstyle="-|>,head_length=0.55,head_width=0.26", mutation_scale=13,
            shrinkA=0, shrinkB=0, color=colour, linewidth=width, linestyle=(0, (4, 2.5)) if dashed else "-",
            joinstyle="miter", capstyle="butt", zorder=4,
        )  # fmt: skip
        self._axes.add_patch(head)

    def dot(self, x: float, y: float, colour: str) -> None:
        self._axes.plot([x], [y], marker="o", markersize=6, color=colour, zorder=4)

    def cells(self, x: float, y: float, side: float, count: int, colours: Colours) -> None:
        """count x count small squares."""
        for i in range(count):
            for j in range(count):
                at = (x + i * side, y + j * side)
                self._axes.add_patch(
                    Rectangle(at, side, side, facecolor=colours[0], edgecolor=colours[1], lw=0.9, zorder=4)
                )


def draw_system(d: Drawing) -> None:
    """What the accelerator is connected to, and the frames around it and its core."""
    d.box(3, TOP, 25, 8, "CPU", PLAIN)
    memory = "memory: descriptors, tile images, parameters, partial sums, results"
    d.box(34, TOP, RIGHT - 35, 8, memory, PLAIN)
    d.frame(1, 33, RIGHT - 1, 110, ("#fbfbfc", "#b9bcc6"))
    d.text(122, 140.4, "accelerator", bold=True)
    d.frame(2.2, 34.2, RIGHT - 3.4, 75.2, ("#f3f4f7", "#b9bcc6"))
    d.text(67, 102, "core", bold=True)


def draw_control(d: Drawing) -> None:
    grey = CONTROL[1]
    d.arrow((9, TOP), (9, BUS + 8), colour=grey)
    d.text(10.2, 146.8, "AXI4-Lite", across="left", colour=grey, size=13.5)
    d.arrow((24.5, BUS + 8), (24.5, TOP), colour=grey, dashed=True)
    d.text(25.7, 146.8, "irq", across="left", colour=grey, size=13.5)
    d.box(4, BUS, 23, 8, "registers,\ncounters", CONTROL)
    d.arrow((9, BUS), (9, UNITS + 9), colour=grey)
    d.arrow((22, UNITS + 9), (22, BUS), colour=grey)
    d.box(4, UNITS, 23, 9, "sequencer:\nqueue of layers", CONTROL)
    d.arrow((15.5, UNITS), (15.5, 106), colour=grey)
    d.box(4, 97, 23, 9, "layer FSM:\nchecks, status", CONTROL)
    d.arrow((15.5, 97), (15.5, 92), colour=grey)
    d.box(4, 82, 23, 10, "tile controller:\ndataflow, slots", CONTROL)
    d.arrow((27, 87), (LANES["lane 0"], 87), colour=grey, dashed=True)
    d.arrow((57.5, 87), (57.5, PEAS["PEA 0"] + 13.5), colour=grey, dashed=True)
    d.dot(57.5, 87, grey)
    d.text(66.5, 89.2, "tiles", colour=grey)
    d.arrow((15.5, 82), (15.5, 36), (166, 36), (166, PEAS["PEA P−1"]), colour=grey, dashed=True)
    d.text(29, 38.2, "output tiles", colour=grey)


def draw_reading(d: Drawing) -> None:
    """The read half of the bus, and the units that use it."""
    grey = CONTROL[1]
    d.arrow((88, BUS + 8), (88, TOP), colour=grey)
    d.arrow((92, TOP), (92, BUS + 8), colour=INK)
    d.text(93.5, 147, "AXI4: AR, R", across="left", size=13.5)
    d.box(34, BUS, 104, 8, "read arbiter", CONTROL)
    for x, width, name, colours in (
        (34, 17, "descriptor\nunit", CONTROL),
        (56, 18, "load unit\nweights", WEIGHT),
        (80, 20, "load unit\nactivations", ACTIVATION),
        (103, 16, "parameter\nunit", SUM),
        (122, 16, "psum\nloader", SUM),
    ):  # fmt: skip
        middle = x + width / 2
        d.box(x, UNITS, width, 9, name, colours)
        d.arrow((middle - 3, UNITS + 9), (middle - 3, BUS), colour=grey)
        d.arrow((middle + 3, BUS), (middle + 3, UNITS + 9), colour=colours[1])
    d.text(77, 126, "bursts up,\nbeats down", size=13, colour=grey)
    d.arrow((34, UNITS + 4.5), (27, UNITS + 4.5), colour=grey)


def draw_activations(d: Drawing) -> None:
    line = ACTIVATION[1]
    left, right = LANES["lane 0"], LANES["lane L−1"] + LANE_WIDTH
    d.arrow((90, UNITS), (90, 105), colour=line)
    d.box(left, 98, right - left, 7, "tile loader", ACTIVATION)
    for name, x in LANES.items():
        middle = x + LANE_WIDTH / 2
        d.arrow((middle, 98), (middle, 92), colour=line)
        d.box(x, 82, LANE_WIDTH, 10, f"AMEM {name.removeprefix('lane ')}\n+ feeder", ACTIVATION)
        # The records go down a column: a bus beside the lanes, a tap into each.
        bus = x - 2.4
        lowest = PEAS["PEA P−1"] + 8.5
        d.line([(x + 3, 82), (x + 3, 79.5), (bus, 79.5), (bus, lowest)], line)
        for y in PEAS.values():
            d.arrow((bus, y + 8.5), (x, y + 8.5), colour=line)
            if y + 8.5 != lowest:
                d.dot(bus, y + 8.5, line)
    d.text((left + right) / 2, 87, "· · ·", size=20, bold=True)


def draw_weights(d: Drawing) -> None:
    line = WEIGHT[1]
    low, high = PEAS["PEA P−1"] + 3.5, PEAS["PEA 0"] + 13.5
    d.arrow((65, UNITS), (65, 106.5), (40.5, 106.5), (40.5, high), colour=line)
    d.box(36, low, 9, high - low, "tile loader", WEIGHT, rotate=True)
    for name, y in PEAS.items():
        d.arrow((45, y + 8.5), (50, y + 8.5), colour=line)
        d.box(50, y + 3.5, 15, 10, f"WMEM {name.removeprefix('PEA ')}\n+ feeder", WEIGHT)
        # The records go along a row: a bus above the lanes, a tap into each.
        bus = y + 14.4
        lanes = [x + LANE_WIDTH / 2 for x in LANES.values()]
        d.line([(65, y + 11.5), (66.8, y + 11.5), (66.8, bus), (lanes[-1], bus)], line)
        for x in lanes:
            d.arrow((x, bus), (x, y + 12), colour=line)
            if x != lanes[-1]:
                d.dot(x, bus, line)
    d.text(57.5, (PEAS["PEA 0"] + PEAS["PEA P−1"] + PEA_HEIGHT) / 2, "· · ·", size=20, bold=True, angle=90)


def draw_peas(d: Drawing) -> None:
    line = SUM[1]
    first = LANES["lane 0"]
    for name, y in PEAS.items():
        d.frame(69, y, 67, PEA_HEIGHT, ("#ffffff", "#b9bcc6"))
        d.text(128, y + 14.8, name, bold=True)
        bus = y + 2.2
        for lane, x in LANES.items():
            d.box(x, y + 5, LANE_WIDTH, 7, lane, PLAIN)
            d.line([(x + LANE_WIDTH / 2, y + 5), (x + LANE_WIDTH / 2, bus)], line)
            if x != first:
                d.dot(x + LANE_WIDTH / 2, bus, line)
        d.text((first + LANE_WIDTH + LANES["lane L−1"] - 2.4) / 2, y + 8.5, "· · ·", size=20, bold=True)
        d.arrow((first + LANE_WIDTH / 2, bus), (121.5, bus), colour=line)
        d.box(121.5, y + 1, 13, 11.4, "compen-\nsation\nsubtract", SUM, size=13.5)
        d.arrow((134.5, y + 6.7), (141, y + 6.7), colour=line)
        d.box(141, y + 1.7, 12, 10, f"OMEM\n{name.removeprefix('PEA ')}", SUM)
        d.line([(153, y + 6.7), (155.2, y + 6.7), (155.2, 61)], line)
    middle = (PEAS["PEA 0"] + PEAS["PEA P−1"] + PEA_HEIGHT) / 2
    for x in (95.0, 147.0):
        d.text(x, middle, "· · ·", size=20, bold=True, angle=90)


def draw_results(d: Drawing) -> None:
    """The result unit with the way of partial sums, and the write half of the bus."""
    line = SUM[1]
    d.frame(157.2, PEAS["PEA P−1"], 20.3, 43, ("#ffffff", "#b9bcc6"))
    d.text(167.3, 40.2, "result unit", bold=True)
    d.box(159, 42.6, 16.5, 9.6, "OMEM: psums,\n4 × INT8", SUM, size=13.5)
    d.box(159, 56.5, 16.5, 9, "APSQ engine", SUM, size=14)
    d.box(159, 70, 16.5, 6.5, "+ folded bias", SUM, size=13.5)
    d.arrow((155.2, 61), (159, 61), colour=line)
    d.arrow((163.5, 56.5), (163.5, 52.2), colour=line)
    d.arrow((171, 52.2), (171, 56.5), colour=line)
    d.arrow((167.3, 65.5), (167.3, 70), colour=line)

    # Parameters.
    d.arrow((113, UNITS), (113, 109), (127, 109), (127, 92), colour=line)
    d.box(119, 83, 17, 9, "bias buffer,\nexponents", SUM, size=13.5)
    d.arrow((136, 87.5), (162.5, 87.5), (162.5, 76.5), colour=line)
    d.arrow((108, UNITS), (108, 111), (178, 111), (178, UNITS), colour=line)
    d.text(141, 107.3, "scales, table", size=13)

    # Partial sums that come back from memory.
    d.arrow((133, UNITS), (133, 97), (180.5, 97), (180.5, 47.4), (175.5, 47.4), colour=line)

    # The way out.
    d.arrow((171, 76.5), (171, UNITS), colour=line)
    d.arrow((171, 103), (149, 103), (149, UNITS), colour=line)
    d.dot(171, 103, line)
    d.box(141.5, UNITS, 17, 9, "store unit:\n32 bits", SUM, size=14)
    d.box(163, UNITS, 20.5, 9, "post-\nprocessing", SUM, size=14)
    for x in (150, 173.2):
        d.arrow((x, UNITS + 9), (x, BUS), colour=line)
    d.box(141.5, BUS, 42, 8, "write arbiter, burst writer", SUM)
    d.arrow((163.5, BUS + 8), (163.5, TOP), colour=line)
    d.text(162, 147, "AXI4: AW, W, B", across="right", size=13.5)


def draw_bank(d: Drawing) -> None:
    """The inset on the left: from a tile image to records."""
    d.frame(1, 1, 82, 29, ("#ffffff", "#b9bcc6"))
    d.text(3.5, 27.3, "A bank of WMEM or AMEM with its feeder", bold=True, across="left")
    grey = CONTROL[1]
    d.text(13.5, 22.6, "RAM: tile images", size=13.5)
    for y, text in ((15.6, "HO entries"), (10.2, "LO slices"), (4.8, "count")):
        d.box(4, y, 19, 4.8, text, PLAIN, size=13.5)
    d.box(29.5, 4.8, 8, 15.6, "fetch", CONTROL, rotate=True)
    d.arrow((23, 12.6), (29.5, 12.6), colour=grey)
    d.box(43.5, 14, 15, 7.6, "HO FIFO,\nRLE decoder", PLAIN, size=13.5)
    d.box(43.5, 4.8, 15, 6, "LO FIFO", PLAIN, size=13.5)
    d.arrow((37.5, 17.8), (43.5, 17.8), colour=grey)
    d.arrow((37.5, 7.8), (43.5, 7.8), colour=grey)
    d.box(64.5, 4.8, 7, 16, "record", CONTROL, rotate=True)
    d.arrow((58.5, 17.8), (64.5, 17.8), colour=grey)
    d.arrow((58.5, 7.8), (64.5, 7.8), colour=grey)
    d.arrow((71.5, 12.8), (82.2, 12.8), colour=grey)
    d.text(77.6, 18, "all slices\nof one k", size=13)


def draw_lane(d: Drawing) -> None:
    """The inset on the right: what a lane is made of."""
    d.frame(87, 1, RIGHT - 87, 29, ("#ffffff", "#b9bcc6"))
    d.text(89.5, 27.3, "A lane", bold=True, across="left")
    grey = CONTROL[1]
    d.arrow((89, 18.8), (96, 18.8), colour=WEIGHT[1])
    d.arrow((89, 7.4), (96, 7.4), colour=ACTIVATION[1])
    d.box(96, 15.8, 12, 6, "FIFO", WEIGHT)
    d.box(96, 4.4, 12, 6, "FIFO", ACTIVATION)
    d.arrow((108, 18.8), (114, 18.8), colour=WEIGHT[1])
    d.arrow((108, 7.4), (114, 7.4), colour=ACTIVATION[1])
    d.box(114, 4.4, 12, 17.4, "step\nsequencer", CONTROL, rotate=True)
    d.arrow((126, 18.8), (133, 18.8), colour=grey)
    d.arrow((126, 7.4), (133, 7.4), colour=grey)
    d.box(133, 13.6, 27, 13, "", PLAIN)
    d.cells(135, 15.6, 2.2, 4, ("#f3f0fa", "#7a5fb0"))
    d.text(152.3, 20, "operator:\n4 × 4\nmultiply-add", size=13)
    d.box(133, 4.4, 27, 6, "kept-weight sum", PLAIN, size=13.5)
    d.arrow((160, 20), (184.2, 20), colour=SUM[1])
    d.arrow((160, 7.4), (184.2, 7.4), colour=SUM[1])
    d.text(172.5, 13.7, "row by row,\nat the end of\na K-chunk", size=13)


def draw_engine(d: Drawing) -> None:
    """The inset below on the left: how a tile's sums meet what is stored of it."""
    line = SUM[1]
    d.frame(1, -25, 82, 24, ("#ffffff", "#b9bcc6"))
    d.text(3.5, -3.6, "APSQ engine, a group's step", bold=True, across="left")
    low, high, middle = -18.0, -9.5, -13.75
    for x, width, text, colours in (
        (4, 11, "4 banks\nINT8", SUM),
        (18, 13, "shift back,\nadd up", PLAIN),
        (37.5, 7, "+", PLAIN),
        (48, 15, "round, shift,\nclip: INT8", PLAIN),
        (66.5, 10.5, "shift\nback, +", PLAIN),
    ):  # fmt: skip
        d.box(x, low, width, high - low, text, colours, size=13.5)
    for start, end in ((15, 18), (31, 37.5), (44.5, 48), (63, 66.5), (77, 82.2)):
        d.arrow((start, middle), (end, middle), colour=line)
    d.arrow((24.5, high), (24.5, -6.6), (71.7, -6.6), (71.7, high), colour=line, dashed=True)
    d.text(60, -5, "steps after the head", size=12.5)
    d.text(34.1, -12, "head", size=12)
    d.arrow((41, -21), (41, low), colour=line)
    d.text(41.8, -20.4, "sums", across="left", size=13)
    d.arrow((55.5, low), (55.5, -23), (9.5, -23), (9.5, low), colour=line)


def draw_post_processing(d: Drawing) -> None:
    """The inset below on the right: from 32-bit results to the next layer's tile images."""
    line = SUM[1]
    d.frame(87, -25, RIGHT - 87, 24, ("#ffffff", "#b9bcc6"))
    d.text(89.5, -3.6, "Post-processing", bold=True, across="left")
    low, high, middle = -18.0, -9.5, -13.75
    boxes = (
        (93, 15.5, "multiply,\nshift, round,\nclip, ReLU"),
        (112, 12, "table\n256 × 8"),
        (127.5, 12, "slice:\nlo_bits, r"),
        (143, 16, "image ways:\nrun-length\ncode"),
        (162.5, 15.5, "regions:\nimages and\nlengths"),
    )
    for x, width, text in boxes:
        d.box(x, low, width, high - low, text, PLAIN, size=13)
    ends = [89.0, *(x + width for x, width, _ in boxes)]
    for start, (x, _, _) in zip(ends, boxes, strict=False):
        d.arrow((start, middle), (x, middle), colour=line)
    d.arrow((ends[-1], middle), (184.2, middle), colour=line)
    d.text(136, -21.8, "a row of a tile is a position along the next layer's K", size=13)


def draw(path: Path) -> None:
    # Text as paths: the picture looks the same everywhere. A fixed salt and no date: the same bytes.
    settings = {"svg.fonttype": "path", "svg.hashsalt": "sliceforge", "font.family": "DejaVu Sans"}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(18.6, 18.8), facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, RIGHT + 1)
        axes.set_ylim(-27, 161)
        axes.set_axis_off()
        drawing = Drawing(axes)
        for part in (
            draw_system, draw_control, draw_reading, draw_activations, draw_weights, draw_peas, draw_results,
            draw_bank, draw_lane, draw_engine, draw_post_processing,
        ):  # fmt: skip
            part(drawing)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".svg":
            figure.savefig(path, metadata={"Date": None, "Creator": None})
        else:
            figure.savefig(path, dpi=72, metadata={"Software": None})


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    draw(path)
    print(path)


if __name__ == "__main__":
    main()
