"""Numbers as people write them. Imports nothing heavy."""


def readable(number: float) -> str:
    """8/255 rather than 0.03137254901960784, and 300 rather than 300.0; no two numbers share a text."""
    count, text = round(number * 255), f"{number:g}"
    return (
        f"{count}/255" if float(text) != number and count / 255 == number else repr(number).removesuffix(".0")
    )
