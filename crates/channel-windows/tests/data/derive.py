#!/usr/bin/env python3
"""Derives csp-nodes.tsv from an index of Windows' CSP nodes: derive.py INDEX.tsv > csp-nodes.tsv"""

import csv
import re
import sys

POLICY_AREAS = (
    "Accounts ApplicationManagement Camera Connectivity DeviceInstallation DeviceLock Experience "
    "LocalPoliciesSecurityOptions Privacy Settings SmartScreen Storage System Update Wifi"
).split()
NODES = [f"./Device/Vendor/MSFT/Policy/Config/{area}" for area in POLICY_AREAS] + [
    "./DevDetail",
    "./Device/Vendor/MSFT/BitLocker",
    "./Device/Vendor/MSFT/ClientCertificateInstall/SCEP",
    "./Device/Vendor/MSFT/EnterpriseDesktopAppManagement",
    "./Device/Vendor/MSFT/EnterpriseModernAppManagement/AppInstallation",
    "./Device/Vendor/MSFT/RootCATrustedCertificates/Root",
    "./Device/Vendor/MSFT/VPNv2",
    "./Device/Vendor/MSFT/WiFi",
    "./Vendor/MSFT/AppLocker/ApplicationLaunchRestrictions",
    "./Vendor/MSFT/AssignedAccess",
    "./Vendor/MSFT/Firewall/MdmStore/DomainProfile",
    "./Vendor/MSFT/Firewall/MdmStore/PrivateProfile",
    "./Vendor/MSFT/Firewall/MdmStore/PublicProfile",
    "./Vendor/MSFT/NetworkProxy",
]


# The index cuts descriptions of values off after this many characters, and the values after them with it.
CUT_CHARS = 600
# Values that the cut lost, from Microsoft's reference of the Policy CSP and of the ClientCertificateInstall CSP.
LOST = {
    "Update/AllowAutoUpdate": "0,1,2,3,4,5",
    "System/AllowTelemetry": "0,1,3",
    "Install/KeyProtection": "1,2,3,4",
}


def values(locuri, kind, allowed):
    """Values and bounds alone, without what they mean; a list that is cut short ends in an ellipsis."""
    if kind not in ("ENUM", "Flag"):
        return allowed if kind in ("Range", "RegEx") else ""
    found = ",".join(re.match(r"[^=]*", item)[0].strip() for item in re.split(r";\s+(?=[-\w]+=)", allowed))
    if len(allowed) < CUT_CHARS:
        return found
    return next((all for end, all in LOST.items() if locuri.endswith(end)), found + ",…")


def main():
    with open(sys.argv[1], encoding="utf-8", newline="") as source:
        rows = list(csv.DictReader(source, delimiter="\t", quoting=csv.QUOTE_NONE))
    print("locuri\taccess\tformat\tdefault\tallowed_type\tallowed\tmin_os_build\tdeprecated")
    for row in sorted(rows, key=lambda row: row["locuri"]):
        if any(row["locuri"] == node or row["locuri"].startswith(node + "/") for node in NODES):
            row["allowed"] = values(row["locuri"], row["allowed_type"], row["allowed"])
            columns = "locuri access format default allowed_type allowed min_os_build deprecated".split()
            print("\t".join(row[column] for column in columns))


main()
