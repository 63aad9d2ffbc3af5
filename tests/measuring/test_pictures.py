"""The page and its pictures, and what a long run is judged by."""

from xml.etree import ElementTree

import pytest
from bench.page import BEGIN, END, written
from bench.plot import Bar, Line, bars, lines
from bench.soak_report import slope

SVG = "{http://www.w3.org/2000/svg}"


def test_a_new_page_says_that_its_numbers_are_of_one_machine_and_one_day() -> None:
    page = written(None, "| 1 |\n")
    assert "one machine, on one day" in page
    assert page.endswith(f"{BEGIN}\n| 1 |\n{END}\n")


def test_what_stands_around_the_block_stays() -> None:
    page = f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n"
    assert written(page, "new\n") == f"before\n\n{BEGIN}\nnew\n{END}\n\nafter\n"


def test_a_page_without_a_block_gets_one_at_its_end() -> None:
    assert written("mine\n", "new\n") == f"mine\n\n{BEGIN}\nnew\n{END}\n"


def test_a_bar_is_as_long_as_its_share_of_the_ceiling() -> None:
    drawn = ElementTree.fromstring(bars("<rates>", [Bar("a & b", 25, 100, "25 of 100")]))
    ceiling, ours = (float(each.attrib["width"]) for each in drawn.iter(f"{SVG}rect"))
    assert ours / ceiling == pytest.approx(0.25, abs=0.001)
    assert [each.text for each in drawn.iter(f"{SVG}text")] == ["<rates>", "a & b", "25 of 100"]


def test_a_bar_above_its_ceiling_stays_in_the_picture() -> None:
    drawn = ElementTree.fromstring(bars("rates", [Bar("a", 200, 100, "")]))
    ceiling, ours = (float(each.attrib["width"]) for each in drawn.iter(f"{SVG}rect"))
    assert ours == pytest.approx(2 * ceiling, abs=0.2)
    assert ours < float(drawn.attrib["width"])


def test_lines_begin_at_nought_and_end_at_the_last_minute() -> None:
    drawn = ElementTree.fromstring(lines("run", [Line("p99", [(1, 10), (2, 20), (4, 5)], "ms")]))
    (line,) = drawn.iter(f"{SVG}polyline")
    places = [tuple(map(float, each.split(","))) for each in line.attrib["points"].split()]
    (x1, y1), (x2, y2), (x4, y4) = places
    assert x4 - x2 == pytest.approx(2 * (x2 - x1), abs=0.2)
    assert y2 < y1 < y4  # downwards on the screen


def test_lines_of_nothing_are_a_picture_too() -> None:
    ElementTree.fromstring(lines("run", [Line("p99", [], "ms")]))


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(0, 1), (1, 3), (2, 5)], 2),
        ([(0, 5), (1, 5), (2, 5)], 0),
        ([(0, 0), (1, 1), (2, 0), (3, 1)], 0.2),
        ([(1, 7)], 0),  # one point has no direction
        ([], 0),
    ],
)
def test_the_slope_is_that_of_the_nearest_line(points: list[tuple[float, float]], expected: float) -> None:
    assert slope(points) == pytest.approx(expected)
