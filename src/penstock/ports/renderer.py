"""Templates to text and HTML, with limits."""

from collections.abc import Mapping
from typing import Any, Protocol


class Renderer(Protocol):
    """Renders the project's Liquid templates by name. Templates are parsed once and checked at load.

    Conformance: `penstock.testing.conformance.renderer`.
    """

    def render(self, name: str, data: Mapping[str, Any]) -> str:
        """Return a template rendered with data; HTML output is escaped where the template is HTML.

        Raises:
            DefinitionError: The template failed on this data or went over a limit (E140); serving
                then uses the slot's fallback.
        """
        ...

    def render_text(self, source: str, data: Mapping[str, Any]) -> str:
        """Return a short Liquid source of the author's, such as a subject, rendered as plain text.

        The source is parsed when it is first seen, and remembered. It is never made of a person's
        data.

        Raises:
            DefinitionError: The source does not parse (E141), or failed on this data (E140).
        """
        ...

    def names(self) -> list[str]:
        """Return the names of all templates, sorted."""
        ...


class Html(str):
    """HTML made by a renderer, to be shown inside another template as it is, not escaped again.

    Wrap only what a renderer returned for an HTML template: `{"slots": {"hero": {"html": Html(html)}}}`.
    It is an ordinary string to everything else; filters give back ordinary strings, which are escaped.
    """

    __slots__ = ()

    def __html__(self) -> str:
        """Return the text itself: it is HTML already."""
        return str(self)
