from __future__ import annotations

import subprocess
import sys

import pytest
from patience import PATIENCE_SECONDS

PROGRAM = """
import os, signal, threading
from node.process import End

end = End(signal.SIGTERM, signal.SIGINT)
{before}
threading.Thread(target=lambda: {later}, daemon=True).start()
end.wait()
print("ended")
"""


@pytest.mark.parametrize(
    ("before", "later"),
    [
        ("", "os.kill(os.getpid(), signal.SIGTERM)"),
        ("", "signal.pthread_kill(threading.get_ident(), signal.SIGINT)"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "None"),
        ("", "end.tell()"),
    ],
    ids=["to the process", "met by another thread", "before anybody waits", "from another thread"],
)
def test_the_end_is_heard_however_and_whenever_it_is_told(before: str, later: str) -> None:
    program = PROGRAM.format(before=before, later=later)
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("ended\n", "", 0)
