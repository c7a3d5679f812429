"""Holds each recorded request to Azure (one JSON object a line) against the types that Microsoft publishes for Python.

Resource Manager refuses some of what it does not know and ignores the rest. Unknown members at any depth, wrong types, values outside an
enumeration, missing required members, and versions of the API that the published client does not speak are faults.
"""

import enum
import importlib
import inspect
import json
import re
import sys
import types
import typing

import typing_extensions

COMPUTE, NETWORK = "azure.mgmt.compute.types", "azure.mgmt.network.types"
# A package of the older kind, with a module for each version of the API: its models say by themselves what they are on the wire.
IDENTITIES = "azure.mgmt.msi.v2023_01_31.models"
# Enumerations that their own documentation calls incomplete.
OUTDATED = ("VirtualMachineSizeTypes",)
# What a request is, by its path; requests that are not here have no types in these packages, and are held against the sandbox only.
KINDS = [
    (r"PUT .*/Microsoft\.Compute/virtualMachines/[^/]+$", COMPUTE, "VirtualMachine"),
    (r"PUT .*/Microsoft\.Network/virtualNetworks/[^/]+$", NETWORK, "VirtualNetwork"),
    (r"PUT .*/Microsoft\.ManagedIdentity/userAssignedIdentities/[^/]+$", IDENTITIES, "Identity"),
]


def members(shape):
    """Names and types of a TypedDict. `__required_keys__` is wrong where a subclass forgets `total=False`: the annotations tell."""
    # The enumerations are named in quotes, and imported for type checkers only.
    package = shape.__module__.rsplit(".", 1)[0]
    names = {**vars(importlib.import_module(f"{package}.models")), **vars(sys.modules[shape.__module__]), "_types": sys.modules[shape.__module__]}
    return typing_extensions.get_type_hints(shape, names, include_extras=True)


def faults(shape, value, where):
    origin, args = typing.get_origin(shape), typing.get_args(shape)
    if str(origin).endswith(("Required", "NotRequired", "Annotated")) or origin in (typing.Annotated,):
        return faults(args[0], value, where)
    if origin in (typing.Union, types.UnionType):
        # `str` stands beside every enumeration for values that are newer than it.
        is_enum = any(inspect.isclass(arg) and issubclass(arg, enum.Enum) for arg in args)
        wanted = [arg for arg in args if arg is not type(None) and not (is_enum and arg is str)]
        attempts = [faults(arg, value, where) for arg in wanted]
        return min(attempts, key=len) if attempts else []
    if origin is typing.Literal:
        return [] if value in args else [f"{where}: {value!r} is none of {args}"]
    if origin in (list, typing.List) or str(origin).endswith("Sequence"):
        if not isinstance(value, list):
            return [f"{where}: no list"]
        return [fault for at, item in enumerate(value) for fault in faults(args[0], item, f"{where}[{at}]")]
    if origin in (dict, typing.Dict) or str(origin).endswith("Mapping"):
        if not isinstance(value, dict):
            return [f"{where}: no map"]
        return [fault for key, item in value.items() for fault in faults(args[1], item, f"{where}.{key}")]
    if inspect.isclass(shape) and shape.__name__ in OUTDATED:
        return of_plain(str, value, where)
    if inspect.isclass(shape) and issubclass(shape, enum.Enum):
        return [] if value in [one.value for one in shape] else [f"{where}: {value!r} is no {shape.__name__}"]
    if typing_extensions.is_typeddict(shape):
        return of_members(shape, value, where)
    return of_plain(shape, value, where)


def of_members(shape, value, where):
    if not isinstance(value, dict):
        return [f"{where}: no object"]
    known = members(shape)
    found = [f"{where}.{name}: unknown" for name in value if name not in known]
    for name, kind in known.items():
        if name in value:
            found += faults(kind, value[name], f"{where}.{name}")
        elif str(typing.get_origin(kind)).endswith(".Required"):
            found.append(f"{where}.{name}: missing")
    return found


def of_model(model, body):
    """The older kind: members by their path, most of them for reading only."""
    where, members = model.__name__, {kind["key"]: (name, kind["type"]) for name, kind in model._attribute_map.items()}
    found = [f"{where}.{kind['key']}: missing" for name, kind in model._attribute_map.items() if model._validation.get(name, {}).get("required") and kind["key"] not in body]
    flat = {**body, **{f"properties.{name}": value for name, value in body.get("properties", {}).items()}}
    flat.pop("properties", None)
    for key, value in flat.items():
        name, kind = members.get(key, (None, None))
        if kind is None or model._validation.get(name, {}).get("readonly"):
            found.append(f"{where}.{key}: unknown, or for reading only")
        elif kind == "str":
            found += of_plain(str, value, f"{where}.{key}")
        elif kind == "{str}":
            found += faults(dict[str, str], value, f"{where}.{key}")
        else:
            found.append(f"{where}.{key}: this check does not know the type {kind}")
    return found


def of_plain(shape, value, where):
    kinds = {str: str, int: int, float: (int, float), bool: bool, bytes: str}
    wanted = kinds.get(shape)
    if wanted is None:
        return []
    if not isinstance(value, wanted) or (shape in (int, float) and isinstance(value, bool)):
        return [f"{where}: {value!r} is no {shape.__name__}"]
    return []


def check(record):
    """The faults of one recorded request; none where its kind has no published type."""
    for pattern, package, name in KINDS:
        if re.match(pattern, record["line"]):
            shape = getattr(importlib.import_module(package), name)
            return of_model(shape, record["body"]) if hasattr(shape, "_attribute_map") else faults(shape, record["body"], name)
    return None


WHAT = "Microsoft's published types"


def faults_of(line):
    return check(json.loads(line))


def self_test():
    base = {
        "line": "PUT /subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/m",
        "body": {
            "location": "westus2",
            "properties": {"priority": "Spot", "storageProfile": {"osDisk": {"createOption": "FromImage", "diskSizeGB": 35}}},
        },
    }
    assert check(base) == [], check(base)
    for path, value in [
        (["locatoin"], "x"),
        (["properties", "priority"], "Spott"),
        (["properties", "storageProfile", "osDisk", "diskSizeGB"], "35"),
        (["properties", "osProfile"], {"custom_data": "x"}),
        (["location"], None),
    ]:
        broken = json.loads(json.dumps(base))
        node = broken["body"]
        for part in path[:-1]:
            node = node[part]
        if value is None:
            del node[path[-1]]
        else:
            node[path[-1]] = value
        assert check(broken), f"{'.'.join(path)} = {value!r} was not caught"

    identity = "PUT /subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i"
    good = {"location": "westus2", "tags": {"team": "ml"}}
    assert check({"line": identity, "body": good}) == []
    for body in [{"tags": {}}, {**good, "tags": {"team": 1}}, {**good, "kind": "x"}, {**good, "properties": {"principalId": "p"}}]:
        assert check({"line": identity, "body": body}), f"{body} was not caught"
