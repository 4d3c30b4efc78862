"""Tables: their two renderers, any JSON as tables, names of scores."""

from anigan_jax.metrics.feature_scores import label
from anigan_jax.report import tables as report_tables
from anigan_jax.report.table import Table, as_html, as_text


def test_any_json_becomes_tables():
    share = {"value": 0.5, "low": 0.4, "high": 0.6}
    value = {"a": 1, "b": {"x": share, "y": None}, "c": {"d": {"e": {"f": [1, 2]}}}}
    tables = report_tables.of_json("t", value)
    assert [(t.title, t.columns, t.rows) for t in tables] == [
        ("t", (), (("a", "1"),)),
        ("t", ("", "x", "y"), (("b", "50.0 % [40.0, 60.0]", "-"),)),
        ("t: c: d", ("", "f"), (("e", "1, 2"),)),
    ]
    (rows,) = report_tables.of_json("t", [{"u": 1}, {"u": 2.5}])
    assert rows.rows == (("0", "1"), ("1", "2.5"))


def test_one_table_is_text_and_a_page():
    rows = [["a\n<b>", 12345, None], ["longer", 0.123456, {"value": 0.5}]]
    one = Table("Title", ["name", "n", "x"], rows, ["A note."])
    more = Table("More", rows=[["key", [1, 2]]], folded=True)
    assert as_text([one, more]) == (
        "Title\n\n"
        "| name   |      n |      x |\n"
        "|--------|-------:|-------:|\n"
        "| a\\n<b> | 12,345 |      - |\n"
        "| longer | 0.1235 | 50.0 % |\n\n"
        "A note."
    )
    assert as_text([more], folded=True) == "More\n\n- key  1, 2"
    page = as_html(one)
    assert "a\\n&lt;b&gt;" in page and "<b>" not in page and "A note." in page
    assert as_html(more).strip().startswith("<details>")


def test_names_of_scores():
    for name, title, better in (
        ("kid", "KID", "lower"),
        ("ab/kid-vgg16", "KID (vgg16), A to B", "lower"),
        ("density-random", "Density (random)", "near 1"),
        ("cycle/a", "Cycle: a", "lower"),
        ("made/up-x", "made/up-x", ""),
    ):
        assert label(name)[:2] == (title, better)
