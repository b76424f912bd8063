#!/usr/bin/env python3
"""Takes the guards of tenants and permissions away one by one, as guards.toml says, and runs the tests that have to see it.

    guards.py [NAME...]     (scripts/prove guards; the stack is up, on the native host, with the program that `guards.py --build FOLDER` made)

The product is built once: in a copy of it each guarded expression becomes `if ASTRA_GUARD names it { what is there without the guard } else { the guard }`, so that taking one away
is a restart. What cannot be switched so (an attribute) is built apart. Guards of the database are changed in the database that runs, and made good again.

Prints a table in Markdown, and fails when a guard is missed, when its text is not there once, or when the tests fail with all guards in place.
"""

import argparse, json, os, pathlib, re, shutil, subprocess, sys, time, tomllib

TESTS = pathlib.Path(__file__).resolve().parent
ROOT = TESTS.parent
LIMIT = 300  # seconds: tests that do not end by then have seen it, too


def guards():
    return tomllib.loads((TESTS / "guards.toml").read_text())["guard"]


def is_apart(guard):
    return guard["old"].startswith("#[")


def switched(guard):
    """An expression, or what follows an `if`."""
    old, new = (guard[key].removeprefix("if ") for key in ("old", "new"))
    word = "if " if guard["old"].startswith("if ") else ""
    tail = "then(" if old.endswith(".then(") else ""
    old, new = old.removesuffix(".then("), new.removesuffix(".then(")
    choice = f'(if ::std::env::var_os("ASTRA_GUARD").is_some_and(|g| g == "{guard["name"]}") {{ {new} }} else {{ {old} }})'
    return word + choice + ("." + tail if tail else "")


class Copy:
    """The product in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.target = os.environ.get("GUARDS_TARGET") or str(folder.parent / "target")

    def make(self, chosen):
        """What differs is written, and nothing else: the rest is built already."""
        text = self.changed(chosen)
        listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
        for name in listed:
            source, copy = ROOT / name, self.folder / name
            if not source.is_file():
                continue
            wanted = text[name].encode() if name in text else source.read_bytes()
            if not (copy.is_file() and copy.read_bytes() == wanted):
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(wanted)

    def changed(self, chosen):
        """The files of guards, by their names, with all of these guards switched."""
        text = {guard["file"]: (ROOT / guard["file"]).read_text() for guard in chosen}
        for guard in chosen:
            file = guard["file"]
            if text[file].count(guard["old"]) != 1:
                raise RuntimeError(f"{guard['name']}: its text is in {file} {text[file].count(guard['old'])} times")
            text[file] = text[file].replace(guard["old"], guard["new"] if is_apart(guard) else switched(guard))
        return text

    def build(self):
        return cargo(["build", "--quiet", "--package", "astra-edge"], self.folder, self.target)

    def test(self, crate, name):
        """What fails of a crate's own tests."""
        environment = {"ASTRA_GUARD": name, "PROPTEST_CASES": "200", "RUST_BACKTRACE": "0"}
        return failed(cargo(["test", "--quiet", "--package", crate, "--no-fail-fast"], self.folder, self.target, environment))


