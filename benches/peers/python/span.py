"""The clock of a drain: it waits for the word, begins with the first event, and ends when all are acknowledged."""

import asyncio
import json
import sys
import time


class Span:
    def __init__(self, events: int) -> None:
        self.events = events
        self.handled = 0
        self.begun = None
        self.all_handled = asyncio.Event()

    async def ready(self) -> None:
        """Says that the peer is connected, and waits until the harness has looked at Redis' clock."""
        print("ready", flush=True)
        word = await asyncio.to_thread(sys.stdin.readline)
        if word.strip() != "go":
            raise ValueError("the word on stdin is go")

    def begin(self, events: int) -> None:
        """So many events are in hand. The clock begins with the first."""
        if self.begun is None:
            self.begun = time.perf_counter(), time.process_time()
        self.handled += events
        if self.handled >= self.events:
            self.all_handled.set()

    async def end(self, client, stream: str, group: str, settings: str) -> None:
        """Waits until all events are acknowledged; Redis is asked only when the last one has been handled."""
        await self.all_handled.wait()
        while (await client.xpending(stream, group))["pending"] > 0:
            await asyncio.sleep(0.001)
        at, cpu = self.begun
        report = {
            "events": self.events,
            "seconds": time.perf_counter() - at,
            "cpu_s": time.process_time() - cpu,
            "peak_mib": peak_mib(),
            "settings": settings,
        }
        print(json.dumps(report), flush=True)


def peak_mib() -> float:
    with open("/proc/self/status") as status:
        kib = next(line.split()[1] for line in status if line.startswith("VmHWM:"))
    return int(kib) / 1024
