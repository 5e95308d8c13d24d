"""A decimal number as it was written in JSON: its text, so that no digit passes through a float."""


class Literal(str):
    """The text of a JSON number that has a point or an exponent, such as `19.90`.

    It is the decoder's `float_hook`. No encoder takes it, so that none reaches the log by
    accident: the catalog turns it into an integer, or into a plain text.
    """

    __slots__ = ()
