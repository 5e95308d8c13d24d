"""Composing an email: nothing but links changes, headers carry no second header, sizes are told."""

from email import message_from_bytes
from email.header import decode_header, make_header
from email.policy import default
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.core.errors import DefinitionError
from penstock.flows.compose_email import (
    SizeReport,
    compose_email,
    decision_id_of,
    instrument_html,
    message_id_of,
    size_report,
    with_params,
)

DECISION = "0f" * 16
UNSUBSCRIBE = "https://track.shop.example/v1/unsubscribe/" + "A" * 64
UTM = {"utm_source": "penstock", "utm_campaign": "spring & more"}
TAGS = "utm_source=penstock&utm_campaign=spring%20%26%20more"
EMAIL = {
    "sender": "Shop <news@shop.example>",
    "recipient": "ada@example.com",
    "subject": "Hello",
    "html": "<p>Hi</p>",
    "text": "Hi",
    "message_id": message_id_of(DECISION, "shop.example"),
    "list_unsubscribe_url": UNSUBSCRIBE,
}


def parsed(**changes):
    return message_from_bytes(compose_email(**{**EMAIL, **changes}).as_bytes(), policy=default)


def refused(**changes) -> DefinitionError:
    with pytest.raises(DefinitionError) as caught:
        compose_email(**{**EMAIL, **changes})
    assert "E142" == caught.value.code
    return caught.value


def track(url, index):
    return f"https://t.example/c/{index}?u={url}"


def instrumented(html, **options):
    return instrument_html(html, **{"click": track, "pixel_url": None, "utm": {}, **options})


# ------------------------------------------------------------------------------------------ messages


def test_an_email_has_a_text_part_and_then_an_html_part():
    message = parsed(html="<p>£5 — zażółć</p>\n", text="£5\n.\nFrom here\n")
    assert "multipart/alternative" == message.get_content_type()
    assert ["text/plain", "text/html"] == [part.get_content_type() for part in message.iter_parts()]
    plain, html = (part.get_content().replace("\r\n", "\n") for part in message.iter_parts())
    assert ("£5\n.\nFrom here\n", "<p>£5 — zażółć</p>\n") == (plain, html)


def test_one_click_unsubscribe_is_on_one_line_each():
    raw = compose_email(**EMAIL, mailto="stop@shop.example").as_bytes()
    lines = raw.split(b"\r\n")
    assert f"List-Unsubscribe: <{UNSUBSCRIBE}>, <mailto:stop@shop.example>".encode() in lines
    assert b"List-Unsubscribe-Post: List-Unsubscribe=One-Click" in lines


def test_the_message_id_carries_the_decision():
    message = parsed()
    assert f"<{DECISION}@shop.example>" == message["Message-ID"]
    assert DECISION == decision_id_of(message["Message-ID"])


def test_the_same_email_has_the_same_bytes():
    assert compose_email(**EMAIL).as_bytes() == compose_email(**EMAIL).as_bytes()


def test_every_line_is_ascii_and_short_enough_for_any_server():
    raw = compose_email(
        **{**EMAIL, "html": "ü" * 5_000 + "x" * 5_000, "subject": "ü " * 80}
    ).as_bytes()
    assert raw.isascii()
    assert raw.count(b"\n") == raw.count(b"\r\n") == raw.count(b"\r")
    assert 998 >= max(len(line) for line in raw.split(b"\r\n"))


@given(
    subject=st.text(
        st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.just(" "), max_size=200
    )
)
def test_a_subject_arrives_as_it_was_written(subject):
    expected = " ".join(subject.split())
    raw = compose_email(**{**EMAIL, "subject": expected}).as_bytes()
    assert expected == message_from_bytes(raw, policy=default)["Subject"]
    head = raw.split(b"\r\n\r\n")[0].split(b"\r\n")
    assert all(len(line) <= 78 for line in head if b"=?" in line)


