from __future__ import annotations

import platform
import subprocess
import sys

import pytest
from patience import PATIENCE_SECONDS

PROGRAM = """
import os, signal, threading
from node.process import End

end = End(signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
{before}
threading.Thread(target=lambda: {later}, daemon=True).start()
end.wait()
print("ended")
"""


def ended(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


@pytest.mark.parametrize(
    ("before", "later"),
    [
        ("", "os.kill(os.getpid(), signal.SIGTERM)"),
        ("", "signal.pthread_kill(threading.get_ident(), signal.SIGINT)"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "None"),
        ("", "os.kill(os.getpid(), signal.SIGHUP)"),
        ("", "end.tell()"),
    ],
    ids=[
        "to the process",
        "met by another thread",
        "before anybody waits",
        "of a terminal",
        "from another thread",
    ],
)
def test_the_end_is_heard_however_and_whenever_it_is_told(before: str, later: str) -> None:
    program = PROGRAM.format(before=before, later=later)
    done = ended(program)
    assert (done.stdout, done.stderr, done.returncode) == ("ended\n", "", 0)


def test_a_terminal_that_closes_does_not_end_what_nohup_runs() -> None:
    later = "threading.Event().wait(1), print('hung up', flush=True), end.tell()"
    hang_up = f"(os.kill(os.getpid(), signal.SIGHUP), {later})"
    program = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)" + PROGRAM.format(
        before="", later=hang_up
    )
    done = ended(program)
    assert (done.stdout, done.returncode) == ("hung up\nended\n", 0)


HEAPS = """
import ctypes, sys, threading
from node.process import keep_one_heap

if sys.argv[1] == "kept":
    keep_one_heap()
barrier = threading.Barrier(5)

def allocate():
    held = bytearray(1 << 14)
    barrier.wait()
    barrier.wait()

for _ in range(4):
    threading.Thread(target=allocate).start()
barrier.wait()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, file)
libc.fflush(file)
barrier.wait()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives threads heaps of their own")
@pytest.mark.parametrize(("asked", "one"), [("kept", True), ("not", False)])
def test_the_threads_of_a_node_share_one_heap(asked: str, one: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HEAPS, asked],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    assert (done.stdout.count("<heap nr=") == 1) is one
