//! The bounds: each with a name, a unit and a default. What is not here is bounded beside the code that it bounds.

use std::time::Duration;

use bytesize::ByteSize;

/// The largest event, in bytes.
pub const PAYLOAD_BYTES_MAX: ByteSize = ByteSize::mib(1);
/// The memory of one instance, as the sum over its memories.
pub const MEMORY: ByteSize = ByteSize::mib(64);
/// Events that one attempt may emit, and their bytes in all.
pub const EMITS: usize = 256;
pub const EMIT_BYTES: ByteSize = ByteSize::mib(4);
/// What one attempt may write to its state, in bytes.
pub const STATE: ByteSize = ByteSize::kib(256);
/// Log lines of one attempt, and the bytes of one line.
pub const LOG_LINES: u32 = 100;
pub const LOG_LINE_BYTES: ByteSize = ByteSize::kib(2);
/// Elements of one table of a guest.
pub const TABLE_ELEMENTS: usize = 100_000;
/// What may cross from the guest to the host in one call.
pub const HOSTCALL_BYTES: ByteSize = ByteSize::mib(8);
/// How long one attempt may take.
pub const DEADLINE: Duration = Duration::from_secs(1);
/// The longest deadline that can be configured: leases and draining are computed from it.
pub const DEADLINE_MAX: Duration = Duration::from_secs(300);
/// Events that one instance handles before a fresh one takes its place. 1: no event ever sees what another has left in
/// the guest's memory. What that costs: docs/decisions/0017.
pub const INSTANCE_EVENTS: u32 = 1;
/// Deliveries that are fetched and settled together.
pub const BATCH: usize = 128;
pub const BATCH_MAX: usize = 512;
/// Dead letters that one handler keeps for one stream; the oldest go first, and are counted.
pub const DEAD_LETTERS: u64 = 100_000;
/// How long the inbox remembers an event.
pub const INBOX_WINDOW: Duration = Duration::from_secs(3600);
/// The largest component, and the most code that may be made of one.
pub const COMPONENT_BYTES: ByteSize = ByteSize::mib(64);
pub const COMPILED_BYTES: ByteSize = ByteSize::mib(512);
/// The manifest in a component.
pub const MANIFEST_BYTES: ByteSize = ByteSize::kib(16);
/// What compiling one component may take: memory, processor time, and time.
pub const COMPILE_MEMORY: ByteSize = ByteSize::gib(2);
pub const COMPILE_CPU: Duration = Duration::from_secs(60);
pub const COMPILE_WALL: Duration = Duration::from_secs(300);
/// The compiled code that is kept; what was not used for longest goes first.
pub const CACHE_BYTES: ByteSize = ByteSize::gib(2);
/// The most memory that one instance can be granted; the pool reserves address space for it.
pub const GUEST_MEMORY_MAX: ByteSize = ByteSize::mib(256);
