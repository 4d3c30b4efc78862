"""Which kind of file some bytes are, and which kinds are taken."""

from pathlib import Path

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
SUFFIXES = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
}
# Pictures and archives that are not taken where images are: a fault, whatever their ending.
PICTURES = ("GIF", "TIFF", "HEIC", "AVIF", "PSD", "ICO", "FITS", "JPEG 2000", "JPEG XL", "PNM",
            "OpenEXR", "XCF")  # fmt: skip
ARCHIVES = ("ZIP archive", "GZIP archive", "RAR archive", "7-Zip archive", "XZ archive",
            "BZIP2 archive", "Zstandard archive")  # fmt: skip
# How a file of another kind becomes one that is taken.
CONVERT = {
    **dict.fromkeys(PICTURES, "; magick mogrify -format png FILE"),
    **dict.fromkeys(("HEIC", "AVIF"), "; convert it: magick mogrify -format jpg FILE"),
    **dict.fromkeys(ARCHIVES, "; unpack it first"),
    "ZIP archive": "; an archive beside images or within another is not read: unpack it first",
    "HTML": "; a download that failed?",
    "Git LFS pointer": "; fetch the file itself: git lfs pull",
}

# What systems and storage devices make: deleted files, thumbnails, a folder's picture.
HIDDEN = (*("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found", "Thumbs.db", "Icon\r"),)


def visible(name: str) -> bool:
    """Whether a file is a user's own, by its name and those of its folders."""
    parts = name.split("/")
    return not any(p in HIDDEN or (p.startswith(".") and p.strip(".")) for p in parts)


JOIN = "These are parts of one file; join them first: cat FILE.* > FILE"
JOIN_ZIP = "These are parts of one zip; join them first: zip -s 0 FILE.zip --out whole.zip"


def joined(path: Path) -> str:
    """How the parts of an archive become one, where a file is one of several."""
    if path.with_suffix(".z01").exists():
        return f". {JOIN_ZIP}"
    return f". {JOIN}" if path.suffix[1:].isdecimal() or path.suffix.startswith(".part") else ""


def kind_of(head: bytes) -> str:
    """Name of a file's kind by its first bytes; '' where unknown."""
    for name, offset, magic in (
        ("PNG", 0, b"\x89PNG\r\n\x1a\n"),
        ("JPEG", 0, b"\xff\xd8\xff"),
        ("BMP", 0, b"BM"),
        ("GIF", 0, b"GIF8"),
        ("TIFF", 0, b"II*\0"),
        ("TIFF", 0, b"MM\0*"),
        ("WEBP", 8, b"WEBP"),
        ("AVIF", 4, b"ftypavi"),
        ("HEIC", 4, b"ftyphei"),
        ("HEIC", 4, b"ftypmif"),
        ("PSD", 0, b"8BPS"),
        ("PDF", 0, b"%PDF"),
        ("PostScript", 0, b"%!PS"),
        ("ICO", 0, b"\0\0\1\0"),
        ("FITS", 0, b"SIMPLE  ="),
        ("JPEG 2000", 0, b"\0\0\0\x0cjP  "),
        ("JPEG XL", 0, b"\xff\x0a"),
        ("JPEG XL", 0, b"\0\0\0\x0cJXL "),
        ("PNM", 0, b"P5\n"),
        ("PNM", 0, b"P6\n"),
        ("PNM", 0, b"P6 "),
        ("OpenEXR", 0, b"v/1\1"),
        ("XCF", 0, b"gimp xcf"),
        ("ZIP archive", 0, b"PK\3\4"),
        ("ZIP archive", 0, b"PK\5\6"),
        ("GZIP archive", 0, b"\x1f\x8b"),
        ("RAR archive", 0, b"Rar!\x1a\7"),
        ("7-Zip archive", 0, b"7z\xbc\xaf'\x1c"),
        ("XZ archive", 0, b"\xfd7zXZ\0"),
        ("BZIP2 archive", 0, b"BZh"),
        ("Zstandard archive", 0, b"\x28\xb5\x2f\xfd"),
        ("Parquet", 0, b"PAR1"),
        ("OLE document", 0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
        ("SVG", 0, b"<svg"),
        ("XML or SVG", 0, b"<?xml"),
        ("HTML", 0, b"<!DOCTYPE html"),
        ("HTML", 0, b"<html"),
        ("Git LFS pointer", 0, b"version https://git-lfs"),
    ):
        if head[offset : offset + len(magic)].lower() == magic.lower():
            return name
    return ""
