"""Features derived from other features when read: ratio. They keep no state."""

from collections.abc import Callable
from typing import Any, Final


def _ratio(numerator: Any, denominator: Any) -> Any:
    """Divide once; None where there is nothing to divide by; per group and currency."""
    if isinstance(numerator, dict):
        if isinstance(denominator, dict):
            return {key: _ratio(part, denominator.get(key)) for key, part in numerator.items()}
        return {key: _ratio(part, denominator) for key, part in numerator.items()}
    if numerator is None or not denominator or isinstance(denominator, dict):
        return None
    return numerator / denominator


DERIVED: Final[dict[str, Callable[..., Any]]] = {"ratio": _ratio}
"""Name -> the function of its parts' values. Each accepts None, which a part without value has."""
