"""Holds each recorded Compute Engine request (one JSON object a line) against Google's own description of the API.

Google would refuse a misspelt field; our sandbox is of the same hand as our client. Unknown methods, paths, query names and fields, wrong
types, values outside an enumeration and names against the pattern are faults.
"""

import importlib.util
import json
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

PREFIX = "/compute/v1/"
package = Path(importlib.util.find_spec("googleapiclient").origin).parent
document = json.loads((package / "discovery_cache/documents/compute.v1.json").read_text(encoding="utf-8"))
schemas = document["schemas"]


def methods(resources):
    for resource in resources.values():
        yield from resource.get("methods", {}).values()
        yield from methods(resource.get("resources", {}))


def template(method):
    parameters = method["parameters"]
    parts = re.split(r"\{(\w+)\}", method["path"])
    patterns = [re.escape(part) if n % 2 == 0 else f"(?:{parameters[part].get('pattern', '[^/]+')})" for n, part in enumerate(parts)]
    return re.compile("".join(patterns))


known = [(method["httpMethod"], template(method), method) for method in methods(document["resources"])]


def faults(schema, value, where):
    if "$ref" in schema:
        schema = schemas[schema["$ref"]]
    kind = schema.get("type")
    if kind == "object":
        if not isinstance(value, dict):
            return [f"{where}: an object was expected"]
        inner = schema.get("properties", {})
        rest = schema.get("additionalProperties")
        found = []
        for key, one in value.items():
            if key in inner:
                found += faults(inner[key], one, f"{where}.{key}")
            elif rest:
                found += faults(rest, one, f"{where}.{key}")
            else:
                found.append(f"{where}: unknown field `{key}`")
        return found
    if kind == "array":
        if not isinstance(value, list):
            return [f"{where}: a list was expected"]
        return [fault for n, one in enumerate(value) for fault in faults(schema["items"], one, f"{where}[{n}]")]
    expected = {"string": str, "integer": int, "boolean": bool, "number": (int, float)}.get(kind, object)
    if not isinstance(value, expected) or (kind == "integer" and isinstance(value, bool)):
        return [f"{where}: `{value}` is no {kind}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{where}: `{value}` is none of {', '.join(schema['enum'])}"]
    if schema.get("pattern") and not re.fullmatch(schema["pattern"], value):
        return [f"{where}: `{value}` does not match {schema['pattern']}"]
    return []


def check(request):
    url = urlsplit(request["path"])
    if not url.path.startswith(PREFIX):
        return [f"`{url.path}` is no path of the API"]
    path = url.path[len(PREFIX) :]
    found = [method for verb, pattern, method in known if verb == request["method"] and pattern.fullmatch(path)]
    if not found:
        return [f"no method is {request['method']} {path}"]
    method = found[0]
    query = {name for name, place in method["parameters"].items() if place["location"] == "query"} | set(document["parameters"])
    wrong = [f"{method['id']}: unknown query `{name}`" for name, _ in parse_qsl(url.query) if name not in query]
    body = request.get("body")
    if body is None:
        return wrong + ([f"{method['id']}: a body is missing"] if "request" in method else [])
    if "request" not in method:
        return wrong + [f"{method['id']}: there is no body"]
    return wrong + faults(method["request"], body, method["id"])


WHAT = "Google's description of Compute Engine"


def faults_of(line):
    return check(json.loads(line))


def self_test():
    body = {
        "name": "vm",
        "disks": [{"boot": True, "initializeParams": {"diskSizeGb": "35"}}],
        "scheduling": {"provisioningModel": "SPOT", "preemptionNoticeDuration": {"seconds": "120"}},
        "labels": {"a": "b"},
    }
    good = {"method": "POST", "path": f"{PREFIX}projects/p1/zones/us-west1-b/instances?requestId=x", "body": body}
    text = json.dumps(good)
    changes = [
        ("requestId", "requestID"),
        ('"vm"', '"VM_1"'),
        ('"35"', "35"),
        ("SPOT", "Spot"),
        ("scheduling", "sheduling"),
        ("/instances", "/instance"),
        ("us-west1-b", "US"),
        ('"POST"', '"PUT"'),
    ]
    wrong = [old for old, new in changes if not check(json.loads(text.replace(old, new, 1)))]
    wrong += check(good)
    assert not wrong, wrong
