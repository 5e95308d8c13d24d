"""A whole email from MJML: compiled once, Liquid in every place of it, CSS inlined, errors by line."""

import re
import time
from pathlib import Path

import pytest

from penstock.adapters.content.html_to_text import html_to_text
from penstock.adapters.content.inline import inline_css
from penstock.adapters.content.liquid import LiquidRenderer
from penstock.adapters.content.mjml import ELEMENTS, broken_at, compile_mjml, misspelled
from penstock.core.errors import DefinitionError
from penstock.ports.renderer import Html

SPRING = Path(__file__).parent / "spring.mjml.liquid"
DATA = {
    "as_of_ms": 1_700_000_000_000,
    "subject": "Spring & more",
    "shopper": {"name": "Ada <3", "tier": "gold"},
    "items": [
        {"name": f"Tea <{n}>", "price": [1_000 + n, "GBP"], "stock": n, "sale": n == 2, "seen": n == 1,
         "url": f"https://shop.example/p?id={n}&a=1", "image": f"https://shop.example/{n}.png"}
        for n in range(1, 7)
    ],
    "orders": [
        {"what": f"Order {n}", "at": 1_700_000_000_000 - n * 86_400_000, "total": {"GBP": 4_200 + n}}
        for n in range(3)
    ],
    "slots": {"hero": {"html": Html('<p id="hero">Spring is here</p>')}},
    "shop": {"name": "Shop", "address": "1 High Street\nLondon"},
    "unsubscribe_url": "https://shop.example/u/abc",
}  # fmt: skip


def prepare(name, source):
    return inline_css(name, compile_mjml(name, source))


def loaded(root, **files):
    for name, source in files.items():
        (root / f"{name}.mjml.liquid").write_text(source)
    return LiquidRenderer(root, prepare)


@pytest.fixture
def spring(tmp_path):
    return loaded(tmp_path, spring=SPRING.read_text())


def body(text):
    return f"<mjml><mj-body><mj-section><mj-column>{text}</mj-column></mj-section></mj-body></mjml>"


def test_a_whole_email_is_rendered(spring):
    html = spring.render("spring", DATA)
    assert "{%" not in html
    assert "{{" not in html
    assert "lqz" not in html
    assert "<title>Spring &amp; more</title>" in html
    assert "For Ada &lt;3: more</div>" in html
    assert "Thank you for being with us." in html
    assert 6 == html.count('width="200"')
    assert 'href="https://shop.example/p?id=1&amp;a=1&amp;ref=mail"' in html
    assert '<span class="price" style="color: #c00;">£10.01</span>' in html
    assert 4 == html.count("<b>Only ")
    assert 1 == html.count("See it again")
    assert 1 == html.count("<i>Sale</i>")
    assert 1 == len(re.findall(r'<tr\s+class="last"\s*>', html))
    assert "12 November" in html
    assert '<p id="hero">Spring is here</p>' in html
    assert "© 2023" in html or "&copy; 2023" in html
    assert '<a href="https://shop.example/u/abc">Unsubscribe</a>' in html


def test_no_open_asks_a_third_party(spring):
    html = spring.render("spring", DATA)
    hosts = set(re.findall(r"https?://([^/\"' )]+)", html))
    assert {"shop.example"} == hosts - {"www.w3.org"}


def test_media_queries_stay_in_a_sheet(spring):
    html = spring.render("spring", DATA)
    assert "@media (max-width:480px) { .price { font-size: 20px } }" in html


def test_tables_keep_what_loops_between_their_rows(spring):
    html = spring.render("spring", DATA)
    rows = re.findall(r"<tr[^>]*>\s*<td[^>]*>(Order \d)</td>", html)
    assert ["Order 0", "Order 1", "Order 2"] == rows


def test_the_text_part_reads_well(spring):
    text = html_to_text(spring.render("spring", DATA))
    assert "Hello Ada <3" in text
    assert "What When How much" in text
    assert "Order 0 14 November £42.00" in text
    assert "Unsubscribe [13]" in text
    assert text.endswith("[13] https://shop.example/u/abc\n")
    assert "more" not in text.split("Hello")[0]


def test_nothing_is_compiled_for_each_recipient(tmp_path):
    called = []

    def counted(name, source):
        called.append(name)
        return prepare(name, source)

    (tmp_path / "spring.mjml.liquid").write_text(SPRING.read_text())
    renderer = LiquidRenderer(tmp_path, counted)
    for _ in range(3):
        renderer.render("spring", DATA)
    assert ["spring.mjml.liquid"] == called


def test_a_runtime_error_names_the_line_of_the_mjml(spring, tmp_path):
    line = 1 + next(
        number
        for number, text in enumerate(SPRING.read_text().splitlines())
        if "order.total" in text
    )
    with pytest.raises(DefinitionError) as caught:
        spring.render("spring", {**DATA, "orders": [{"total": "canary"}]})
    # The loop that holds it: python-liquid tells the block of a failing filter.
    assert ("E140", True) == (caught.value.code, "canary" not in str(caught.value))
    found = int(caught.value.where.rsplit(":", 1)[1])
    assert line - 5 <= found <= line


