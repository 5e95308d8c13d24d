"""Features derived from other features when read: ratio. They keep no state."""

from collections.abc import Callable
from typing import Any, Final, cast


def _ratio(numerator: Any, denominator: Any) -> Any:
    """Divide once; None where there is nothing to divide by; per group and currency."""
    if isinstance(numerator, dict):
        parts = cast("dict[Any, Any]", numerator)
        if isinstance(denominator, dict):
            whole = cast("dict[Any, Any]", denominator)
            return {key: _ratio(part, whole.get(key)) for key, part in parts.items()}
        return {key: _ratio(part, denominator) for key, part in parts.items()}
    if numerator is None or not denominator or isinstance(denominator, dict):
        return None
    return numerator / denominator


DERIVED: Final[dict[str, Callable[..., Any]]] = {"ratio": _ratio}
"""Name -> the function of its parts' values. Each accepts None, which a part without value has."""
