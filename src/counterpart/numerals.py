"""Numbers as people write them. Imports nothing heavy."""

import re


def readable(number: float) -> str:
    """8/255 rather than 0.03137254901960784, and 300 rather than 300.0; no two numbers share a text."""
    count, text = round(number * 255), f"{number:g}"
    return (
        f"{count}/255" if float(text) != number and count / 255 == number else repr(number).removesuffix(".0")
    )


def read_fold(text: str) -> tuple[int, int]:
    """Read "2/5" as the numbers K and N.

    Raises:
        ValueError: the text has another form, or K is none of the N folds.
    """
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if count < 2 or not 1 <= number <= count:
        raise ValueError(f"a fold is K/N, such as 1/5 for the first of five, and not {text}")
    return number, count


def as_fraction(value: object) -> object:
    """8/255 -> 0.0314; anything else is returned as it is."""
    match = re.fullmatch(r"\s*([\d.]+)\s*/\s*([\d.]+)\s*", value) if isinstance(value, str) else None
    if match and float(match[2]) > 0:
        return float(match[1]) / float(match[2])
    return value
