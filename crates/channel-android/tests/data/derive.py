#!/usr/bin/env python3
"""Derives policy-schema.tsv from the API's discovery document: derive.py DISCOVERY.json > policy-schema.tsv"""

import json
import sys


def kind(prop):
    if "$ref" in prop:
        return prop["$ref"]
    if prop["type"] == "array":
        return f"[{kind(prop['items'])}]"
    return prop["type"] + (":" + prop["format"] if "format" in prop else "")


def references(prop):
    if "$ref" in prop:
        yield prop["$ref"]
    if "items" in prop:
        yield from references(prop["items"])


def main():
    with open(sys.argv[1], encoding="utf-8") as source:
        schemas = json.load(source)["schemas"]
    names, waiting = [], ["Policy"]
    while waiting:
        name = waiting.pop(0)
        if name not in names:
            names.append(name)
            for prop in schemas[name].get("properties", {}).values():
                waiting += references(prop)
    print("schema\tproperty\ttype\tdeprecated\tvalues\tdeprecated_values")
    for name in sorted(names):
        for key, prop in sorted(schemas[name].get("properties", {}).items()):
            holder = prop.get("items", prop)
            values = holder.get("enum", [])
            old = holder.get("enumDeprecated", [False] * len(values))
            columns = [
                name,
                key,
                kind(prop),
                "deprecated" if prop.get("deprecated") else "",
                ",".join(value for value, is_old in zip(values, old) if not is_old),
                ",".join(value for value, is_old in zip(values, old) if is_old),
            ]
            print("\t".join(columns))


main()
