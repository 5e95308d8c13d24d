"""What authors write in `audiences.py`: who a campaign is for."""

from penstock.core.decision.audience import Audience
from penstock.core.decision.predicate import Node, Reference, Subscribed, as_node
from penstock.dsl.slots import caller


def audience(
    name: str,
    *,
    when: Node | Reference | None = None,
    topic: str = "",
    purpose: str = "personalisation",
) -> Audience:
    """Declare an audience.

    Args:
        name: Unique in the project.
        when: Who belongs to it: `feature("days_since_order") > 90`; everybody by default.
        topic: What they must not have unsubscribed from.
        purpose: What they must permit; empty only for an audience without `when`.
    """
    return Audience(
        name=name,
        when=None if when is None else as_node(when),
        topic=topic,
        purpose=purpose,
        where=caller(),
    )


def subscribed(topic: str) -> Subscribed:
    """Return: the person has not refused the topic. Its negation finds nobody.

    Args:
        topic: A topic of `email.topics`.
    """
    return Subscribed(topic=topic)
