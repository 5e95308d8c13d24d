"""MJML compiled to email HTML by mrml, once for each template; Liquid tags must be masked before."""

import difflib
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import mjml

from penstock.core.errors import DefinitionError

SUFFIXES: Final = (".mjml", ".mjml.liquid")
"""What the name of a file that holds MJML ends with."""

_FONTS: Final[dict[str, str]] = {}
"""No web fonts: MJML's defaults would have every open ask a third party for them."""


def compile_mjml(name: str, source: str) -> str:
    """Return the HTML of an MJML document; a source of another kind of file comes back unchanged.

    Args:
        name: The file's name; only `.mjml` and `.mjml.liquid` are compiled.
        source: A whole `<mjml>` document. Words and comments in it are kept in their places.

    Raises:
        DefinitionError: The source is not MJML (E144).
    """
    if not name.endswith(SUFFIXES):
        return source
    try:
        return mjml.mjml2html(source, fonts=_FONTS)
    except Exception as error:  # noqa: BLE001 - mrml raises plain Exceptions of several kinds
        raise DefinitionError(
            "E144", f"the MJML of `{name}` does not compile: {error}",
            fix="correct the element it names; write `<mj-include>` as `{% render %}` inside `mj-raw`",
            where=name,
        ) from None  # fmt: skip


# -- what MJML has

_PADDING: Final = "padding padding-bottom padding-left padding-right padding-top"
_BORDER: Final = "border border-bottom border-left border-right border-top"
_EVERYWHERE: Final = frozenset({"css-class", "mj-class"})
_ANYTHING: Final = frozenset({"mj-all", "mj-class", "mj-selector", "mj-html-attribute"})
"""Elements whose attributes are those of others, or of the author's own choice."""


def _set(*names: str) -> frozenset[str]:
    return frozenset(" ".join(names).split())


ELEMENTS: Final[dict[str, frozenset[str]]] = {
    "mjml": _set("dir lang owa"),
    "mj-include": _set("css-inline path type"),
    **dict.fromkeys(_ANYTHING, frozenset[str]()),
    "mj-accordion": _set(
        _PADDING,
        "border container-background-color font-family icon-align icon-height icon-position "
        "icon-unwrapped-alt icon-unwrapped-url icon-width icon-wrapped-alt icon-wrapped-url",
    ),
    "mj-accordion-element": _set(
        "background-color border font-family icon-align icon-height icon-position icon-"
        "unwrapped-alt icon-unwrapped-url icon-width icon-wrapped-alt icon-wrapped-url"
    ),
    "mj-accordion-text": _set(
        _PADDING,
        "background-color color font-family font-size font-weight letter-spacing line-height",
    ),
    "mj-accordion-title": _set(
        _PADDING, "background-color color font-family font-size font-weight"
    ),
    "mj-attributes": _set(),
    "mj-body": _set("background-color id width"),
    "mj-breakpoint": _set("width"),
    "mj-button": _set(
        _PADDING,
        _BORDER,
        "align background-color border-radius color container-background-color font-family "
        "font-size font-style font-weight height href inner-padding letter-spacing line-"
        "height name rel target text-align text-decoration text-transform title vertical-"
        "align width",
    ),
    "mj-carousel": _set(
        _PADDING,
        "align border-radius container-background-color icon-width left-icon right-icon tb-"
        "border tb-border-radius tb-hover-border-color tb-selected-border-color tb-width "
        "thumbnails",
    ),
    "mj-carousel-image": _set(
        "alt border-radius href rel src target tb-border tb-border-radius thumbnails-src title"
    ),
    "mj-column": _set(
        _PADDING,
        _BORDER,
        "background-color border-radius direction inner-background-color inner-border inner-"
        "border-bottom inner-border-left inner-border-radius inner-border-right inner-border-"
        "top vertical-align width",
    ),
    "mj-divider": _set(
        _PADDING, "align border-color border-style border-width container-background-color width"
    ),
    "mj-font": _set("href name"),
    "mj-group": _set("background-color direction vertical-align width"),
    "mj-head": _set(),
    "mj-hero": _set(
        _PADDING,
        "background-color background-height background-position background-url background-"
        "width border-radius height inner-background-color inner-padding inner-padding-bottom "
        "inner-padding-left inner-padding-right inner-padding-top mode vertical-align",
    ),
    "mj-html-attributes": _set(),
    "mj-image": _set(
        _PADDING,
        _BORDER,
        "align alt border-radius container-background-color fluid-on-mobile font-size height "
        "href max-height name rel sizes src srcset target title usemap width",
    ),
    "mj-navbar": _set(
        _PADDING,
        "align base-url hamburger ico-align ico-close ico-color ico-font-family ico-font-size "
        "ico-line-height ico-open ico-padding ico-padding-bottom ico-padding-left ico-"
        "padding-right ico-padding-top ico-text-decoration ico-text-transform",
    ),
    "mj-navbar-link": _set(
        _PADDING,
        "color font-family font-size font-style font-weight href letter-spacing line-height "
        "name rel target text-decoration text-transform",
    ),
    "mj-preview": _set(),
    "mj-raw": _set("position"),
    "mj-section": _set(
        _PADDING,
        _BORDER,
        "background-color background-position background-position-x background-position-y "
        "background-repeat background-size background-url border-radius direction full-width "
        "gutter text-align text-padding",
    ),
    "mj-social": _set(
        _PADDING,
        "align border border-radius color container-background-color font-family font-size "
        "font-style font-weight icon-height icon-padding icon-size inner-padding line-height "
        "mode table-layout text-decoration text-padding vertical-align",
    ),
    "mj-social-element": _set(
        _PADDING,
        "align alt background-color border border-radius color font-family font-size font-"
        "style font-weight href icon-height icon-padding icon-position icon-size line-height "
        "name rel sizes src srcset target text-decoration text-padding title vertical-align",
    ),
    "mj-spacer": _set(_PADDING, _BORDER, "container-background-color height"),
    "mj-style": _set("inline"),
    "mj-table": _set(
        _PADDING,
        "align border cellpadding cellspacing color container-background-color font-family "
        "font-size font-weight line-height role table-layout vertical-align width",
    ),
    "mj-text": _set(
        _PADDING,
        "align background-color color container-background-color font-family font-size font-"
        "style font-weight height letter-spacing line-height text-decoration text-transform "
        "vertical-align",
    ),
    "mj-title": _set(),
    "mj-wrapper": _set(
        _PADDING,
        _BORDER,
        "background-color background-position background-position-x background-position-y "
        "background-repeat background-size background-url border-radius direction full-width "
        "gap gutter text-align text-padding",
    ),
}
"""The elements of MJML with their attributes, besides those of all.

Source: the components of mjml 5 and 4.
"""

