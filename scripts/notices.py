#!/usr/bin/env python3
"""Writes the notices of others' work that is in the program: what it is, its licence, the texts that come with it.

That is of the crates that cargo links for this system, of what they bring in other languages, and of Rust's standard
library. Crates of macros count, for what they write is compiled in; those that only run in a build do not. Fails where
there is neither a licence nor a text of one. Usage: scripts/notices.py > FILE
"""

import html
import os
import pathlib
import re
import subprocess
import sys

LICENCE = re.compile(r"(un)?licen[sc]e|copying", re.I)
NAMED = re.compile(LICENCE.pattern + "|copyright|notice|authors|patents", re.I)
CODE = {".rs", ".c", ".h", ".py", ".toml", ".js"}
NOT_BUILT = {"benches", "examples", "tests"}
# Of Zstandard's two licences the other one is taken, which stands beside.
NOT_CHOSEN = {("zstd-sys", "zstd/COPYING")}
# What crates have within themselves of others, without a file that says so: what, its licence, the file that has it,
# and its notices there, if there are any.
WITHIN = {
    "libsqlite3-sys": [("SQLite", "public domain", "sqlite3/sqlite3.h", r"\A/\*.*?\*/")],
    "plotly": [
        ("plotly.js", "MIT AND BSD-3-Clause", "resource/plotly.min.js", r"^/\*[*!]$.*?\*/|^/\*! .*?\*/"),
        ("MathJax", "Apache-2.0", "resource/tex-svg-3.2.2.js", None),
    ],
}


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def plain(text):
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")


def read(path):
    return plain(path.read_text(encoding="utf-8", errors="replace"))


def texts_of(crate, folder):
    """Files of licences and notices, by their names."""
    for path in sorted(folder.rglob("*")):
        within = path.relative_to(folder)
        is_named = NAMED.match(path.name) or LICENCE.match(path.parent.name)
        if is_named and path.is_file() and path.suffix not in CODE and not NOT_BUILT & set(within.parts):
            if (crate, str(within)) not in NOT_CHOSEN:
                yield str(within), read(path)


def notices_in(path, what, pattern):
    """Notices in a file of code; a file that is gone, or says something else, is to be looked for."""
    words = read(path) if path.exists() else ""
    found = re.findall(pattern or re.escape(what), words, re.S | re.M)
    if not found:
        sys.exit(f"notices: nothing of {what} in {path}: look where it is now, and change WITHIN")
    return [(path.name, plain("\n".join(found)))] if pattern else []


os.chdir(pathlib.Path(__file__).resolve().parent.parent)
rustc = dict(line.split(": ", 1) for line in run("rustc", "-vV").splitlines() if ": " in line)
rust = pathlib.Path(run("rustc", "--print", "sysroot").strip()) / "share/doc/rust"
sources = pathlib.Path(os.environ.get("CARGO_HOME") or pathlib.Path.home() / ".cargo") / "registry/src"

# Name, licence, where it comes from, texts by their names.
parts = []
# `cargo metadata` would want the sources of what only other systems, tests and features have
tree = ["cargo", "tree", "--locked", "--offline", "-p", "tcpprobe", "-e", "normal", "--target", rustc["host"]]
for line in sorted(set(run(*tree, "--prefix", "none", "--no-dedupe", "--format", "{p}|{l}|{r}").split("\n"))):
    if not line or f" ({os.getcwd()}" in line:
        continue
    package, licence, repository = line.split("|")
    name, version = package.split()[:2]
    crate = f"{name}-{version.removeprefix('v')}"
    folder = next(sources.glob(f"*/{crate}"), None)
    if not folder:
        sys.exit(f"notices: no sources of {crate} in {sources}: `cargo fetch` brings them")
    parts.append((crate, licence, repository, list(texts_of(name, folder))))
    for what, licence, file, pattern in WITHIN.get(name, []):
        parts.append((f"{what} in {crate}", licence, repository, notices_in(folder / file, what, pattern)))
texts = []
if (page := rust / "COPYRIGHT-library.html").exists():
    words = html.unescape(re.sub(r"<[^>]*>", "", read(page)))
    texts.append((page.name, re.sub(r"\n(\s*\n){2,}", "\n\n", words)))
library = f"Rust's standard library, {rustc['release']}"
parts.append((library, "MIT OR Apache-2.0", "https://github.com/rust-lang/rust", texts))

lines, without, numbers = [], [], {}
for name, licence, repository, texts in parts:
    if not licence and not texts:
        sys.exit(f"notices: {name} has neither a licence nor a text of one: ask at {repository}")
    lines.append(f"{name}: {licence or 'as its text says'}")
    if not any(LICENCE.match(pathlib.Path(file).name) or file == page.name for file, _ in texts):
        if licence != "public domain":
            without.append(name)
            lines.append(f"    has no text of its licence; it comes from {repository}")
        # as it is commonly worded
        common = [rust / f"licenses/{word}.txt" for word in re.findall(r"[\w.-]+", licence)]
        texts = texts + [(f"common {path.name}", read(path)) for path in common if path.exists()]
    for file, text in texts:
        number, _ = numbers.setdefault(" ".join(text.split()), (len(numbers) + 1, text))
        lines.append(f"    {file}: text {number}")

counts = f"{len(parts)} works, {len(without)} of them without a text of their licence"
print(f"Work of others that is in tcpprobe, with its licence and the texts, below, that came with it.\n{counts}.\n")
print("\n".join(lines))
for number, text in numbers.values():
    print(f"\n{'=' * 80}\nText {number}\n{'=' * 80}\n\n{text}")
print(f"notices: {counts}: {', '.join(without)}", file=sys.stderr)
