#!/usr/bin/env python3
"""Changes the rules one by one, as mutations.toml says, in copies of the crate, and runs the crate's tests on each: every change must be seen.

    mutants.py [--jobs N] [--dir DIR] [NAME...]     (scripts/prove mutants)

Prints a table in Markdown and fails if a change is not seen, does not build, or if its text is not there exactly once. On a change first two thousand
schedules are played, then all cases one by one, then the unit tests, then ten thousand schedules; the first that fails has caught it. The
schedules are the same each time.
"""

import argparse, os, pathlib, queue, re, shutil, subprocess, sys, threading, time

CRATE = pathlib.Path(__file__).resolve().parent.parent
ROOT = CRATE.parent.parent
LIMIT = 600  # seconds: what does not end by then has been caught, too

# What is run, and how its catch is called.
STAGES = [
    ("schedules", {"PROPTEST_CASES": "2000"}, ["--test", "machine", "schedules::"]),
    ("cases", {}, ["--test", "machine", "--", "--skip", "schedules::", "--skip", "mutations::"]),
    ("unit tests", {}, ["--lib"]),
    ("schedules", {"PROPTEST_CASES": "10000"}, ["--test", "machine", "schedules::"]),
]


def mutations():
    """Each value of mutations.toml is a literal on one line: no more of TOML is needed."""
    found = []
    for line in (CRATE / "tests/mutations.toml").read_text().splitlines():
        if line == "[[mutation]]":
            found.append({})
        elif match := re.fullmatch(r"(\w+) = '(.*)'", line):
            found[-1][match[1]] = match[2]
    return found


class Copy:
    """The crate and the one that it uses, as a workspace of their own that is built by one worker."""

    def __init__(self, folder):
        self.folder, self.target = folder / "workspace", folder / "target"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for name in ["shared/quota", "shared/kernel"]:
            # As new: what was built from it before had a mutation in it.
            shutil.copytree(ROOT / name, self.folder / name, copy_function=shutil.copyfile)
        for name in ["Cargo.lock", "rust-toolchain.toml"]:
            shutil.copy(ROOT / name, self.folder / name)
        manifest = (ROOT / "Cargo.toml").read_text()
        manifest = re.sub(r"(?m)^members = .*", 'members = ["shared/quota", "shared/kernel"]', manifest)
        manifest = re.sub(r"(?m)^exclude = .*\n", "", manifest)
        manifest = re.sub(r"(?ms)^# Why: its head says\.\n\[patch\.crates-io\].*?(?=^\[|\Z)", "", manifest)
        # A few schedules are played sooner than the code for many is optimised.
        manifest = re.sub(r"(?m)^astra-quota\.opt-level = 2", "astra-quota.opt-level = 0", manifest)
        # Settings for packages that are not there would only be warned of.
        manifest = re.sub(r"(?ms)^\[profile\.release\.package\]\n.*?(?=^\[|\Z)", "", manifest)
        (self.folder / "Cargo.toml").write_text(manifest)

    def test(self, settings, arguments):
        """The exit code (None: it did not end) and what was printed."""
        # Incremental: of the tests, too, only what a mutation touches is built again.
        environment = os.environ | settings | {
            "CARGO_TARGET_DIR": str(self.target), "CARGO_INCREMENTAL": "1", "CARGO_PROFILE_DEV_DEBUG": "0",
            "PROPTEST_RNG_SEED": "1", "PROPTEST_MAX_SHRINK_ITERS": "0", "RUST_BACKTRACE": "0",
        }  # fmt: skip
        command = ["cargo", "test", "--quiet", "--offline", "--package", "astra-quota", *arguments]
        try:
            done = subprocess.run(command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT)
            return done.returncode, done.stdout
        except subprocess.TimeoutExpired:
            return None, ""

    def catch(self, stages=STAGES):
        """What sees that the rules here are not as they should be; None when nothing does."""
        # What failed before would be tried first, and say nothing of how soon it is found.
        shutil.rmtree(self.folder / "shared/quota/proptest-regressions", ignore_errors=True)
        code, said = self.test({}, ["--test", "machine", "--no-run"])
        if code != 0:
            raise RuntimeError("it does not build:\n" + "\n".join(line for line in said.splitlines() if line.startswith("error"))[:600])
        for name, settings, arguments in stages:
            code, said = self.test(settings, arguments)
            if code is None:
                return f"{name}: they do not end"
            if code != 0:
                return f"{name}: {what_failed(said)}"
        return None

    def catch_mutated(self, mutation):
        file = self.folder / "shared/quota/src" / mutation["file"]
        text = (CRATE / "src" / mutation["file"]).read_text()
        if text.count(mutation["old"]) != 1:
            raise RuntimeError(f"its text is there {text.count(mutation['old'])} times")
        file.write_text(text.replace(mutation["old"], mutation["new"]))
        try:
            return self.catch()
        finally:
            file.write_text(text)


def what_failed(said):
    """The test, or after how many schedules which expectation."""
    if played := re.search(r"successes: (\d+)", said):
        reason = re.search(r"Test failed: (.*)", said)
        return f"number {int(played[1]) + 1}, {short(reason[1] if reason else '')}"
    failed = re.findall(r"^    (\S+)$", said.split("failures:")[-1], re.M)
    return ", ".join(f"`{name.split('::')[-1]}`" for name in failed) or said[-300:]


def short(reason):
    """An assertion's own words, without the values that follow them."""
    words = reason.removeprefix("assertion `left == right` failed: ")
    return re.split(r": |\.$", words)[0].strip()[:100].replace("|", "/").replace("`", "")


def work(copy, todo, report):
    while True:
        try:
            mutation = todo.get_nowait()
        except queue.Empty:
            return
        began = time.monotonic()
        try:
            caught = copy.catch_mutated(mutation)
            is_well = caught is not None
        except RuntimeError as error:
            caught, is_well = f"**{error}**", False
        report(mutation, caught or "**nothing**", is_well, time.monotonic() - began)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--dir", type=pathlib.Path, default=ROOT / ".dev/mutants")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    chosen = [m for m in mutations() if not options.names or m["name"] in options.names]
    todo, lines, failed, lock = queue.Queue(), {}, [], threading.Lock()
    for mutation in chosen:
        todo.put(mutation)
    copies = [Copy(options.dir / str(n)) for n in range(min(options.jobs, len(chosen)))]
    # Without a change nothing fails: else a catch would say nothing.
    if caught := copies[0].catch(STAGES[:3]):
        sys.exit(f"the rules as they are: {caught}")

    def report(mutation, caught, is_well, seconds):
        with lock:
            lines[mutation["name"]] = f"| {mutation['name']} | {mutation['breaks']} | {caught} | {seconds:.0f} |"
            print(f"{len(lines)}/{len(chosen)} {lines[mutation['name']]}", file=sys.stderr, flush=True)
            if not is_well:
                failed.append(mutation["name"])

    workers = [threading.Thread(target=work, args=(copy, todo, report)) for copy in copies]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print("| mutation | breaks | caught by | s |\n|---|---|---|---|")
    print("\n".join(lines[mutation["name"]] for mutation in chosen))
    print(f"\n{len(chosen) - len(failed)} of {len(chosen)} mutations were seen.")
    if failed:
        sys.exit("not seen: " + ", ".join(failed))


main()
