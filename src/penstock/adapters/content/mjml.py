"""MJML compiled to email HTML by mrml, once for each template; Liquid tags must be masked before."""

from typing import Final

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
