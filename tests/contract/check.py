"""check.py CLOUD FILE: holds each request in FILE, one a line, against what the cloud's vendor has published; FILE may be `--self-test`, which
proves that this catches what it must. What each cloud's requests are held against is in CLOUD/contract.py:

WHAT, a name for people; self_test(), which asserts; faults_of(line), a list, or None of a request that nothing is known about; and where some
kinds of requests must have been recorded, is_whole(lines).
"""

import importlib
import os
import sys


def main(cloud, path):
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), cloud))
    contract = importlib.import_module("contract")
    if path == "--self-test":
        contract.self_test()
        return 0
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line for line in file.read().splitlines() if line]
    except OSError as error:
        print(f"error: no recording: {error}", file=sys.stderr)
        return 1
    checked, faulty, seen = [], 0, {}
    for line in lines:
        found = contract.faults_of(line)
        if found is None:
            continue
        checked.append(line)
        faulty += bool(found)
        for fault in found:
            seen[fault] = seen.get(fault, 0) + 1
    for fault, times in seen.items():
        print(f"{fault} ({times} times)", file=sys.stderr)
    print(f"{len(checked)} requests, {faulty} against {contract.WHAT}")
    # A recording of nothing proves nothing.
    is_whole = getattr(contract, "is_whole", bool)
    return 0 if is_whole(checked) and not faulty else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
