"""Tables of measurements in pages."""

from __future__ import annotations

import pytest

from docs.results_tables import RESULTS, ResultsTableError, with_tables


def test_a_table_is_what_the_results_say_and_names_its_file() -> None:
    page = with_tables('Before\n\n{{ table "faults.md" }}\n\nAfter\n', measurements="../m")
    first = next(line for line in (RESULTS / "faults.md").read_text().splitlines() if line.startswith("|"))
    assert first in page
    assert "*From [faults.md](../m/faults.md).*" in page
    assert page.startswith("Before\n\n|")
    assert page.endswith("\n\nAfter\n")


def test_rows_and_columns_are_chosen() -> None:
    page = with_tables('{{ table "faults.md" rows="kill" columns="fault; lost" }}', measurements="m")
    assert page.splitlines()[0] == "| fault | lost |"
    assert "| kill -9 | 0 |" in page
    assert "bombs" not in page


def test_the_table_below_a_heading_is_taken() -> None:
    page = with_tables('{{ table "inversion.md" heading="Edits" }}', measurements="m")
    assert "sharpness" in page.splitlines()[0]


@pytest.mark.parametrize(
    ("directive", "complaint"),
    [
        ('{{ table "soak.md" heading="Nowhere" }}', "no heading 'Nowhere'"),
        ('{{ table "soak.md" rows="nothing like it" }}', "no row that matches"),
        ('{{ table "soak.md" columns="no such" }}', "no column 'no such'"),
        ('{{ table "soak.md" colums="at end" }}', "unknown options: colums"),
        ("{{ table soak.md }}", "not understood"),
    ],
)
def test_what_is_not_there_is_named(directive: str, complaint: str) -> None:
    with pytest.raises(ResultsTableError, match=complaint):
        with_tables(directive, measurements="m")
