#!/usr/bin/env python3
"""Makes schema.tsv from Apple's device management schema (YAML, MIT license): facts only, no prose.

Usage: generate.py FOLDER > schema.tsv, where FOLDER holds `mdm/` and `declarative/`. Needs PyYAML.
"""

import json
import pathlib
import sys

import yaml

# Whatever the compiler writes: the whole list of keys of each of these.
PROFILES = [
    "TopLevel",
    "CommonPayloadKeys",
    "com.apple.MCX(FileVault2)",
    "com.apple.MCX(TimeServer)",
    "com.apple.MCX(WiFi)",
    "com.apple.MCX.FileVault2",
    "com.apple.ManagedClient.preferences",
    "com.apple.SystemConfiguration",
    "com.apple.app.lock",
    "com.apple.applicationaccess",
    "com.apple.loginwindow",
    "com.apple.mobiledevice.passwordpolicy",
    "com.apple.proxy.http.global",
    "com.apple.security.FDERecoveryKeyEscrow",
    "com.apple.security.acme",
    "com.apple.security.firewall",
    "com.apple.security.pkcs1",
    "com.apple.security.root",
    "com.apple.security.scep",
    "com.apple.shareddeviceconfiguration",
    "com.apple.systempolicy.control",
    "com.apple.systempolicy.managed",
    "com.apple.vpn.managed",
    "com.apple.wifi.managed",
]
DECLARATIONS = [
    "declarationbase",
    "activations/simple",
    "configurations/app.managed",
    "configurations/diskmanagement.settings",
    "configurations/management.status-subscriptions",
    "configurations/passcode.settings",
    "configurations/softwareupdate.enforcement.specific",
    "configurations/softwareupdate.settings",
]
# Of payloads with several protocols, only the members of these.
MEMBERS_ONLY = {"com.apple.vpn.managed": {"IKEv2"}}
DEPTH_MAX = 8
COLUMNS = (
    "source\tkind\ttype\tmultiple\tpath\tvalue\tpresence\tmin\tmax\tallowed\tmacos\tmacos_supervised\tios\tios_supervised"
)


def platform(entry, name, inherited):
    """(version it came with or "-", whether only supervised devices obey)"""
    said = (entry.get("supportedOS") or {}).get(name) or {}
    introduced, supervised = inherited
    if "introduced" in said:
        introduced = "-" if said["introduced"] == "n/a" else str(said["introduced"])
    if "removed" in said or "deprecated" in said:
        introduced = "-"
    if "supervised" in said:
        supervised = said["supervised"]
    if "allowed-enrollments" in said:
        supervised = "device" not in said["allowed-enrollments"]
    return introduced, supervised


def one(key, here, inherited, depth, only=None):
    systems = {os: platform(key, os, inherited[os]) for os in inherited}
    yield here, key, key.get("range") or {}, systems
    name = here.rsplit(".", 1)[-1]
    if depth >= DEPTH_MAX or (only is not None and name not in only):
        return
    subkeys = key.get("subkeys") or []
    if key["type"] == "<array>":
        for item in subkeys[:1]:
            yield from one(item, here + "[]", systems, depth + 1)
    elif key["type"] == "<dictionary>":
        for item in subkeys:
            member = "*" if item["key"] == "ANY" else item["key"]
            yield from one(item, f"{here}.{member}", systems, depth + 1)


def main(folder):
    print(COLUMNS)
    files = [("profile", stem, folder / "mdm/profiles" / f"{stem}.yaml") for stem in PROFILES]
    files += [
        ("declaration", stem, folder / "declarative/declarations" / f"{stem}.yaml") for stem in DECLARATIONS
    ]
    for kind, stem, file in files:
        document = yaml.safe_load(file.read_text())
        payload = document["payload"]
        name = payload.get("payloadtype") or payload.get("declarationtype") or "-"
        inherited = {os: platform(payload, os, ("-", False)) for os in ("macOS", "iOS")}
        said = payload.get("supportedOS") or {}
        multiple = payload.get("apply") == "multiple" or any(
            (said.get(os) or {}).get("multiple") is True for os in inherited
        )
        for key in document.get("payloadkeys", []):
            start = "*" if key["key"] == "ANY" else key["key"]
            for path, entry, bounds, systems in one(key, start, inherited, 0, MEMBERS_ONLY.get(stem)):
                cells = [
                    stem, kind, name, "yes" if multiple else "no", path,
                    entry["type"].strip("<>"), entry.get("presence") or "optional",
                    str(bounds.get("min", "")), str(bounds.get("max", "")),
                    json.dumps(entry["rangelist"]) if "rangelist" in entry else "",
                ]
                for os in ("macOS", "iOS"):
                    cells += [systems[os][0], "yes" if systems[os][1] else "no"]
                print("\t".join(cells))


main(pathlib.Path(sys.argv[1]))
