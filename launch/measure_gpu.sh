#!/usr/bin/env bash
# Measures what the GPU tables of docs/speed.md hold, on a machine with a GPU.
#
#   bash launch/measure_gpu.sh [OUT]           into OUT (measured): ROW.json, ROW.log, table.md
#
# Needs anigan with its extras `cuda` and `torch` in PATH. It ends after LIMIT seconds (600), in
# the middle of a row if need be: the same command keeps what is finished and measures the rest.
# Exit code 0: all rows are there; 4: some are missing.
#
# ROWS='dcgan64_64 r3gan' takes some of the rows. PLATFORM=cpu BATCH=4 WINDOWS=1 and further flags of
# `anigan bench` behind OUT try the script where there is no GPU.
set -euo pipefail
out=${1:-measured}
shift || true
command -v anigan >/dev/null || {
  echo "error: anigan is not in PATH; activate its environment first" >&2
  exit 2
}
# Row | config | batch | other flags. The first are those that the others are worth less without.
table='
dcgan64_1024 | ref_dcgan64 | 1024 | --peer torch
cyclegan256 | ref_cyclegan | 16 | --method.generator.blocks 4 --peer torch
cartoongan256 | tsinghua_cartoongan | 16 | --method.generator.size 256 --method.discriminator.size 256 --peer torch
r3gan | r3gan_lite | 64 |
dcgan64_512 | ref_dcgan64 | 512 |
dcgan64_64 | ref_dcgan64 | 64 |
cyclegan256_remat | ref_cyclegan | 16 | --method.generator.blocks 4 --method.remat
'
mkdir -p "$out"
end=$((SECONDS + ${LIMIT:-600}))
missing=()
while IFS='|' read -r row config batch flags; do
  read -r row config batch <<<"$row $config $batch"
  [ -n "$row" ] && [[ " ${ROWS:-$row} " == *" $row "* ]] || continue
  [ ! -e "$out/$row.json" ] || continue
  # Less does not even compile what a row needs.
  if ((end - SECONDS < ${LEAST:-60})); then
    missing+=("$row")
    continue
  fi
  read -ra words <<<"$flags"
  echo "$row, $((end - SECONDS)) s left" >&2
  code=0
  # INT, on which it puts its folders away.
  timeout --signal=INT --kill-after=20 "$((end - SECONDS))" \
    anigan bench "$config" --batch "${BATCH:-$batch}" --dtype bfloat16 \
    --windows "${WINDOWS:-2}" --run.platform "${PLATFORM:-gpu}" --json ${words[@]+"${words[@]}"} "$@" \
    >"$out/$row.part" 2>"$out/$row.log" </dev/null || code=$?
  if ((code)); then
    missing+=("$row")
    echo "$row: exit code $code: $(tail -n 1 "$out/$row.log")" >&2
  else
    mv "$out/$row.part" "$out/$row.json"
  fi
done <<<"$table"

python3 - "$out" <<'END'
"""A line for each row that is there: ours, and the best of PyTorch's sides."""

import json
import sys
from pathlib import Path

out = Path(sys.argv[1])
head = (
    "row", "ours", "end to end", "of peak", "not deterministic", "PyTorch's best", "ours / best",
    "GB, ours", "compile s",
)
lines, machines = [head, ("---",) * len(head)], set()
for path in sorted(out.glob("*.json")):
    found = json.loads(path.read_text())
    machines.add(found["machine"])
    sides = {row["side"]: row for row in found["rows"] if "images_per_sec" in row}
    ours, peers = sides.get("ours", {}), [s for s in sides if s.startswith("PyTorch")]
    best = max((sides[name] for name in peers), key=lambda row: row["images_per_sec"], default={})

    def shown(row, name, form, scale=1):
        return format(row[name] / scale, form) if name in row else ""

    speed = shown(best, "images_per_sec", ",.1f")
    lines.append(
        (
            f"{path.stem}: `{found['config']}`, {ours.get('batch', '')}",
            shown(ours, "images_per_sec", ",.1f"),
            shown(ours, "end_to_end", ",.1f"),
            shown(ours, "of_peak", ".0%"),
            shown(sides.get("ours, not deterministic", {}), "images_per_sec", ",.1f"),
            f"{speed} ({best['side']})" if best else "",
            shown(best, "ours_is", ".2f") + ("x" if best else ""),
            shown(ours, "memory_mb", ".1f", 1000),
            shown(ours, "compile_s", ".0f"),
        )
    )
text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
title = f"{'; '.join(sorted(machines))}; bfloat16, images/s (pairs/s where two domains are)"
(out / "table.md").write_text(f"{title}\n\n{text}")
print(text, end="")
END
if ((${#missing[@]})); then
  echo "missing: ${missing[*]}; the same command measures them" >&2
  exit 4
fi
