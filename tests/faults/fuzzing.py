"""Random command lines, garbled files and damaged stores, drawn from a given source of chance."""

import pathlib
import random
import sqlite3

TEXTS = (
    "", " ", "0", "-1", "1e999", "nan", "inf", "9" * 400, "1,2", ",", "ü", "\x1b[2J", "\udcff", "$x_1$", "a=b", "a=",
    "=", "a={", "a=(1,2)", "a=[[]]", "x" * 3000, "../..", "/nowhere/x", "~nosuchuser", "~", "%", "100%", "-5%", "6GiB",
    "6 GiB", "auto", "0B", "1e-3", "True", "None", "spirals:make", "spirals:make@cpu:ours#", "@", "#", "a.py:f", "a.py",
    "json:dumps", "no.such.module:f", "\n", "'", '"', "{", "file:x", "sqlite://", "postgresql://h:1/x", "cpu",
    "h100-80gb",
)  # fmt: skip
"""What people and programs may write where a name, a number or a path is wanted."""

COMMANDS = {
    ("profiles", "list"): ("--format",),
    ("profiles", "show"): ("--format",),
    ("profiles", "export"): (),
    ("profiles", "import"): (),
    ("recommend",): (
        "--budget", "--horizon", "--tolerance", "--set", "--margin", "--objective", "--xla-flags", "--format",
    ),
    ("schedule",): ("--steps", "--checkpoints", "--expected-steps", "--format"),
    ("plan",): ("--devices", "--horizons", "--tolerances", "--max-recompute", "--margin", "--host-budget", "--format"),
    ("compare",): ("--format",),
    ("device", "--catalogue"): ("--format",),
}  # fmt: skip
"""Commands that measure nothing, with options that take a value."""

ARGUMENTS = {
    ("profiles", "show"): 1, ("profiles", "export"): 2, ("profiles", "import"): 1, ("recommend",): 1, ("plan",): 1,
    ("compare",): 2,
}  # fmt: skip
NO_STORE = (("schedule",), ("device", "--catalogue"))


def words_of_a_command(chance: random.Random) -> list[str]:
    """Draw a command line: a command, its arguments, some of its options, sometimes one word too many or too few."""
    command = chance.choice([one for one in COMMANDS if one not in NO_STORE or chance.random() < 0.5])
    words = list(command)
    for _ in range(ARGUMENTS.get(command, 0)):
        words.append("spirals:make" if chance.random() < 0.6 else chance.choice(TEXTS))
    if command == ("recommend",):
        words.append("--force")
    if command == ("schedule",):
        words += ["--steps", str(chance.choice((1, 7, 100, 10**6))), "--checkpoints", str(chance.choice((1, 3, 10**6)))]
    for option in chance.sample(COMMANDS[command], chance.randint(0, min(3, len(COMMANDS[command])))):
        words += [option, chance.choice(TEXTS)]
    if chance.random() < 0.1:
        words.insert(chance.randint(1, len(words)), chance.choice(TEXTS))
    return words


def garbled(data: bytes, chance: random.Random) -> bytes:
    """Change a file: flip bits, cut it, double a part, put other values in the places of its own."""
    changed = bytearray(data)
    how = chance.choice(("flip", "cut", "double", "value", "empty"))
    at = chance.randrange(len(data))
    if how == "flip":
        for _ in range(chance.randint(1, 20)):
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    elif how == "cut":
        del changed[at:]
    elif how == "double":
        changed[at:at] = data[max(0, at - 200) : at]
    elif how == "value":
        values = (
            b"1e999",
            b"-1",
            b"null",
            b"[]",
            b"{}",
            b'"x"',
            b"NaN",
            b"2" * 40,
            b"0001-01-01T00:00:00+14:00",
            b"[" * 5000,
        )
        for old in (b"1.25", b"2.5", b"100", b"120", b"3000000", b"2026-05-04", b'"cpu"', b"ours"):
            if chance.random() < 0.4:
                changed = bytearray(bytes(changed).replace(old, chance.choice(values), chance.randint(1, 6)))
    else:
        changed = bytearray(chance.randbytes(chance.choice((0, 1, 300))))
    return bytes(changed)


def damaged(store: pathlib.Path, path: pathlib.Path, chance: random.Random) -> None:
    """Write a damaged copy of an SQLite store."""
    with sqlite3.connect(store) as source, sqlite3.connect(path) as copy:
        source.backup(copy)
    source.close()
    copy.close()
    if chance.random() < 0.1:
        with sqlite3.connect(path) as newer:
            newer.execute("INSERT INTO ckpt_tune_schema VALUES (99, 'later', 'later')")
        newer.close()
        return
    data = bytearray(path.read_bytes())
    how = chance.choice(("flip", "cut", "zero"))
    if how == "flip":
        for _ in range(chance.randint(1, 60)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif how == "cut":
        del data[chance.randrange(len(data)) :]
    else:
        page = 4096 * chance.randrange(len(data) // 4096)
        data[page : page + 4096] = bytes(4096)
    path.write_bytes(data)