@pytest.mark.parametrize(
    ("sender", "name", "address"),
    [
        ("news@shop.example", "", "news@shop.example"),
        ("Shop <news@shop.example>", "Shop", "news@shop.example"),
        ('"Shop, Ltd." <news@shop.example>', "Shop, Ltd.", "news@shop.example"),
        ("Shop, Ltd. <news@shop.example>", "Shop, Ltd.", "news@shop.example"),
        ("Kaffee für jeden, auch sonntags <a@b.example>", "Kaffee für jeden, auch sonntags", "a@b.example"),
        ("a@bücher.example", "", "a@xn--bcher-kva.example"),
    ],
)  # fmt: skip
def test_a_sender_may_have_a_name(sender, name, address):
    (mailbox,) = parsed(sender=sender)["From"].addresses
    assert (name, address) == (mailbox.display_name, mailbox.addr_spec)


def test_a_long_sender_is_encoded_as_the_standard_says():
    # Read by the older decoder: the newer one puts a blank between encoded words of a name.
    name = "Kaffee für jeden, auch am Sonntag und an jedem Feiertag"
    raw = message_from_bytes(
        compose_email(**{**EMAIL, "sender": f"{name} <a@b.example>"}).as_bytes()
    )
    assert f"{name} <a@b.example>" == str(make_header(decode_header(raw["From"])))


@pytest.mark.parametrize(
    "evil", ["a\r\nBcc: b@x", "a\nBcc: b@x", "a\rb", "a\x00b", "a\x0bb", "a\u2028b", "a\x85b"]
)
def test_no_header_carries_another(evil):
    for change in (
        {"subject": evil},
        {"sender": f"{evil} <a@b.example>"},
        {"recipient": f"ada@example.com{evil}"},
        {"mailto": f"ada@example.com{evil}"},
        {"headers": {"Reply-To": evil}},
        {"headers": {evil: "x"}},
    ):
        assert "Bcc" not in str(refused(**change))


@pytest.mark.parametrize(
    "recipient",
    ["", "ada", "ada@", "@x", "a@x, b@x", "a@x;b@x", "Ada <a@x>", "a b@x", "a@x@y", "a@[127.0.0.1]", "zoë@x.example",
     "a@" + "ü" * 80 + ".example", '"a b"@x'],
)  # fmt: skip
def test_a_recipient_is_exactly_one_address(recipient):
    error = refused(recipient=recipient)
    assert not recipient or recipient not in f"{error.what}{error.where}"


@pytest.mark.parametrize(
    "name", ["To", "Bcc", "subject", "Content-Type", "List-Unsubscribe", "X Y", "X:Y", ""]
)
def test_headers_that_the_email_needs_are_not_the_campaigns_to_set(name):
    refused(headers={name: "x"})


def test_blanks_around_a_subject_are_cut_and_a_huge_one_is_refused():
    assert "Hello" == parsed(subject="\n Hello \n")["Subject"]
    refused(subject="x" * 901)


def test_lone_surrogates_are_replaced_not_fatal():
    message = parsed(subject="a\ud800b", html="<p>\ud800</p>", text="\ud800")
    assert "a?b" == message["Subject"]


# -------------------------------------------------------------------------------------------- links


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("https://s/", f"https://s/?{TAGS}"),
        ("https://s/p?id=7", f"https://s/p?id=7&{TAGS}"),
        ("https://s/p?id=7#top", f"https://s/p?id=7&{TAGS}#top"),
        ("https://s/p#top", f"https://s/p?{TAGS}#top"),
        ("https://s/p?", f"https://s/p?{TAGS}"),
        ("https://s/p?a=1&", f"https://s/p?a=1&{TAGS}"),
        (
            "https://s/p?utm_source=own",
            "https://s/p?utm_source=own&utm_campaign=spring%20%26%20more",
        ),
        (f"https://s/p?{TAGS}", f"https://s/p?{TAGS}"),
        ("https://s/p?q=a%20b&q=c", f"https://s/p?q=a%20b&q=c&{TAGS}"),
    ],
)
def test_tags_are_added_and_what_is_there_is_kept(before, after):
    assert after == with_params(before, UTM)


