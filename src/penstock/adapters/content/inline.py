"""CSS moved from style sheets into style attributes by css-inline, once for each template."""

import css_inline

from penstock.core.errors import DefinitionError

_inliner = css_inline.CSSInliner(
    keep_at_rules=True,  # media queries: what makes a mail fit a phone
    load_remote_stylesheets=False,  # a template never makes this machine ask another
)


def inline_css(name: str, html: str) -> str:
    """Return an HTML document with its CSS in style attributes; `@media` and its like stay in a sheet.

    Args:
        name: The file's name, for messages.
        html: A whole document; in a fragment nothing would be found to style.

    Raises:
        DefinitionError: The style sheet does not parse (E145).
    """
    try:
        return _inliner.inline(html)
    except (css_inline.InlineError, ValueError) as error:
        raise DefinitionError(
            "E145", f"the CSS of `{name}` cannot be inlined: {error}",
            fix="correct the style sheet in the template's head", where=name,
        ) from None  # fmt: skip
