"""Draws a picture of each product, so that the demo's email looks like a shop's without any download."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence

from examples.shop.synthetic import Product

SHAPES = {
    "shoes": '<path d="M70 120c0 22 4 40 4 40h170c14 0 18-8 18-16 0-22-44-20-66-40-12-11-22-30-34-34l-26 14c-8 18-34 40-66 36z"/><path d="M74 160h188v14H74z" fill="#fff" fill-opacity=".85"/>',
    "jackets": '<path d="M120 50l-54 26-16 92 34 8 10-44v66h132v-66l10 44 34-8-16-92-54-26c-8 18-72 18-80 0z"/><path d="M158 68h4v130h-4z" fill="#fff" fill-opacity=".85"/>',
    "bags": '<path d="M76 96h168l14 100H62z"/><path d="M118 96c0-56 84-56 84 0" fill="none" stroke="#fff" stroke-opacity=".85" stroke-width="9"/>',
    "kitchen": '<circle cx="130" cy="128" r="66"/><circle cx="130" cy="128" r="46" fill="#fff" fill-opacity=".25"/><path d="M192 118h100a10 10 0 010 20H192z"/>',
    "lighting": '<path d="M160 40l66 84H94z"/><path d="M154 124h12v62h-12z"/><path d="M116 186h88v12h-88z"/><path d="M112 140l-22 26m118-26l22 26" stroke="#fff" stroke-opacity=".85" stroke-width="7"/>',
    "books": '<path d="M64 62c40-16 78-10 96 8 18-18 56-24 96-8v124c-40-14-78-8-96 8-18-16-56-22-96-8z"/><path d="M158 70h4v122h-4z" fill="#fff" fill-opacity=".85"/>',
    "outdoor": '<path d="M160 44l112 146H48z"/><path d="M160 96l48 94h-96z" fill="#fff" fill-opacity=".4"/>',
    "kids": '<path d="M160 40l58 62-58 74-58-74z"/><path d="M160 40v136M102 102h116" stroke="#fff" stroke-opacity=".85" stroke-width="5"/><path d="M160 176c-22 14 16 22-6 36" fill="none" stroke="#fff" stroke-opacity=".85" stroke-width="5"/>',
}  # fmt: skip
"""One flat shape a category, on a canvas of 320 by 240."""

HUES = {"shoes": 18, "jackets": 205, "bags": 32, "kitchen": 158, "lighting": 46, "books": 265, "outdoor": 128,
        "kids": 338}  # fmt: skip


def picture(product: Product, *, wide: bool) -> str:
    """Return a picture of a product as SVG.

    Args:
        product: Which.
        wide: For the hero, twice as wide as high; else 4 by 3.
    """
    hue = HUES[product.category] + int(product.product_id[-2:]) * 2
    width, height = (536, 260) if wide else (320, 240)
    shift = f"translate({(width - 320) // 2} {(height - 240) // 2})"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f'<rect width="{width}" height="{height}" fill="hsl({hue} 38% 88%)"/>'
        f'<g transform="{shift}" fill="hsl({hue} 42% 42%)">{SHAPES[product.category]}</g></svg>'
    )


def with_pictures(html: str, products: Sequence[Product]) -> str:
    """Return an email's HTML with the pictures in place of their addresses, for a browser without a shop."""
    by_id = {product.product_id: product for product in products}

    def drawn(tag: re.Match[str]) -> str:
        product = by_id.get(tag["id"])
        if product is None:
            return tag[0]
        svg = picture(product, wide='width="536"' in tag[0])
        raw = base64.b64encode(svg.encode()).decode()
        return tag[0].replace(tag["url"], f"data:image/svg+xml;base64,{raw}")

    return re.sub(
        r'<img[^>]*src="(?P<url>https://shop\.example/img/(?P<id>[^"/]+)\.png)"[^>]*>', drawn, html
    )
