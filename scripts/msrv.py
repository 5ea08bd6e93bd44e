#!/usr/bin/env python3
"""Is any crate that is built newer than the Rust that the workspace says is enough?

A compiler that old is the better test; where there is none, this says what the crates themselves state. What std has
since then is clippy's lint `incompatible_msrv`, which is on.
"""

import json
import subprocess
import sys


def version(text):
    numbers = [int(n) for n in text.split(".")]
    return tuple(numbers + [0] * (3 - len(numbers)))


command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"]
metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
packages = {p["id"]: p for p in metadata["packages"]}
ours = [packages[member] for member in metadata["workspace_members"]]
without = [p["name"] for p in ours if not p["rust_version"]]
if without:
    sys.exit(f"msrv: no `rust-version.workspace = true` in {', '.join(without)}")
stated = ours[0]["rust_version"]
built = [packages[node["id"]] for node in metadata["resolve"]["nodes"]]
newer = [p for p in built if p["rust_version"] and version(p["rust_version"]) > version(stated)]
for p in newer:
    print(f"msrv: {p['name']} {p['version']} needs Rust {p['rust_version']}, rust-version is {stated}", file=sys.stderr)
silent = sum(p["rust_version"] is None for p in built)
print(f"msrv: {len(built)} crates, {len(newer)} need more than Rust {stated}, {silent} do not say")
sys.exit(bool(newer))
