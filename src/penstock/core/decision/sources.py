"""The candidate sources that ship, and the register in which third parties put theirs."""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from penstock.core.decision.candidate import Proposal, Reading, SourceKind
from penstock.core.decision.popular import tally_fault
from penstock.core.decision.predicate import nearest
from penstock.core.decision.values import as_mapping, members
from penstock.core.errors import DefinitionError


def _needs(*names: str) -> Callable[[Mapping[str, Any]], str]:
    def check(args: Mapping[str, Any]) -> str:
        lacking = [name for name in names if not isinstance(args.get(name), str) or not args[name]]
        return f"needs the name of a feature for `{lacking[0]}`" if lacking else ""

    return check


def _fixed(args: Mapping[str, Any], _: Reading) -> list[Proposal]:
    if args.get("items"):
        return [Proposal(item_id) for item_id in args["items"]]
    return [Proposal(content=args.get("content", {}), block=args.get("block", ""))]


def _check_fixed(args: Mapping[str, Any]) -> str:
    if bool(args.get("items")) == bool(args.get("content") or args.get("block")):
        return "needs either item ids, or content and/or a block"
    return ""


def _recently_viewed(args: Mapping[str, Any], reading: Reading) -> list[Proposal]:
    return [Proposal(item_id) for item_id in members(reading.features[args["feature"]])]


def _viewed_not_bought(args: Mapping[str, Any], reading: Reading) -> list[Proposal]:
    bought = set(members(reading.features[args["bought"]]))
    viewed = members(reading.features[args["viewed"]])
    return [Proposal(item_id) for item_id in viewed if item_id not in bought]


def _top_of_favourite_category(args: Mapping[str, Any], reading: Reading) -> list[Proposal]:
    favourites = tuple(members(reading.features[args["feature"]])[: args.get("categories", 1)])
    if not favourites:
        return []
    items = as_mapping(args["items"])
    if items is not None:
        return [Proposal(item_id) for category in favourites for item_id in items.get(category, ())]
    return [Proposal(item_id, categories=favourites) for item_id in args["items"]]


def _check_top(args: Mapping[str, Any]) -> str:
    lacking = _needs("feature")(args)
    if lacking:
        return lacking
    if not args.get("items"):
        return "needs items: a list per category, or one list of items that have a `category`"
    categories = args.get("categories", 1)
    if not isinstance(categories, int) or not 1 <= categories <= 10:
        return "takes between 1 and 10 categories"
    return ""


def _popular(args: Mapping[str, Any], reading: Reading) -> list[Proposal]:
    ranking = reading.popular.get(args["tally"], {})
    if not args.get("feature"):
        return [Proposal(item_id) for item_id in ranking.get("", ())]
    groups = members(reading.features[args["feature"]])[: args.get("groups", 1)]
    return [Proposal(item_id) for group in groups for item_id in ranking.get(group, ())]


def _check_popular(args: Mapping[str, Any]) -> str:
    if not isinstance(args.get("tally"), str):
        return "counts nothing: make it with `popular(...)`"
    return tally_fault(args)


_SHIPPED: Final = (
    SourceKind("fixed", _fixed, check=_check_fixed,
               doc="Content, a block, or items that the author names; the same for everybody."),
    SourceKind("recently_viewed", _recently_viewed, features=("feature",), check=_needs("feature"),
               doc="The items that a feature lists, the newest first."),
    SourceKind("viewed_not_bought", _viewed_not_bought, features=("viewed", "bought"),
               check=_needs("viewed", "bought"),
               doc="The items of one feature, the newest first, that are not in another."),
    SourceKind("top_of_favourite_category", _top_of_favourite_category, features=("feature",),
               check=_check_top,
               doc="The best items of the categories that a feature ranks highest."),
    SourceKind("popular", _popular, features=("feature",), check=_check_popular, varies=True,
               doc="What most people did something with lately, of everybody or of a person's favourite groups."),
)  # fmt: skip

SHIPPED: Final = frozenset(kind.name for kind in _SHIPPED)
"""The names of the sources that ship: what they propose is an item, or content that the author wrote."""

_registered: dict[str, SourceKind] = {kind.name: kind for kind in _SHIPPED}


class Loading(NamedTuple):
    """The sources that a project registers while it is loaded: they are of this loading alone."""

    is_own: Callable[[SourceKind], bool]
    """Whether a source stands in the project's files; one of an installed package is everybody's."""
    own: dict[str, SourceKind]


_loadings: list[Loading] = []


def begin_loading(is_own: Callable[[SourceKind], bool]) -> dict[str, SourceKind]:
    """Gather what the files of a project register until `end_loading`: each version has its own functions.

    Args:
        is_own: Whether a source stands in these files.

    Returns:
        What they register, by name; it fills as they are loaded.
    """
    _loadings.append(Loading(is_own, {}))
    return _loadings[-1].own


def end_loading() -> None:
    """Stop what `begin_loading` began."""
    _loadings.pop()


def register(kind: SourceKind) -> SourceKind:
    """Make a candidate source known by its name, as ours are.

    What a project's own files register while it is loaded is known to its slots alone.

    Raises:
        DefinitionError: Another source has the name (E155).
    """
    now = _loadings[-1] if _loadings else None
    known = now.own if now is not None and now.is_own(kind) else _registered
    standing = known.get(kind.name) or _registered.get(kind.name)
    if standing is not None and standing is not kind:
        raise DefinitionError("E155", f"two candidate sources are called `{kind.name}`",
                              fix="give one of them another name")  # fmt: skip
    known[kind.name] = kind
    return kind


def kinds() -> dict[str, SourceKind]:
    """Return all candidate sources that are known to every project, by name, sorted."""
    return dict(sorted(_registered.items()))


def get_kind(
    name: str, own: Mapping[str, SourceKind], *, owner: str, where: str = ""
) -> SourceKind:
    """Return the candidate source of a name.

    Args:
        name: Its name.
        own: The sources of the project that names it.
        owner: Who names it, for the message.
        where: Where that stands.

    Raises:
        DefinitionError: There is none (E155).
    """
    kind = own.get(name) or _registered.get(name)
    if kind is None:
        raise DefinitionError("E155", f"{owner} names candidate source `{name}`, which is not registered",
                              fix=f"register it{nearest(name, frozenset({*_registered, *own}))}", where=where)  # fmt: skip
    return kind
