// The event that all are measured with, the same as `user_created` of benches/lib.rs, and the handler's work.

export function userCreated(number) {
  const id = `0191d3a0-0000-7000-8000-${number.toString(16).padStart(12, "0")}`;
  const user = `user-${String(number).padStart(8, "0")}`;
  return {
    event_id: id,
    event_type: "User.Created",
    version: "1",
    timestamp: "2026-01-31T12:00:00.000Z",
    correlation_id: id,
    data: {
      user_id: number,
      username: user,
      email: `${user}@example.com`,
      created_at: "2026-01-31T12:00:00.000Z",
      user_type: "customer",
      note: "a member that no schema declares, as real ones have",
    },
  };
}

export function check(event) {
  if (!event.data.email.includes("@")) throw new Error(`no address: ${event.data.email}`);
}
