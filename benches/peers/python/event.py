"""The event that all are measured with, the same as `user_created` of benches/lib.rs, and the handler's work."""


def user_created(number: int) -> dict:
    uuid = f"0191d3a0-0000-7000-8000-{number:012x}"
    user = f"user-{number:08}"
    return {
        "event_id": uuid,
        "event_type": "User.Created",
        "version": "1",
        "timestamp": "2026-01-31T12:00:00.000Z",
        "correlation_id": uuid,
        "data": {
            "user_id": number,
            "username": user,
            "email": f"{user}@example.com",
            "created_at": "2026-01-31T12:00:00.000Z",
            "user_type": "customer",
            "note": "a member that no schema declares, as real ones have",
        },
    }


def check(event: dict) -> None:
    if "@" not in event["data"]["email"]:
        raise ValueError(f"no address: {event['data']['email']}")


async def add(client, stream: str, entries) -> None:
    """Adds entries, each a dict of fields, a thousand in each round trip."""
    pipe = client.pipeline(transaction=False)
    for entry in entries:
        pipe.xadd(stream, entry)
        if len(pipe) == 1000:
            await pipe.execute()
    await pipe.execute()
