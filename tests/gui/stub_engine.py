"""A program that talks like the engine, but does nothing: ``stub_engine.py MANNER``.

What it is asked for is written to its log, one kind a line.
"""

import os
import sys
import time

from napari_sparseseg.engine import messages


def main(manner: str) -> int:
    source, target = os.fdopen(os.dup(0), "rb", buffering=0), sys.stdout.buffer

    def tell(event: messages.Event) -> None:
        messages.write_message(target, event, messages.EVENTS)

    if manner == "lacks torch":
        message = "torch cannot be imported (no such file); install it."
        tell(messages.Failed(request="ready", message=message))
        return 1
    if manner == "breaks":
        raise SystemExit("Traceback\n  File x\nValueError: of its own")
    if manner == "starts slowly":
        tell(messages.Starting(module="torch"))
        until = time.monotonic() + 1
        while time.monotonic() < until:  # as an import computes
            pass
    if manner == "hangs at start":
        tell(messages.Starting(module="torch"))
        time.sleep(60)
    tell(messages.Ready(versions={}, devices=["cpu"], device_names=["CPU"]))
    if manner == "is silent":
        time.sleep(60)
    while (request := messages.read_message(source, messages.REQUESTS)) is not None:
        print(request.kind, file=sys.stderr, flush=True)
        if request.kind == "shutdown":
            break
        if request.kind == "start":
            tell(messages.PhaseChanged(phase="preparing", step=0))
            tell(messages.PhaseChanged(phase="running", step=0))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
