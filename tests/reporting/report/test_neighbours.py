"""Nearest labelled images: a copy is found."""

from __future__ import annotations

from ddrep.reporting.report.neighbours import neighbours
from ddrep.reporting.report.results import Results
from tests.reporting.report.test_walls import tiles


def test_a_copy_is_at_no_distance_and_beside_itself(small: Results) -> None:
    first, second = neighbours(small)
    assert first.distances[0][0] < 1e-3 < first.unseen[0] and first.copies == 1 and second.copies == 0
    row = tiles(first.sheet)[: first.sheet.columns]
    assert (row[0] == row[1]).all() and not any((row[0] == other).all() for other in row[2:])
    assert all(row == sorted(row) for row in first.distances + second.distances)
    assert first.sheet.count == len(first.distances) * (len(first.distances[0]) + 2)


def test_nothing_where_something_is_missing(small: Results, tmp_path) -> None:
    assert neighbours(Results(small.experiment, tmp_path)) == []
