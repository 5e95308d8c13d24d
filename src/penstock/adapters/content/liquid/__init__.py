"""Liquid by python-liquid: the project's templates parsed once, rendered within limits."""

from penstock.adapters.content.liquid.metering import Limits
from penstock.adapters.content.liquid.renderer import LiquidRenderer, UndefinedName

__all__ = ["Limits", "LiquidRenderer", "UndefinedName"]
