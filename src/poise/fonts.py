"""Fonts for class names in any script: the first one of the system that has all letters of a text.

Pillow's own font is English. Names in Chinese, Japanese, Korean or other scripts need a font of the system, such as
Noto Sans CJK; where there is none, a class is drawn as its number.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from importlib.util import find_spec

from PIL import ImageFont

SYSTEM_FONTS = (
    "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "NotoSansSC-Regular.otf",
    "SourceHanSans-Regular.ttc", "SourceHanSansSC-Regular.otf", "wqy-microhei.ttc", "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf", "NanumGothic.ttf", "unifont.ttf", "NotoEmoji-Regular.ttf", "Symbola.ttf",
    "PingFang.ttc", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc", "Arial Unicode.ttf",
    "msyh.ttc", "msgothic.ttc", "malgun.ttf", "seguiemj.ttf", "arial.ttf",
)  # fmt: skip


class FontWarning(UserWarning):
    """No font here has the letters of a class name."""


@lru_cache(maxsize=256)
def font_for(size: int, text: str = "") -> ImageFont.FreeTypeFont | None:
    """The first font of ``size`` pixels that has all letters of ``text``; None where none has."""
    own = ImageFont.load_default(size)
    if not isinstance(own, ImageFont.FreeTypeFont):
        raise RuntimeError("this Pillow was built without FreeType; install an ordinary Pillow wheel to draw captions")
    if text.isascii() or _has_letters(own, text):
        return own
    fonts = (system_font(name, size) for name in (*_of_matplotlib(), *SYSTEM_FONTS))
    return next((font for font in fonts if font is not None and _has_letters(font, text)), None)


@lru_cache
def _of_matplotlib() -> tuple[str, ...]:
    """The font that Matplotlib brings along, for other European scripts; the package is not imported for it."""
    spec = find_spec("matplotlib")
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    return tuple(f"{folder}/mpl-data/fonts/ttf/DejaVuSans.ttf" for folder in folders)


@lru_cache(maxsize=256)
def system_font(name: str, size: int) -> ImageFont.FreeTypeFont | None:
    """A font file of the system by its name; None where it is not installed or has no such size."""
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


def readable_name(label: int, name: str) -> str:
    """``name`` where a font has all of its letters, else the number of the class, with one warning a run."""
    if font_for(12, name) is not None:
        return name
    _warn_of_letters(name)
    return str(label)


_warned: set[str] = set()


def _warn_of_letters(name: str) -> None:
    if not _warned:
        _warned.add(name)
        warnings.warn(
            f"no font here has the letters of the class name {name!r}: such classes are drawn as their numbers; "
            "install a font that has them (Debian and Ubuntu: fonts-noto-cjk)",
            FontWarning,
            stacklevel=3,
        )


def _has_letters(font: ImageFont.FreeTypeFont, text: str) -> bool:
    """Whether the font draws each letter as something else than its sign for an unknown one."""
    unknown = font.getmask("\uffff")
    for letter in set(text):
        drawn = font.getmask(letter)
        if not letter.isspace() and drawn.size == unknown.size and bytes(drawn) == bytes(unknown):
            return False
    return True
