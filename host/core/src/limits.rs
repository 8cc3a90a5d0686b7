//! The bounds: each with a name, a unit and a default. What is not here is bounded beside the code that it bounds.

use std::time::Duration;

use bytesize::ByteSize;

/// The largest event, in bytes.
pub const PAYLOAD_BYTES_MAX: ByteSize = ByteSize::mib(1);
/// What that may be set to: an envelope has to fit, and a server takes an event with its record in one piece: Redis has 512 MiB
/// for that.
pub const PAYLOAD_BYTES_LEAST: ByteSize = ByteSize::kib(1);
pub const PAYLOAD_BYTES_MOST: ByteSize = ByteSize::mib(64);
/// What a host has fetched and not settled, of all streams together.
pub const FETCH_BYTES: ByteSize = ByteSize::mib(32);
/// The memory of one instance, as the sum over its memories.
pub const MEMORY: ByteSize = ByteSize::mib(64);
/// Events that one attempt may emit, and their bytes in all.
pub const EMITS: usize = 256;
pub const EMIT_BYTES: ByteSize = ByteSize::mib(4);
/// The most emits that may lead to one event, each on the one before. This bound ends cycles of handlers.
pub const HOPS: u32 = 64;
/// What one attempt may write to its state, in bytes.
pub const STATE: ByteSize = ByteSize::kib(256);
/// What one key may hold in its handler's state: every event of the key has to read it.
pub const STATE_TOTAL: ByteSize = ByteSize::mib(4);
/// Timers that one attempt may set, the data of one in bytes, and how far away it may be: 90 days.
pub const TIMERS: usize = 16;
pub const TIMER_BYTES: ByteSize = ByteSize::kib(4);
pub const TIMER_WAIT: Duration = Duration::from_secs(7_776_000);
/// Timers of one handler that may wait for one stream.
pub const TIMERS_WAITING: u64 = 100_000;
/// Log lines of one attempt, and the bytes of one line.
pub const LOG_LINES: u32 = 100;
pub const LOG_LINE_BYTES: ByteSize = ByteSize::kib(2);
/// Log lines of one handler that the host's own log takes in a second.
pub const LOG_LINES_PER_SECOND: u32 = 1_000;
/// Elements of one instance's tables, in all.
pub const TABLES: usize = 100_000;
/// Calls of one attempt into the host.
pub const HOST_CALLS: u32 = 10_000;
/// Handles of resources that one instance holds.
pub const HANDLES: usize = 1_000;
/// The stack of a guest, for all plugins of the host.
pub const STACK: ByteSize = ByteSize::mib(1);
/// What may cross from the guest to the host in one call.
pub const HOSTCALL_BYTES: ByteSize = ByteSize::mib(8);
/// Requests that one attempt may make over `http`.
pub const HTTP_REQUESTS: u32 = 16;
/// One request over `http`: URL, headers and body.
pub const HTTP_REQUEST_BYTES: ByteSize = ByteSize::mib(1);
/// The body of one answer over `http`.
pub const HTTP_RESPONSE_BYTES: ByteSize = ByteSize::mib(1);
/// Calls of one handler that may run on the I/O pool at once.
pub const IO_CALLS: usize = 16;
/// Threads of the I/O pool, and the most that can be configured.
pub const IO_WORKERS: usize = 32;
pub const IO_WORKERS_MAX: usize = 512;
/// The value of one secret.
pub const SECRET_BYTES: ByteSize = ByteSize::kib(64);
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
/// Dead letters that one handler keeps for one stream, and their bytes. Those that never ran have half of both at most and
/// go first, then the oldest; all are counted.
pub const DEAD_LETTERS: u64 = 100_000;
pub const DEAD_LETTERS_BYTES: ByteSize = ByteSize::mib(256);
/// What a dead letter may have besides its event: the history of its attempts, and its reason.
pub const DEAD_LETTER_EXTRA_BYTES: ByteSize = ByteSize::kib(64);
/// The most that `retry.max` can be.
pub const RETRIES_MAX: u32 = 1_000;
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
/// The most elements of tables that one instance can be granted; the pool reserves address space for them.
pub const GUEST_TABLES_MAX: usize = 100_000;
/// The smallest and the largest stack that guests can be given.
pub const STACK_MIN: ByteSize = ByteSize::kib(64);
pub const STACK_MAX: ByteSize = ByteSize::mib(16);
/// The most that `limits.hostcall_bytes` can be: the host allocates that much for one call.
pub const HOSTCALL_BYTES_MAX: ByteSize = ByteSize::mib(64);
/// How long one attempt may wait in WASI, in all. It blocks a compute worker meanwhile.
pub const WASI_WAIT: Duration = Duration::from_millis(10);
/// WASI handles that one instance may hold, and those that it may keep from one event to the next.
pub const WASI_HANDLES: usize = 1024;
pub const WASI_HANDLES_KEPT: usize = 64;
/// Random bytes that a guest is given at once.
pub const WASI_RANDOM_BYTES: ByteSize = ByteSize::kib(64);
/// Versions of one handler's plugin that a host keeps in memory, the active one included.
pub const GENERATIONS: usize = 3;
pub const GENERATIONS_MAX: usize = 16;
/// How long a thread keeps an idle instance.
pub const INSTANCE_IDLE_MAX: Duration = Duration::from_secs(10);