_COMMENT: Final = re.compile(r"<!--.*?-->", re.DOTALL)
_TAG: Final = re.compile(r"<(mjml|mj-[\w-]*)")
_ATTRIBUTE: Final = re.compile(
    r"""\s*(?:/(?!>)\s*)?([^\s=>/"']+)(?:\s*=\s*(?:"[^"]*"|'[^']*'|[^\s>]+))?"""
)


_ELEMENT: Final = re.compile(r"""<(/?)(mjml|mj-[\w-]*)((?:"[^"]*"|'[^']*'|[^'">])*)(>?)""")


class Misspelled(NamedTuple):
    """An element or an attribute that MJML does not have: it would show nothing, and say nothing."""

    line: int
    what: str
    near: str
    """The name that may be meant; empty if none is like it."""


def misspelled(source: str) -> Iterator[Misspelled]:
    """Yield the elements and attributes of an MJML source that MJML does not have, in order.

    Args:
        source: The document; Liquid tags in it are blanks, in as many lines.
    """
    source = _COMMENT.sub(lambda found: re.sub(r"[^\n]", " ", found.group()), source)
    for tag in _TAG.finditer(source):
        element = tag.group(1)
        known = ELEMENTS.get(element)
        if known is None:
            near = difflib.get_close_matches(element, ELEMENTS, 1)
            yield Misspelled(
                _line(source, tag.start()), f"element `{element}`", near[0] if near else ""
            )
            continue
        position = tag.end()
        while attribute := _ATTRIBUTE.match(source, position):
            name, position = attribute.group(1), attribute.end()
            if element not in _ANYTHING and name not in known and name not in _EVERYWHERE:
                near = difflib.get_close_matches(name, known | _EVERYWHERE, 1)
                yield Misspelled(_line(source, attribute.start(1)),
                                 f"attribute `{name}` of `{element}`", near[0] if near else "")  # fmt: skip


def broken_at(source: str) -> int:
    """Return the line of a source that does not compile: of the first tag that opens or closes wrongly.

    Args:
        source: The document; Liquid tags in it are blanks, in as many lines.
    """
    source = _COMMENT.sub(lambda found: re.sub(r"[^\n]", " ", found.group()), source)
    opened: list[tuple[str, int]] = []
    for tag in _ELEMENT.finditer(source):
        closing, element, rest, end = tag.groups()
        if not end or (closing and (not opened or opened[-1][0] != element)):
            return _line(source, tag.start())
        if closing:
            opened.pop()
        elif not rest.endswith("/"):
            opened.append((element, tag.start()))
    return _line(source, opened[-1][1] if opened else 0)


def _line(source: str, position: int) -> int:
    return source.count("\n", 0, position) + 1
