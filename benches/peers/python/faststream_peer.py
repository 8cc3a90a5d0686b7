"""FastStream on Redis Streams: `python faststream_peer.py batch|single fill|drain URL EVENTS`. What the harness wants of it
is in benches/peers/README.md."""

import json
import os
import sys
from importlib.metadata import version

import uvloop
from faststream import AckPolicy
from faststream.redis import RedisBroker, StreamSub
from redis.asyncio import Redis

import event
from span import Span

STREAM, GROUP = "peer", "bench"
BATCH = 200


async def fill(url: str, events: int) -> None:
    async with Redis.from_url(url) as client:
        bodies = (json.dumps(event.user_created(number), separators=(",", ":")) for number in range(events))
        await event.add(client, STREAM, ({"__data__": body} for body in bodies))
        await client.xgroup_create(STREAM, GROUP, "0")


async def drain(mode: str, url: str, events: int) -> None:
    span = Span(events)
    broker = RedisBroker(url, logger=None)

    if mode == "batch":
        sub = StreamSub(STREAM, group=GROUP, consumer="one", batch=True, max_records=BATCH, last_id=">")

        # Acknowledged after the handler, not acknowledged after an exception: at least once.
        @broker.subscriber(stream=sub, ack_policy=AckPolicy.NACK_ON_ERROR)
        async def handle_all(batch: list[dict]) -> None:
            span.begin(len(batch))
            for one in batch:
                event.check(one)
    else:
        sub = StreamSub(STREAM, group=GROUP, consumer="one", last_id=">")

        @broker.subscriber(stream=sub, ack_policy=AckPolicy.NACK_ON_ERROR)
        async def handle(one: dict) -> None:
            span.begin(1)
            event.check(one)

    await broker.connect()
    await span.ready()
    await broker.start()
    names = ["faststream", "redis", "hiredis", "uvloop"]
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    how = f"batches of {BATCH}" if mode == "batch" else "one event a call"
    settings = f"{versions}, Python {sys.version.split()[0]}; one process, {how}, NACK_ON_ERROR"
    async with Redis.from_url(url) as client:
        await span.end(client, STREAM, GROUP, settings)
    # The harness has its line; a graceful stop waits for a read to end and measures nothing.
    os._exit(0)


mode, verb, url, events = sys.argv[1:]
uvloop.run(fill(url, int(events)) if verb == "fill" else drain(mode, url, int(events)))
