"""A name server with the answers that a test gives it, in namespaces of its own.

In them it is the only name server. It prints one line for each question that it gets.
"""

from __future__ import annotations

import ipaddress
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

SUDO = [] if os.getuid() == 0 else ["sudo"]

FILES = {
    "/etc/resolv.conf": "nameserver 127.0.0.1\n",
    "/etc/hosts": "127.0.0.1 localhost\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
A, AAAA = 1, 28
# The bytes of the header, and those of a question after its name.
HEADER, QUESTION = 12, 4
# Flags of answers: the name exists, or it does not.
ANSWER, UNKNOWN = b"\x85\x80", b"\x85\x83"


class NameServer:
    """A name server that runs.

    Attributes:
        entering: the command that enters its namespaces.
    """

    def __init__(self, pid: int, log: Path) -> None:
        # The tests may run below another root directory than that of the mount namespace.
        self.entering = ["nsenter", f"--target={pid}", "--mount", "--net", "--root"]
        self._log = log

    def questions(self) -> list[str]:
        """Return the names in the questions that it has received, each with the type of its record."""
        return self._log.read_text().splitlines()[1:]


@contextmanager
def name_server(addresses: Mapping[str, list[str]]) -> Iterator[NameServer]:
    """Run a name server.

    Args:
        addresses: what it knows. It never answers a question for a name that ends with "silent".
    """
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        command = [*SUDO, "unshare", "--mount", "--net", sys.executable, __file__, directory]
        command += [json.dumps(addresses)]
        errors = Path(directory) / "errors"
        with (
            log.open("w") as output,
            errors.open("w") as error_output,
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=error_output
            ) as process,
        ):
            while not (lines := log.read_text().splitlines()):
                if process.poll() is not None:
                    pytest.fail(
                        f"namespaces cannot be made here: {errors.read_text()}; tests/README.md "
                        "says how to leave these tests out",
                        pytrace=False,
                    )
            yield NameServer(int(lines[0]), log)


def _serve(directory: Path, addresses: Mapping[str, list[str]]) -> None:
    """Be the name server, until nobody holds the other end of the standard input."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for number, (file, text) in enumerate(FILES.items()):
        ours = directory / str(number)
        ours.write_text(text)
        ours.chmod(0o644)
        subprocess.run(["mount", "--bind", ours, os.path.realpath(file)], check=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 53))
        print(os.getpid(), flush=True)
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            question, client = listener.recvfrom(4096)
            if answer := _answer(question, addresses):
                listener.sendto(answer, client)


def _answer(question: bytes, addresses: Mapping[str, list[str]]) -> bytes | None:
    """Return the answer to a question, None for no answer."""
    labels = []
    position = HEADER
    while length := question[position]:
        labels.append(question[position + 1 : position + 1 + length].decode())
        position += 1 + length
    name = ".".join(labels).lower()
    end = position + 1 + QUESTION
    record = int.from_bytes(question[position + 1 : position + 3], "big")
    print(name, {A: "A", AAAA: "AAAA"}[record], flush=True)
    if name.endswith("silent"):
        return None
    found = [ip.packed for ip in map(ipaddress.ip_address, addresses.get(name, []))
             if ip.version == (4 if record == A else 6)]  # fmt: skip
    answers = [b"\xc0\x0c" + record.to_bytes(2, "big") + b"\0\x01\0\0\0\0" +
               len(ip).to_bytes(2, "big") + ip for ip in found]  # fmt: skip
    flags = ANSWER if name in addresses else UNKNOWN
    counts = b"\0\x01" + len(found).to_bytes(2, "big") + b"\0\0\0\0"
    return question[:2] + flags + counts + question[HEADER:end] + b"".join(answers)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), json.loads(sys.argv[2]))
