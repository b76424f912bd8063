"""Sums the reports of schemathesis.sh, shows what failed, and fails when something did or too little was asked."""

import json
import sys

LEAST_REQUESTS = 2000


def main() -> int:
    requests = failed = 0
    broken = []
    for name in sys.argv[1:]:
        with open(f"{name}.json", encoding="utf-8") as file:
            report = json.load(file)
        cases = report["test_cases"]
        requests += cases["generated"]
        failed += cases["with_failures"]
        for failure in report["failures"]:
            broken.append(f"{name}: {failure['title']} x{failure['count']}: {', '.join(failure['operations'])}")
        broken.extend(f"{name}: error: {error}" for error in report["errors"])
    if broken:
        for name in sys.argv[1:]:
            with open(f"{name}.log", encoding="utf-8") as file:
                sys.stderr.write(file.read())
        print("\n".join(broken), file=sys.stderr)
    print(f"schemathesis: {requests - failed} passed, {failed} failed ({requests} requests)")
    if requests < LEAST_REQUESTS:
        print(f"schemathesis: fewer than {LEAST_REQUESTS} requests: set EXAMPLES higher", file=sys.stderr)
        return 1
    return 1 if broken or failed else 0


sys.exit(main())
