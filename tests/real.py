"""The real sets, where the developer has them; their tests skip with a reason elsewhere."""

import os
from pathlib import Path

import pytest

DATA = Path(
    os.environ.get("ANIGAN_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)
needs_data = pytest.mark.skipif(
    not (DATA / "ATTRIBUTION.md").exists(),
    reason=f"the real sets are not at {DATA} (ANIGAN_TEST_DATA)",
)
