"""Archives of any entries, which zipfile and tarfile would refuse to make too."""

import io
import tarfile
import zipfile


def zip_of(path, entries):
    """Entries: (name or ZipInfo, bytes)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in entries:
            z.writestr(name, data)
    return path


def special(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def raw_name(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x")
    info.filename = info.orig_filename = name
    return info


def tar_entry(name: str, kind=tarfile.REGTYPE, data: bytes = b"", link: str = ""):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(data), link
    return info, data


def tar_of(path, entries, mode="w"):
    with tarfile.open(path, mode) as t:
        for info, data in entries:
            t.addfile(info, io.BytesIO(data))
    return path
