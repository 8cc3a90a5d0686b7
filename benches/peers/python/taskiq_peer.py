"""Taskiq on Redis Streams: `python taskiq_peer.py fill|drain URL EVENTS`. What the harness wants of it is in
benches/peers/README.md."""

import asyncio
import os
import sys
from importlib.metadata import version

import uvloop
from redis.asyncio import Redis
from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

import event
from span import Span

STREAM, GROUP = "peer", "bench"
TASKS = 100


def broker_and_task(url: str, span: Span):
    broker = RedisStreamBroker(url, queue_name=STREAM, consumer_group_name=GROUP, consumer_id="0", xread_count=100)

    @broker.task(task_name="handle")
    async def handle(one: dict) -> None:
        span.begin(1)
        event.check(one)

    return broker, handle


async def fill(url: str, events: int) -> None:
    broker, handle = broker_and_task(url, Span(events))

    def message(number: int) -> bytes:
        # What `handle.kiq(...)` would send, without a round trip for each.
        return broker.formatter.dumps(handle.kicker()._prepare_message(event.user_created(number))).message

    async with Redis.from_url(url) as client:
        await event.add(client, STREAM, ({"data": message(number)} for number in range(events)))


async def drain(url: str, events: int) -> None:
    span = Span(events)
    broker, _ = broker_and_task(url, span)
    await broker.startup()
    await span.ready()
    receiver = asyncio.create_task(run_receiver_task(broker, max_async_tasks=TASKS, max_prefetch=TASKS))
    names = ["taskiq", "taskiq-redis", "redis", "hiredis", "uvloop"]
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    settings = f"{versions}, Python {sys.version.split()[0]}; one process, {TASKS} tasks at once, reads of 100"
    async with Redis.from_url(url) as client:
        await span.end(client, STREAM, GROUP, settings)
    receiver.cancel()
    # The harness has its line; a graceful shutdown waits for a read to end and measures nothing.
    os._exit(0)


verb, url, events = sys.argv[1:]
uvloop.run(fill(url, int(events)) if verb == "fill" else drain(url, int(events)))
