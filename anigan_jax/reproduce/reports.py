"""The five reports by name."""

from __future__ import annotations

from anigan_jax.reproduce import aiub, csc412, sjtu, tsinghua, ucsd

REPORTS = {m.REPORT.name: m.REPORT for m in (sjtu, tsinghua, csc412, aiub, ucsd)}
