"""How many cores a node has, by the name of its VM size."""

from __future__ import annotations

import re

_SIZE = re.compile(r"[a-z]+_([a-z]+)([0-9]+)(?:-([0-9]+))?[a-z]*(?:_(.*))?")
_D_CORES = {1: 1, 2: 2, 3: 4, 4: 8, 5: 16, 11: 2, 12: 4, 13: 8, 14: 16, 15: 20}


def cores_of(vm_size: str) -> int:
    """Return the number of vCPUs that the name of a VM size says; 1 if it says none.

    Source: "VM sizes naming conventions": the number is that of the vCPUs, and what follows a hyphen that of the vCPUs
    in use; "Dv2 and DSv2-series" for the sizes that are merely numbered.
    """
    match = _SIZE.fullmatch(vm_size.lower())
    if not match:
        return 1
    family, number, constrained, version = match.groups()
    if family in {"d", "ds"} and version in {None, "v2"}:
        return int(constrained or _D_CORES.get(int(number), number))
    return int(constrained or number) or 1
