"""Plain text from HTML: what a reader would read aloud, with the links at the end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.adapters.content.html_to_text import html_to_text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("", ""),
        ("<p>One</p><p>Two</p>", "One\n\nTwo\n"),
        ("<h1>Title</h1>Text<br>more<br/>still", "Title\n\nText\nmore\nstill\n"),
        ("<ul><li>a</li><li>b</li></ul>", "- a\n- b\n"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\n\nc\n"),
        ("a<hr>b", "a\n\n---\n\nb\n"),
        ("  a \n\n  b&nbsp;c &amp; d ", "a b c & d\n"),
        ('<img src="x" alt="A cup"><img src="y" alt="">', "A cup\n"),
        ("<style>p{}</style><script>x</script><title>t</title>a<!-- c -->", "a\n"),
        ('<div style="display:none">hidden<p>too</p></div>seen', "seen\n"),
        ('<div style="DISPLAY : none"><img src=x>hidden</div>seen', "seen\n"),
        ("soft\u00adhy\u200bphen", "softhyphen\n"),
        ('<a href="https://a/">Shop</a>', "Shop [1]\n\n[1] https://a/\n"),
        ('<a href="https://a/">x</a> <a href="https://b/">y</a> <a href="https://a/">z</a>',
         "x [1] y [2] z [1]\n\n[1] https://a/\n[2] https://b/\n"),
        ('<a href="https://a/?x=1&amp;y=2"><img alt="Tea"></a>', "Tea [1]\n\n[1] https://a/?x=1&y=2\n"),
        ('<td><a href="https://a/"><img alt="Wok"></a></td></tr><tr><td><a href="https://a/">Wok</a></td>',
         "Wok [1]\n\n[1] https://a/\n"),
        ('<p><a href="https://a/">Wok</a></p><img alt="Wok"> 9.99', "Wok [1]\n\n9.99\n\n[1] https://a/\n"),
        ('<img alt="Wok"><h2>Wok</h2><p>hot</p>', "Wok\n\nhot\n"),
        ('<img alt="Wok"><img alt="Wok">', "Wok\n"),
        ('<img alt="Wok"><p>Woks are hot</p>', "Wok\n\nWoks are hot\n"),
        ('<img alt="Wok"><p>Pan</p><p>Wok</p>', "Wok\n\nPan\n\nWok\n"),
        ('<a href="https://a/">https://a/</a>', "https://a/\n"),
        ('<a href="mailto:a@b.example">a@b.example</a>', "a@b.example\n"),
        ('<a href="#x">x</a><a href="javascript:x">y</a>', "xy\n"),
        ('<a href="https://a/"></a>z', "z\n"),
    ],
)  # fmt: skip
def test_html_reads_as_text(html, text):
    assert text == html_to_text(html)


@given(html=st.text(alphabet="<>/apdivulhref=\"' &;#x\n", max_size=200))
def test_no_markup_however_broken_stops_it(html):
    text = html_to_text(html)
    assert "\n\n\n" not in text


def test_elements_left_open_hide_nothing_for_ever():
    assert "seen\n" == html_to_text('<div style="display:none"><p><b>hidden</div>seen')
