//! The one wasmtime engine of this process: how guests are compiled, bounded in time, and given memory.

use std::time::Duration;

use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::capability::meter::{CORE_INSTANCES_MAX, MEMORIES_MAX, TABLES_MAX};
use crate::error::Error;
use tidemill_core::limits;
use tidemill_process::tasks;
use tidemill_process::tasks::{STUCK_MAX, Task};

/// How often the epoch moves on. A guest that overruns its deadline is stopped at the next tick: at most this much
/// late. 200 wakings a second cost up to 1 % of a core on a small virtual machine that is idle, and next to nothing on a busy one.
pub(crate) const EPOCH_TICK: Duration = Duration::from_millis(5);

/// What a thread that calls guests has of native stack beyond the guest's own bound, which must be what trips first: the
/// host's functions run on top of the guest's deepest frame.
const HOST_STACK_BYTES: usize = 7 << 20;

/// Instances that there is room for at least, and at most: one takes 4 GiB of address space for each memory.
const INSTANCES: std::ops::RangeInclusive<u32> = 32..=2048;

#[derive(Clone)]
pub struct Engine {
    inner: wasmtime::Engine,
    guest_stack_bytes: usize,
}

impl Engine {
    /// Makes an engine with room for this many instances, and starts its ticker, which ends with the engine.
    pub fn new(instances: usize, guest_stack_bytes: usize) -> Result<Self, Error> {
        let instances = u32::try_from(instances).unwrap_or(u32::MAX).clamp(*INSTANCES.start(), *INSTANCES.end());
        let inner = match wasmtime::Engine::new(&config(guest_stack_bytes, Some(instances))) {
            Ok(engine) => engine,
            // A container or `ulimit -v` may forbid to reserve terabytes of address space: slower, but the same.
            Err(error) => {
                tracing::warn!(%error, "no address space for a pool of instances; each is mapped by itself, which is slower");
                let engine = wasmtime::Engine::new(&config(guest_stack_bytes, None));
                engine.map_err(|error| Error::Engine(format!("{error:#}")))?
            }
        };
        let weak = inner.weak();
        let tick = move || {
            while let Some(engine) = weak.upgrade() {
                tasks::tick();
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(EPOCH_TICK);
            }
        };
        tasks::serve_thread(Task::Epoch, "epoch".to_owned(), None, Some(STUCK_MAX), tick)
            .map_err(|error| Error::Engine(format!("no thread for the epoch ticker: {error}")))?;
        Ok(Self { inner, guest_stack_bytes })
    }

    /// The native stack that a thread needs to call guests.
    pub fn thread_stack_bytes(&self) -> usize {
        thread_stack_bytes(self.guest_stack_bytes)
    }

    pub(super) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.inner
    }

    /// The epoch deadline that stands for this much time, rounded up.
    pub(super) fn ticks(deadline: Duration) -> u64 {
        let ticks = deadline.as_nanos().div_ceil(EPOCH_TICK.as_nanos());
        u64::try_from(ticks).unwrap_or(u64::MAX / 2).saturating_add(1)
    }
}

/// The engine of the child process that compiles: the same settings, no pool, no ticker, and one thread.
pub(super) fn compiling() -> Result<wasmtime::Engine, Error> {
    // The process that runs the code bounds the stack.
    let mut config = config(limits::STACK.as_u64() as usize, None);
    config.parallel_compilation(false);
    wasmtime::Engine::new(&config).map_err(|error| Error::Engine(format!("{error:#}")))
}

pub fn thread_stack_bytes(guest_stack_bytes: usize) -> usize {
    guest_stack_bytes + HOST_STACK_BYTES
}

fn config(guest_stack_bytes: usize, pooled: Option<u32>) -> Config {
    let mut config = Config::new();
    config
        // Off, a call into a guest is one push on a vector; on, it builds task objects.
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(guest_stack_bytes)
        // No call here is an async one, but the engine wants them to have room for such a guest.
        .async_stack_size(thread_stack_bytes(guest_stack_bytes))
        // Copy-on-write images also for the memories of whole language runtimes (Python: about 13 MB).
        .memory_init_cow(true)
        .memory_guaranteed_dense_image_size(64 << 20)
        .wasm_memory64(false)
        // The meter does not count it.
        .shared_memory(false)
        // Newer guest toolchains may mark imports this way; it costs nothing to understand them.
        .wasm_component_model_map(true)
        .wasm_component_model_implements(true)
        // A trap's backtrace is walked frame by frame: enough to see where, not enough to be slow.
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(16));
    if let Some(instances) = pooled {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(instances)));
    }
    config
}

/// A pool makes a fresh instance several times cheaper than mapping one. Sizes are upper bounds, paid in address space.
fn pool(instances: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances * 8)
        .total_memories(instances * 3)
        .total_tables(instances * 4)
        .max_core_instances_per_component(CORE_INSTANCES_MAX as u32)
        .max_memories_per_component(MEMORIES_MAX as u32)
        .max_tables_per_component(TABLES_MAX as u32)
        .max_memories_per_module(2)
        .max_tables_per_module(4)
        .table_elements(limits::GUEST_TABLES_MAX)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .max_memory_size(limits::GUEST_MEMORY_MAX.as_u64() as usize)
        // Pages that a guest dirtied are wiped in place up to here, instead of being given back and faulted in again.
        .linear_memory_keep_resident(512 << 10)
        .table_keep_resident(64 << 10)
        // Asks the kernel (6.7 and later) which pages are dirty, instead of touching them all.
        .pagemap_scan(Enabled::Auto);
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_never_becomes_fewer_ticks_than_it_needs() {
        assert_eq!(Engine::ticks(Duration::from_millis(1)), 2);
        assert_eq!(Engine::ticks(Duration::from_secs(1)), 201);
        assert!(Engine::ticks(Duration::MAX) > 1 << 60);
    }
}