def test_tags_beyond_ascii_are_percent_encoded():
    assert "https://s/?utm_term=%C3%BC%2F%3D" == with_params("https://s/", {"utm_term": "ü/="})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('<a href="https://s/">x</a>', '<a href="https://t.example/c/0?u=https://s/">x</a>'),
        ("<a href='https://s/'>x</a>", '<a href="https://t.example/c/0?u=https://s/">x</a>'),
        ("<a href=https://s/>x</a>", '<a href="https://t.example/c/0?u=https://s/">x</a>'),
        ("<A  class=x HREF = 'https://s/' id=y>x</A>",
         '<A  class=x HREF = "https://t.example/c/0?u=https://s/" id=y>x</A>'),
        ('<a href="https://s/?a=1&amp;b=&quot;2">x</a>',
         '<a href="https://t.example/c/0?u=https://s/?a=1&amp;b=&quot;2">x</a>'),
        ('<a href="https://s/?a=1&b=2">x</a>',
         '<a href="https://t.example/c/0?u=https://s/?a=1&amp;b=2">x</a>'),
        ('<a title="a > b" href="https://s/">x</a>',
         '<a title="a > b" href="https://t.example/c/0?u=https://s/">x</a>'),
        ('<a data-href="https://no/" href="https://s/">x</a>',
         '<a data-href="https://no/" href="https://t.example/c/0?u=https://s/">x</a>'),
        ('<a title="href=\'https://no/\'" href="https://s/">x</a>',
         '<a title="href=\'https://no/\'" href="https://t.example/c/0?u=https://s/">x</a>'),
        ('<a href=" https://s/\n ">x</a>', '<a href="https://t.example/c/0?u=https://s/">x</a>'),
        ('<area href="https://s/"/>', '<area href="https://t.example/c/0?u=https://s/"/>'),
        ('<a href="https://s/1">1</a>\n<a href="https://s/2">2</a>',
         '<a href="https://t.example/c/0?u=https://s/1">1</a>\n<a href="https://t.example/c/1?u=https://s/2">2</a>'),
        ('é<br>\n\n<a href="https://s/">x</a>', 'é<br>\n\n<a href="https://t.example/c/0?u=https://s/">x</a>'),
        ('<a href="https://s/" href="https://second/">x</a>',
         '<a href="https://t.example/c/0?u=https://s/" href="https://second/">x</a>'),
    ],
)  # fmt: skip
def test_links_are_rewritten_in_place(before, after):
    assert after == instrumented(before)


@pytest.mark.parametrize(
    "html",
    [
        '<a href="mailto:a@b.example?subject=x">x</a>',
        '<a href="tel:+44123">x</a>',
        '<a href="SMS:+44">x</a>',
        '<a href="#top">x</a>',
        '<a href="/relative?x=a:b">x</a>',
        '<a href="">x</a>',
        "<a href>x</a>",
        '<a name="x">x</a>',
        '<a href="https://shop.example/u/abc">x</a>',
        '<link href="https://s/style.css">',
        '<img src="https://s/i.png">',
        '<!-- <a href="https://s/">x</a> -->',
        '<!--[if mso]><a href="https://s/">x</a><![endif]-->',
        '<style>a[href="https://s/"] { color: red }</style>',
        "<script>'<a href=\"https://s/\">'</script>",
        '<p>href="https://s/"</p>',
        '<a href="https://s/',
        "< a href='https://s/'>",
    ],
)  # fmt: skip
def test_what_is_no_web_link_stays_as_it_is(html):
    assert html == instrumented(html, utm=UTM, exempt=("https://shop.example/u/",))


