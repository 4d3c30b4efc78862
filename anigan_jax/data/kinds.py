"""Which kind of file some bytes are, and which kinds are taken."""

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
# How a picture of another kind becomes one that is taken.
CONVERT = {
    **dict.fromkeys(("HEIC", "AVIF"), "; convert it: magick mogrify -format jpg FILE"),
    **dict.fromkeys(("TIFF", "GIF", "PSD", "JPEG 2000"), "; magick mogrify -format png FILE"),
    "ZIP archive": "; an archive within an archive is not read: unpack it once",
    "GZIP archive": "; unpack it once",
}


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
        ("ZIP archive", 0, b"PK\3\4"),
        ("GZIP archive", 0, b"\x1f\x8b"),
        ("SVG", 0, b"<svg"),
        ("XML or SVG", 0, b"<?xml"),
        ("HTML", 0, b"<!DOCTYPE html"),
        ("HTML", 0, b"<html"),
        ("Git LFS pointer", 0, b"version https://git-lfs"),
    ):
        if head[offset : offset + len(magic)].lower() == magic.lower():
            return name
    return ""
