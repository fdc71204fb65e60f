"""Pascal VOC annotation files as XML trees, in the encoding that they declare."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from poise.data.errors import FOLLOW, DataError
from poise.data.files import is_inside, read_bytes
from poise.data.folders import FileTree

_DECLARED = re.compile(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")
_DECLARATION = re.compile(r"\s*<\?xml[^>]*\?>")
_FAMILIES = (
    "utf-8",
    "utf-16",
    "utf-32",
    "iso8859",
    "iso2022",
    "cp",
    "gb",
    "big5",
    "euc",
    "shift",
    "koi8",
    "mac",
    "ascii",
)
_SUPERSETS = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949"}
"""Encodings that programs declare when they write the larger set that Windows calls by the same name."""
_BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_SNIFFED = 5  # files of a folder that are looked into


def decode(content: bytes) -> str:
    """The text of an XML file: by its byte order mark, else its declaration, else UTF-8.

    Raises:
        DataError: an unknown encoding, or bytes that are not text in it.
    """
    declared = _DECLARED.match(content)
    name = next((encoding for mark, encoding in _BYTE_ORDER_MARKS if content.startswith(mark)), None)
    name = name or (declared[1].decode("ascii") if declared else "utf-8")
    try:
        codec = codecs.lookup(name).name
    except LookupError:
        codec = ""
    if not codec.startswith(_FAMILIES):
        raise DataError(f"declares the unknown encoding {name!r}; save it as UTF-8")
    try:
        return content.decode(_SUPERSETS.get(codec, codec)).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        how = f"declares {name}, but is no such text" if declared else "is not UTF-8 and declares no other encoding"
        raise DataError(f"{how} ({error}); write its encoding into its first line, or save it as UTF-8") from error


def parse(content: bytes) -> Element:
    """Root element of an annotation; ``DataError`` for broken XML and for any DOCTYPE (no entities are expanded)."""
    text = _DECLARATION.sub("", decode(content), count=1)
    try:
        tree: Element = fromstring(text, forbid_dtd=True)
    except ParseError as error:
        raise DataError(f"is not valid XML ({error}); write it again") from error
    except DefusedXmlException as error:
        raise DataError("declares a DOCTYPE or entities, which are refused; remove the declaration") from error
    except (ValueError, RecursionError, LookupError) as error:
        raise DataError(f"is not valid XML ({error}); write it again") from error
    if tree.tag != "annotation":
        raise DataError(f"its root element is <{tree.tag[:40]}>, not <annotation>")
    return tree


def read_tree(root: Path, label: str) -> Element:
    """The tree of a file by its path relative to ``root``, inside which it must lie."""
    if not is_inside(root, root / label):
        raise DataError(f"leads out of the data folder ({FOLLOW})")
    return parse(read_bytes(root / label))


def annotation_folders(tree: FileTree) -> list[str]:
    """Folders with XML files of which one of the first is an annotation."""
    return [
        folder
        for folder, names in tree.having((".xml",)).items()
        if any(_is_annotation(tree.root / folder / name) for name in names[:_SNIFFED])
    ]


def _is_annotation(path: Path) -> bool:
    try:
        return "<annotation" in decode(read_bytes(path))
    except DataError:
        return False
