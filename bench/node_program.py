"""Run a program of a node, and append its CPU time in seconds and its peak memory in MiB to a file.

python3 -I -S node_program.py FILE PROGRAM [ARGUMENT…]
"""

import os
import sys


def main() -> int:
    """Run the program, and return its exit code."""
    log, *command = sys.argv[1:]
    _, status, usage = os.wait4(os.posix_spawnp(command[0], command, os.environ), 0)
    code = os.waitstatus_to_exitcode(status)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{usage.ru_utime + usage.ru_stime} {usage.ru_maxrss / 1024}\n".encode())
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