@pytest.mark.parametrize(
    "target",
    ["javascript:alert(1)", " JaVaScRiPt:x", "java\nscript:x", "data:text/html,x", "vbscript:x",
     "&#106;avascript:x", "file:///etc/passwd", "https://a b/", "https://a/\x01b"],
)  # fmt: skip
def test_a_link_of_a_dangerous_kind_leads_nowhere(target):
    assert '<a href="#">x</a>' == instrumented(f'<a href="{target}">x</a>', utm=UTM)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<html><head></head><body class='a'>x</body></html>", "<html><head></head><body class='a'>|x</body></html>"),
        ("<html><head><title>t</title></head>x", "<html><head><title>t</title></head>|x"),
        ("<!doctype html><html>x", "<!doctype html><html>|x"),
        ("<p>x</p>", "|<p>x</p>"),
    ],
)  # fmt: skip
def test_the_open_pixel_is_at_the_top_of_the_body(before, after):
    pixel = ('<img src="https://t/o?a=1&amp;b=2" width="1" height="1" alt=""'
             ' style="display:block;width:1px;height:1px;border:0">')  # fmt: skip
    assert after.replace("|", pixel) == instrumented(before, pixel_url="https://t/o?a=1&b=2")


class Reading(HTMLParser):
    """What a reader sees: texts, and the targets of links."""

    def __init__(self, html):
        super().__init__()
        self.texts, self.links, self.rest = [], [], []
        self.feed(html)
        self.close()

    def handle_data(self, data):
        self.texts.append(data)

    def handle_starttag(self, tag, attrs):
        if tag in {"a", "area"}:
            href = next(
                (value for name, value in attrs if name == "href" and value is not None), None
            )
            if href is not None:
                self.links.append(href)
        self.rest.append((tag, [pair for pair in attrs if pair[0] != "href"]))


TARGETS = st.sampled_from(
    ["https://s.example/p", "https://s.example/?a=1&b=2#f", "HTTP://S/", "mailto:a@b", "#x", "/r",
     "javascript:x", "", "tel:1", "https://s/'\"<>", "//host/x", "https://u.example/stop"]
)  # fmt: skip
QUOTES = st.sampled_from(['"{}"', "'{}'"])
NOISE = st.text(alphabet="ab <>&\"'=/\n!-ü;#x", max_size=12)


@st.composite
def documents(draw):
    pieces = []
    for _ in range(draw(st.integers(0, 8))):
        target = draw(TARGETS).replace("&", "&amp;").replace('"', "&quot;").replace("'", "&#39;")
        value = draw(QUOTES).format(target)
        attributes = [f"href={value}", 'title="a > b"', "class=c", "x", "data-y='href=z'"]
        chosen = draw(st.lists(st.sampled_from(attributes), max_size=4, unique=True))
        blank = draw(st.sampled_from([" ", "\n", "  "]))
        pieces += [
            draw(NOISE),
            f"<a{blank}{blank.join(chosen)}>",
            draw(NOISE),
            draw(st.sampled_from(["</a>", "", "<p>"])),
        ]
    return "".join(pieces)


@example(html='<a >&#<a href="https://s.example/p"></a>')
@given(html=documents())
def test_texts_stay_and_every_link_is_rewritten_exempt_or_dead(html):
    exempt = "https://u.example/"
    before = Reading(html)
    after = Reading(instrumented(html, utm=UTM, exempt=(exempt,)))
    assert before.texts == after.texts
    assert before.rest == after.rest
    assert len(before.links) == len(after.links)
    for old, new in zip(before.links, after.links, strict=True):
        lowered = old.strip().lower()
        if (
            old.startswith(exempt)
            or lowered.startswith(("mailto:", "tel:", "sms:", "#", "/"))
            or not lowered
        ):
            assert old == new
        elif new != "#":
            assert new.startswith("https://t.example/c/")
            assert lowered.startswith(("http://", "https://"))


@given(html=st.text(alphabet="<a href=\"'>&;https://x.y/!-\n", max_size=200))
def test_no_markup_however_broken_stops_it(html):
    assert isinstance(instrumented(html, utm=UTM, pixel_url="https://t/o"), str)


# ---------------------------------------------------------------------------------------------- size


@pytest.mark.parametrize(
    ("size", "verdict"),
    [(0, "ok"), (79_999, "ok"), (80_000, "warn"), (99_999, "warn"), (100_000, "refuse")],
)
def test_a_size_report_counts_bytes(size, verdict):
    assert SizeReport(size, verdict) == size_report("x" * size)


def test_a_size_report_counts_bytes_not_characters():
    assert SizeReport(80_000, "warn") == size_report("ü" * 40_000)
