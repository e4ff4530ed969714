"""CHECKSUM and DATASUM of FITS files that are written a block at a time.

References
----------
FITS standard 4.0 (Pence et al. 2010, A&A 524, A42, and its update of 2018): section 4.4.2.7, and appendix J (Seaman,
Pence & Rots), the sum of 32-bit words in ones' complement and its sixteen characters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from astropy.io import fits

_ONES = 0xFFFFFFFF
_ZERO = ord("0")
_PUNCTUATION = {*range(0x3A, 0x41), *range(0x5B, 0x61)}  # between digits, capitals and small letters


class DataSum:
    """The sum of the 32-bit words of bytes that come in pieces of any length.

    Parameters
    ----------
    content : bytes
        The first piece.
    """

    def __init__(self, content: bytes = b"") -> None:
        self.value = 0
        self._rest = b""
        self.add(content)

    def add(self, content: bytes) -> None:
        """Add the next piece."""
        content = self._rest + content
        whole = len(content) - len(content) % 4
        self._rest = content[whole:]
        words = np.frombuffer(content, ">u4", whole // 4)
        self.value = _carried(self.value + int(words.sum(dtype=np.uint64)))


def sealed(header: fits.Header, data: DataSum) -> bytes:
    """Return a header as bytes, with the sums of the unit that it begins.

    Parameters
    ----------
    header : Header
        Gets the cards DATASUM and CHECKSUM, or these get new values; the number of cards is then the same.
    data : DataSum
        Of the data behind it with their padding.
    """
    header["DATASUM"] = (str(data.value), "sum of the words of the data")
    header["CHECKSUM"] = ("0" * 16, "makes the sum of the whole unit -0")
    total = DataSum(header.tostring().encode())
    header["CHECKSUM"] = _characters(_ONES - _carried(total.value + data.value))
    return header.tostring().encode()


def _carried(total: int) -> int:
    while total > _ONES:
        total = (total & _ONES) + (total >> 32)
    return total


def _characters(value: int) -> str:
    """Write a number of 32 bits as sixteen letters and digits whose words add up to it beyond those of "0" * 16."""
    columns = []
    for byte in value.to_bytes(4, "big"):
        quarter, rest = divmod(byte, 4)
        four = [_ZERO + quarter + rest, *[_ZERO + quarter] * 3]
        while _PUNCTUATION.intersection(four):
            for first in (0, 2):
                if _PUNCTUATION.intersection(four[first : first + 2]):
                    four[first] += 1
                    four[first + 1] -= 1
        columns.append(four)
    text = "".join(chr(columns[byte][place]) for place in range(4) for byte in range(4))
    return text[-1] + text[:-1]  # since the card's text begins at the last byte of a word
