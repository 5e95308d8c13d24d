"""Event types that every project has without declaring them: page and screen views.

A project that declares `page` or `screen` itself replaces them. Addresses are dropped, because
links carry email addresses, tokens and searches.
"""

from typing import Final

from penstock.core.catalog.fields import EventType, Field, Privacy, event_type

_BROWSING: Final = Privacy(category="user.behavior.browsing_history", retention_days=400)
_DROPPED: Final = Privacy(
    category="user.behavior.browsing_history", data_class="confidential", protection="drop"
)

PAGE: Final = event_type(
    "page",
    1,
    (
        Field(name="name", kind="string", privacy=_BROWSING, description="The page's name"),
        Field(name="category", kind="string", privacy=_BROWSING, description="The page's category"),
        Field(name="path", kind="string", privacy=_BROWSING, chars_max=2_000,
              description="The path of its address"),
        Field(name="title", kind="string", privacy=_BROWSING, description="Its title"),
        Field(name="url", kind="string", privacy=_DROPPED, description="Its address"),
        Field(name="search", kind="string", privacy=_DROPPED, description="Its address's query"),
        Field(name="referrer", kind="string", privacy=_DROPPED, description="Where from"),
    ),
    "A page was viewed.",
)  # fmt: skip

SCREEN: Final = event_type(
    "screen",
    1,
    (
        Field(name="name", kind="string", privacy=_BROWSING, description="The screen's name"),
        Field(name="category", kind="string", privacy=_BROWSING, description="Its category"),
    ),
    "A screen of an app was viewed.",
)

BUILTIN: Final[tuple[EventType, ...]] = (PAGE, SCREEN)
