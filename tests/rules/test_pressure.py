"""What the bench of pressure makes of what it reads."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from bench.pressure_bench import Quantiles, Sample, plot


def counted(counts: dict[str, int]) -> str:
    """A histogram as /metrics has it, of {bound: observations up to it}."""
    lines = [
        f'gpu_tokens_delay_seconds_bucket{{le="{bound}"}} {count}.0'
        for bound, count in counts.items()
    ]
    return "\n".join(["# HELP gpu_tokens_delay_seconds Delay.", *lines, "gpu_tokens_other 5", ""])


def test_a_percentile_is_that_of_what_came_since_the_last_look() -> None:
    quantiles = Quantiles("delay_seconds")
    first = counted({"0.5": 100, "1.0": 100, "+Inf": 100})
    assert quantiles.p99(first) == 0.5
    assert quantiles.p99(first) is None, "nothing came"
    assert quantiles.p99(counted({"0.5": 100, "1.0": 199, "+Inf": 200})) == 1.0
    assert quantiles.p99("") is None


def test_the_plot_has_a_curve_for_each_figure_and_a_line_for_each_stage() -> None:
    samples = [
        Sample(2.0, 100, 90, 0.5, None, 0.0, 100.0),
        Sample(4.0, 300, 200, None, 15.0, 2.0, 150.0),
        Sample(6.0, 400, 400, float("inf"), 15.0, 0.0, 120.0),
    ]
    drawn = ElementTree.fromstring(plot(samples, [10.0, 20.0], 3.0))
    namespace = "{http://www.w3.org/2000/svg}"
    curves = [line.attrib["points"].split() for line in drawn.iter(f"{namespace}polyline")]
    assert [len(points) for points in curves] == [3, 1, 2, 3, 3], "what is not known is left out"
    waiting = [float(re.split(",", point)[1]) for point in curves[0]]
    assert waiting[1] < waiting[0] < waiting[2], "100 wait, then 10, then none; up is less"
    texts = [text.text for text in drawn.iter(f"{namespace}text")]
    assert {"10 events/s", "20 events/s", "resident memory (MB)", "150"} <= set(texts)