def cargo(arguments, folder, target, more={}):
    environment = os.environ | {"CARGO_TARGET_DIR": target} | more
    return subprocess.run(["cargo", *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def failed(done):
    """The names of the tests that failed; None when none did."""
    if done.returncode == 0:
        return None
    names = re.findall(r"^    (\S+::\S+|[a-z_0-9]{12,})$", done.stdout, re.M)
    if not names:
        raise RuntimeError("no test failed, but something did:\n" + done.stdout[-1500:])
    return sorted(set(names))


class Suite:
    def __init__(self):
        done = subprocess.run(["cargo", "test", "--quiet", "--package", "astra-tests", "--test", "suite", "--no-run", "--message-format=json"],
                              cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)  # fmt: skip
        made = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        self.program = next(m["executable"] for m in made if m.get("executable") and m["target"]["name"] == "suite")

    def run(self, tests):
        try:
            return failed(subprocess.run([self.program, "--test-threads", "6", *tests.split()], cwd=TESTS, env=os.environ | {"RUST_BACKTRACE": "0"},
                                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT))  # fmt: skip
        except subprocess.TimeoutExpired:
            return ["they do not end"]


class Database:
    def run(self, sql):
        done = subprocess.run([f"{os.environ['ASTRA_PG_BIN']}/psql", "-X", "-q", "-A", "-t", "-1", "-v", "ON_ERROR_STOP=1", os.environ["ASTRA_ADMIN_DATABASE_URL"], "-f", "-"],
                              input=sql, capture_output=True, text=True)  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return done.stdout.rstrip("\n")

    def without(self, guard):
        """Takes it away; how it is made good again."""
        undo = guard.get("undo", "")
        if function := guard.get("function"):
            is_as_it_was = self.run(f"SELECT pg_get_functiondef('{function}'::regprocedure)")
            if is_as_it_was.count(guard["old"]) != 1:
                raise RuntimeError(f"its text is in {function} {is_as_it_was.count(guard['old'])} times")
            undo = f"{is_as_it_was};\n{undo}"
            changed = is_as_it_was.replace(guard["old"], guard["new"])
            self.run(f"{changed};\n{guard.get('sql', '')}")
        else:
            self.run(guard["sql"])
        return lambda: self.run(undo)


def restart(name):
    done = subprocess.run([os.environ["ASTRA_STACK"], "restart", "functions"], env=os.environ | {"ASTRA_GUARD": name}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError("the functions do not start: " + done.stdout[-300:].replace("\n", " "))


def with_program(copy):
    """What was built is what the stack runs from its next restart on."""
    bin = pathlib.Path(os.environ["ASTRA_DEV_DIR"]) / "bin" / "astra-edge"
    shutil.copy(f"{copy.target}/debug/astra-edge", f"{bin}.new")
    os.replace(f"{bin}.new", bin)


def seen(guard, copy, suite, database):
    if "file" not in guard:
        good_again = database.without(guard)
        try:
            return suite.run(guard["tests"])
        finally:
            good_again()
    if crate := guard.get("crate"):
        return copy.test(crate, guard["name"])
    if is_apart(guard):
        copy.make([other for other in guards() if "file" in other and (not is_apart(other) or other["name"] == guard["name"])])
        if (done := copy.build()).returncode != 0:
            raise RuntimeError(done.stdout[-1500:])
        with_program(copy)
    restart(guard["name"])
    return suite.run(guard["tests"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--only-build", action="store_true")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    every = guards()
    chosen = [guard for guard in every if not options.names or any(name in guard["name"] for name in options.names)]
    copy = Copy(options.build / "workspace")
    if options.only_build:
        copy.make([guard for guard in every if "file" in guard and not is_apart(guard)])
        done = copy.build()
        sys.exit(done.stdout if done.returncode else 0)
    suite, database, lines, missed = Suite(), Database(), [], []
    restart("none")
    # With all of them in place nothing fails: else what is seen would say nothing.
    named = " ".join(sorted({test for guard in chosen for test in guard.get("tests", "").split()}))
    if wrong := suite.run(named) if named else None:
        sys.exit(f"with all guards in place: {wrong}")
    for crate in sorted({guard["crate"] for guard in chosen if "crate" in guard}):
        if wrong := copy.test(crate, "none"):
            sys.exit(f"with all guards in place, {crate}: {wrong}")
    # The database's first, with the guards of the program in place; what is built apart last.
    chosen.sort(key=lambda guard: ("file" in guard, "file" in guard and is_apart(guard)))
    for guard in chosen:
        began = time.monotonic()
        try:
            by = seen(guard, copy, suite, database)
            said = "**nothing**"
        except RuntimeError as error:
            by, said = None, f"**{error}**"
        caught = ", ".join(f"`{'::'.join(name.split('::')[-2:])}`" for name in by[:4]) + (f" and {len(by) - 4} more" if len(by) > 4 else "") if by else said
        where = guard.get("file") or guard.get("function") or "`" + guard["sql"].replace("|", "/") + "`"
        lines.append(f"| {guard['name']} | {where} | {caught} | {time.monotonic() - began:.0f} |")
        print(f"{len(lines)}/{len(chosen)} {lines[-1]}", file=sys.stderr, flush=True)
        if not by:
            missed.append(guard["name"])
    restart("none")
    print("\n".join(["| guard | where | seen by | s |", "|---|---|---|--:|", *lines]))
    if missed:
        sys.exit(f"{len(missed)} of {len(chosen)} are missed: {', '.join(missed)}")


main()
