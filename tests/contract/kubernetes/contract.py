"""Holds each object that was created (one line of JSON each) against Kubernetes' own published schemas, unknown fields refused.

A real API server only warns of unknown fields, and drops them. The oldest and the newest release that the validator knows: what is sent must be
understood by both.
"""

import copy
import json

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


WHAT = f"the schemas of {' and '.join(VERSIONS)}"


def faults_of(line):
    return list(faults(json.loads(line)))


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


def is_whole(lines):
    return {json.loads(line)["kind"] for line in lines} == {"Job", "Secret"}
