"""Holds each recorded EC2 request (one urlencoded form a line) against botocore's own model of EC2.

AWS would refuse a misspelt parameter; emulators ignore it. Unknown names at any depth, wrong types, values outside an enumeration and
missing required members are faults.
"""

import re
from urllib.parse import parse_qsl

from botocore.loaders import Loader
from botocore.model import ServiceModel

VERSION = "2016-11-15"
model = ServiceModel(Loader().load_service_model("ec2", "service-2", VERSION), "ec2")


def wire_name(shape, name):
    """EC2's query protocol: queryName, else the location name with its first letter raised, else the member's own name."""
    serialization = shape.serialization
    location = serialization.get("name")
    return serialization.get("queryName") or (location[0].upper() + location[1:] if location else name)


def tree(pairs):
    """Makes `A.1.B=x` a nested dictionary."""
    root = {}
    for key, value in pairs:
        node = root
        *path, last = key.split(".")
        for part in path:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                return {"": f"`{key}` is both a value and a structure"}
        node[last] = value
    return root


def faults(shape, value, where):
    kind = shape.type_name
    if kind == "structure":
        return structure_faults(shape, value, where)
    if kind == "list":
        return list_faults(shape, value, where)
    if isinstance(value, dict):
        return [f"{where}: a {kind} was expected, not a structure"]
    return scalar_faults(shape, kind, value, where)


def structure_faults(shape, value, where):
    if not isinstance(value, dict):
        return [f"{where}: a structure was expected"]
    members = {wire_name(member, name): (name, member) for name, member in shape.members.items()}
    found = []
    for key, inner in value.items():
        if key in members:
            found += faults(members[key][1], inner, f"{where}.{key}")
        else:
            found.append(f"{where}: unknown parameter `{key}`")
    required = {wire for wire, (name, _) in members.items() if name in shape.required_members}
    return found + [f"{where}: `{wire}` is missing" for wire in sorted(required - value.keys())]


def list_faults(shape, value, where):
    if not isinstance(value, dict):
        return [f"{where}: a list is numbered: `{where}.1`"]
    numbers = sorted(value, key=lambda key: (len(key), key))
    if numbers != [str(n + 1) for n in range(len(numbers))]:
        return [f"{where}: a list is numbered from 1, found {numbers}"]
    return [fault for number, inner in value.items() for fault in faults(shape.member, inner, f"{where}.{number}")]


def scalar_faults(shape, kind, value, where):
    if kind in ("integer", "long") and not re.fullmatch(r"-?\d+", value):
        return [f"{where}: `{value}` is no {kind}"]
    if kind == "boolean" and value not in ("true", "false"):
        return [f"{where}: `{value}` is no boolean"]
    if kind == "string" and shape.enum and value not in shape.enum:
        return [f"{where}: `{value}` is none of {', '.join(shape.enum[:8])}…"]
    return []


def check(form):
    pairs = parse_qsl(form, keep_blank_values=True, strict_parsing=True)
    action = dict(pairs).get("Action")
    if action not in model.operation_names:
        return action, [f"unknown action `{action}`"]
    found = [] if dict(pairs).get("Version") == VERSION else [f"the version is not {VERSION}"]
    shape = model.operation_model(action).input_shape
    rest = tree([(key, value) for key, value in pairs if key not in ("Action", "Version")])
    return action, found + faults(shape, rest, action)


WHAT = "botocore's model of EC2"


def faults_of(line):
    return check(line)[1]


def self_test():
    good = f"Action=RunInstances&Version={VERSION}&MinCount=1&MaxCount=1&MetadataOptions.HttpTokens=required&TagSpecification.1.Tag.1.Key=a"
    cases = {
        good: False,
        good.replace("HttpTokens", "HttpToken"): True,
        good.replace("=required", "=require"): True,
        good.replace("&MaxCount=1", ""): True,
        good.replace("MinCount=1", "MinCount=one"): True,
        good.replace("Tag.1.Key", "Tags.1.Key"): True,
        good.replace("TagSpecification.1", "TagSpecification.0"): True,
        good.replace("RunInstances", "RunInstance"): True,
    }
    wrong = [form for form, faulty in cases.items() if bool(check(form)[1]) != faulty]
    assert not wrong, wrong
