"""A table stays a table, whatever its cells hold."""

from medvlt_lib.core.tables import markdown_table, percent


def test_a_markdown_table_with_bars_and_line_ends_in_its_cells():
    table = markdown_table([("set", "rows"), ("a|b", 3), ("two\nlines", None)])
    assert table == "| set | rows |\n|---|---|\n| a\\|b | 3 |\n| two lines | None |"


def test_percentages():
    assert (percent(0.4171), percent(1), percent(0.006, 0), percent(-0.0125, 2)) == ("41.7", "100.0", "1", "-1.25")
