"""Masking: Liquid out, the same Liquid back in, with a mark that fits its place."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.adapters.content.liquid.masking import mask, unmask

PIECES = st.sampled_from(
    ["{{ a }}", "{% if a < 5 %}", "{%- endif -%}", "{% raw %}{{ x }}<b>{% endraw %}", "lqz0e", "<p>", "</p>",
     "{% comment %}<a{% endcomment %}", '<a href="', '">', "text\n", "<!--", "-->", "<style>", "</style>",
     "'", "<b ", "/>", "{{", "%}", "é", "<title>", "</title>", "LQZ1e"]
)  # fmt: skip


@example(pieces=["<!--", "{{ a }}", "-->"])
@given(pieces=st.lists(PIECES, max_size=20))
def test_unmask_undoes_mask(pieces):
    source = "".join(pieces)
    masked = mask(source)
    back = unmask(masked.text, masked)
    assert source.split() == back.text.split() or '=""' in masked.text
    assert "".join(source.split()) == "".join(back.text.split())
    assert () == back.lost
    assert not any(tag in masked.text for tag in masked.tags)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<p>{{ a }}</p>", "<p>lqz0e</p>"),
        ("<table>{% for a in b %}<tr>", "<table><!--lqz0c--><tr>"),
        (
            '<a href="{{ a }}" {% if x %}b="c"{% endif %} d="{{ e }}">',
            '<a href="lqz0e"  lqz1a=""  d="lqz2e">',
        ),
        (
            '<tr {% if a %}b="{{ c }}"{% else %}{{ d }}{% endif %}>{% if e %}',
            '<tr  lqz0a="" ><!--lqz1c-->',
        ),
        ("<a{% if x %} b{% endif %}>", '<a lqz0a="" >'),
        (
            "<a href={{ x }}><a href= {{ x }}><a b=/x/{{ y }}>",
            "<a href=lqz0e><a href= lqz1e><a b=/x/lqz2e>",
        ),
        (
            "<a href={% if x %}y{% endif %} c {% if z %}{{ y }}>",
            '<a href=lqz0eylqz1e c  lqz2a="" >',
        ),
        (
            "<style>{% if a %}b{% endif %}</style>{% if c %}",
            "<style>lqz0eblqz1e</style><!--lqz2c-->",
        ),
        ("<mj-preview>{% if a %}</mj-preview>", "<mj-preview>lqz0e</mj-preview>"),
        ("<!-- {% if a %} -->{% if a %}", "<!-- lqz0e --><!--lqz1c-->"),
        ("<!--{{ a }}-->", "<!--lqz0e-->"),
        ("<mj-style/>{% if a %}", "<mj-style/><!--lqz0c-->"),
        ("<a title='>'>{% if a %}", "<a title='>'><!--lqz0c-->"),
        (
            "{% raw %}{{ x }}{% endraw %}{% comment %}{{ y }}{% endcomment %}",
            "<!--lqz0c--><!--lqz1c-->",
        ),
        ("lqz {{ a }}", "lqz lqzz0e"),
    ],
)
def test_a_mark_fits_its_place(source, text):
    assert text == mask(source).text


def test_what_the_tools_lose_is_told_by_line():
    masked = mask("<p>\n{{ a }}\n\n{{ b }}</p>")
    assert (4,) == unmask(masked.text.replace("lqz1e", ""), masked).lost


def test_what_the_tools_move_is_told_by_line():
    masked = mask("<p>\n{% if a %}<b>\n{% endif %}</p>")
    assert (2,) == unmask("<p><!--lqz1c--><b><!--lqz0c--></p>", masked).lost


def test_a_mark_that_became_an_attribute_comes_back_bare():
    masked = mask("<p {% if a %}b{% endif %}>")
    assert "<p {% if a %}b{% endif %} >" == unmask('<p lqz0a="">', masked).text


def test_places_in_the_compiled_text_lead_back_to_lines():
    masked = mask("<p>\n{{ a }}\n{{ b }}</p>")
    back = unmask(f"<html>{masked.text}</html>", masked)
    assert (2, 3) == back.lines
    assert ("{{ a }}", "{{ b }}") == tuple(back.text[start : start + 7] for start in back.starts)