@pytest.mark.parametrize(
    "source",
    [
        "<mjml><mj-body>",
        "not mjml",
        body("<mj-include path='./x.mjml'/>"),
        "<mjml><mj-body><mj-section></mj-body></mjml>",
    ],
)
def test_what_is_not_mjml_is_refused(tmp_path, source):
    with pytest.raises(DefinitionError) as caught:
        loaded(tmp_path, bad=source)
    assert ("E144", "bad.mjml.liquid") == (caught.value.code, caught.value.where)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("<mjml>\n<mj-body>\n<mj-section>\n</mj-body></mjml>", 4),
        ("<mjml>\n<mj-body>\n</mj-body>", 1),
        ("<mjml>\n<mj-body>\n<mj-section\n</mjml>", 3),
        ("<mjml>\n<!-- <mj-body> -->\n<mj-body a='>'><mj-text/></mj-body>\n</mj-raw></mjml>", 4),
        ("hello", 1),
    ],
)
def test_the_line_is_that_of_the_tag_that_opens_or_closes_wrongly(source, line):
    assert line == broken_at(source)


def test_every_attribute_is_a_whole_name():
    names = {name for attributes in ELEMENTS.values() for name in attributes}
    assert [] == [name for name in names if name.startswith("-") or name.endswith("-")]
    assert [] == list(
        misspelled('<mj-text font-style="italic"><mj-button line-height="2"/></mj-text>')
    )


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("<mj-txt>x</mj-txt>", [(1, "element `mj-txt`", "mj-text")]),
        ("<mj-text>\n<mj-zzzzzz/></mj-text>", [(2, "element `mj-zzzzzz`", "")]),
        ('<mj-text\n  aling="left">x</mj-text>', [(2, "attribute `aling` of `mj-text`", "align")]),
        ("<mj-image src='a>b' heigth=1 />", [(1, "attribute `heigth` of `mj-image`", "height")]),
        ('<mj-button href="x" css-class="y" mj-class="z">x</mj-button>', []),
        ('<mj-attributes><mj-all anything="x"/><mj-class name="a" color="b"/></mj-attributes>', []),
        ("<!-- <mj-txt> \n --><mj-txt/>", [(2, "element `mj-txt`", "mj-text")]),
        ('<mj-wrapper gap="1px" background-color="red" full-width="x"></mj-wrapper>', []),
    ],
)
def test_what_mjml_would_show_nothing_of_is_found(source, found):
    assert found == [tuple(one) for one in misspelled(source)]


def test_a_tag_that_mjml_would_lose_is_refused_by_line(tmp_path):
    with pytest.raises(DefinitionError) as caught:
        loaded(tmp_path, bad=body("\n\n<mj-image width='{{ w }}px' src='https://a/i.png'/>"))
    assert ("E143", f"{tmp_path.name}/bad.mjml.liquid:3") == (caught.value.code, caught.value.where)


def test_a_syntax_error_in_mjml_names_the_line_of_the_source(tmp_path):
    with pytest.raises(DefinitionError) as caught:
        loaded(tmp_path, bad=body("\n<mj-text>\n{% if %}</mj-text>"))
    assert ("E141", f"{tmp_path.name}/bad.mjml.liquid:3") == (caught.value.code, caught.value.where)


def test_html_documents_are_inlined_and_fragments_are_left(tmp_path):
    style = "<style>p { color: red }</style>"
    (tmp_path / "whole.html.liquid").write_text(
        f"<html><head>{style}</head><body>{{% for i in (1..2) %}}<p>{{{{ i }}}}</p>{{% endfor %}}</body></html>"
    )
    (tmp_path / "part.liquid").write_text("<p>{{ x }}</p>")
    renderer = LiquidRenderer(tmp_path, prepare)
    assert '<p style="color: red;">1</p><p style="color: red;">2</p>' in renderer.render(
        "whole", {}
    )
    assert "<p>1</p>" == renderer.render("part", {"x": 1})


def test_a_style_sheet_elsewhere_is_not_fetched():
    html = '<html><head><link rel="stylesheet" href="http://127.0.0.1:9/x.css"></head><body>x</body></html>'
    assert "x" in inline_css("a.html", html)


@pytest.mark.bench
def test_renders_per_second(spring):
    html = spring.render("spring", DATA)
    started, count = time.thread_time_ns(), 0
    while time.thread_time_ns() - started < 500_000_000:
        for _ in range(20):
            spring.render("spring", DATA)
        count += 20
    rate = count * 1_000_000_000 / (time.thread_time_ns() - started)
    lines = len(SPRING.read_text().splitlines())
    print(f"{rate:,.0f} renders/s of {lines} lines of MJML, {len(html):,} characters each")
    assert count
