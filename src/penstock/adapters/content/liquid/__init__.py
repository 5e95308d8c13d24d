"""Liquid by python-liquid: the project's templates parsed once, rendered within limits."""

from penstock.adapters.content.liquid.metering import Limits
from penstock.adapters.content.liquid.names import ANY, Each, Misnamed, Shape
from penstock.adapters.content.liquid.renderer import LiquidRenderer

__all__ = ["ANY", "Each", "Limits", "LiquidRenderer", "Misnamed", "Shape"]
