"""Models that come with the package: trained on painted faces, which nobody owns.

How each was trained: docs/export.md, "Models that come with the package".
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
NAMES = tuple(sorted(f"painted/{file.stem}" for file in (HERE / "painted").glob("*.safetensors")))
"""What each is called where a run is asked for."""


def file_of(name: str | Path) -> Path | None:
    """The weights of a model by its name; None where none is called so."""
    return HERE / f"{Path(name)}.safetensors" if str(name) in NAMES else None


def hint(name: str | Path) -> str:
    """What to add to the news that a path does not exist, where it begins as these names do."""
    begins = Path(name).parts[:1] == ("painted",)
    return f"; the models that come with the package are {', '.join(NAMES)}" if begins else ""
