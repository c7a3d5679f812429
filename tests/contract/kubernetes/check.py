"""check.py FILE: holds each object that was created (one line of JSON each) against Kubernetes' own published schemas, unknown fields refused.

A real API server only warns of unknown fields, and drops them. The oldest and the newest release that the validator knows: what is sent must be
understood by both.
"""

import copy
import json
import sys

import kubernetes_validate

VERSIONS = ("1.25", "1.37")


def faults(thing):
    found = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(thing, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"{version}: {'.'.join(str(part) for part in error.path)}: {error.message}")
    return found


def self_test():
    container = {"name": "x", "image": "x"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": {"backoffLimit": 0, "template": template}}
    assert not faults(job), faults(job)

    def broken(change):
        changed = copy.deepcopy(job)
        change(changed)
        return faults(changed)

    assert broken(lambda it: it["spec"]["template"]["spec"].update(restartpolicy="Never")), "an unknown field"
    assert broken(lambda it: it["spec"].update(backoffLimit="0")), "a text for a number"
    assert broken(lambda it: it["spec"]["template"]["spec"]["containers"][0].pop("name")), "a missing field"


def main(path):
    if path == "--self-test":
        return self_test()
    with open(path, encoding="utf-8") as file:
        things = [json.loads(line) for line in file]
    kinds = {thing["kind"] for thing in things}
    bad = 0
    for thing in things:
        for fault in faults(thing):
            bad += 1
            print(f"{thing['kind']} {thing['metadata']['name']}: {fault}")
    print(f"{len(things)} objects ({', '.join(sorted(kinds))}) against the schemas of {' and '.join(VERSIONS)}: {bad} faults")
    # A recording of nothing proves nothing.
    return 1 if bad or kinds != {"Job", "Secret"} else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
