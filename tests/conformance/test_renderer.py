"""The renderer's conformance suite, run on the adapter that is shipped."""

from penstock.adapters.content.liquid import LiquidRenderer
from penstock.testing.conformance.renderer import RendererConformance


class TestLiquidRenderer(RendererConformance):
    def make(self, root):
        return LiquidRenderer(root)
