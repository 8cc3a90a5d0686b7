//! Bounds what an instance holds: the sum of its memories, the sum of its tables, and how many of each there are.

use tidemill_core::model::outcome::Crash;

/// Memories, tables and core instances that one component may have. A Python component has 3, 17 and 17.
pub(crate) const MEMORIES_MAX: usize = 8;
pub(crate) const TABLES_MAX: usize = 40;
pub(crate) const CORE_INSTANCES_MAX: usize = 40;

/// The error with which the host stops a guest at a limit.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct Stop {
    pub crash: Crash,
    pub reason: String,
}

pub struct Meter {
    bytes: usize,
    bytes_max: usize,
    elements: usize,
    elements_max: usize,
}

impl Meter {
    pub fn new(bytes_max: usize, elements_max: usize) -> Self {
        Self { bytes: 0, bytes_max, elements: 0, elements_max }
    }
}

impl wasmtime::ResourceLimiter for Meter {
    fn memory_growing(&mut self, current: usize, desired: usize, own_max: Option<usize>) -> wasmtime::Result<bool> {
        if fails_by_itself(desired, own_max, self.bytes_max) {
            return Ok(true);
        }
        let bytes = self.bytes.saturating_add(desired.saturating_sub(current));
        if bytes > self.bytes_max {
            let reason =
                format!("the guest asked for {bytes} bytes of memory; its limit is {} (limits.memory)", self.bytes_max);
            return Err(Stop { crash: Crash::Memory, reason }.into());
        }
        self.bytes = bytes;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, own_max: Option<usize>) -> wasmtime::Result<bool> {
        if fails_by_itself(desired, own_max, self.elements_max) {
            return Ok(true);
        }
        let elements = self.elements.saturating_add(desired.saturating_sub(current));
        if elements > self.elements_max {
            let reason = format!(
                "the guest asked for {elements} elements of tables; its limit is {} (limits.tables)",
                self.elements_max
            );
            return Err(Stop { crash: Crash::Table, reason }.into());
        }
        self.elements = elements;
        Ok(true)
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX
    }
}

/// What a memory or a table forbids itself fails, takes nothing, and is no reason to stop the guest. Its maximum may also
/// be that of the pool, which is no less than the limit.
fn fails_by_itself(desired: usize, own_max: Option<usize>, limit: usize) -> bool {
    own_max.is_some_and(|max| desired > max && max < limit)
}

#[cfg(test)]
mod tests {
    use wasmtime::ResourceLimiter;

    use super::*;

    const PAGE: usize = 1 << 16;

    #[test]
    fn all_memories_count_together() {
        let mut meter = Meter::new(4 * PAGE, 0);
        assert!(meter.memory_growing(0, 2 * PAGE, None).is_ok());
        assert!(meter.memory_growing(0, 2 * PAGE, None).is_ok());
        let error = meter.memory_growing(2 * PAGE, 3 * PAGE, None).unwrap_err();
        assert_eq!(error.downcast_ref::<Stop>().map(|stop| stop.crash), Some(Crash::Memory));
    }

    #[test]
    fn what_a_memory_forbids_itself_is_not_counted() {
        let mut meter = Meter::new(4 * PAGE, 0);
        for _ in 0..100 {
            assert!(meter.memory_growing(PAGE, 2 * PAGE, Some(PAGE)).is_ok());
        }
        assert!(meter.memory_growing(0, 4 * PAGE, None).is_ok());
    }

    #[test]
    fn all_tables_count_together() {
        let mut meter = Meter::new(0, 10);
        assert!(meter.table_growing(0, 6, Some(10)).is_ok());
        let error = meter.table_growing(6, 11, Some(10)).unwrap_err();
        assert_eq!(error.downcast_ref::<Stop>().map(|stop| stop.crash), Some(Crash::Table));
        let error = meter.table_growing(0, 6, None).unwrap_err();
        assert_eq!(error.downcast_ref::<Stop>().map(|stop| stop.crash), Some(Crash::Table));
    }
}
