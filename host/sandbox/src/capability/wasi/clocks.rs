//! `wasi:clocks` and `wasi:io/poll`: real time, and waiting for it.
//!
//! A guest that waits is not stopped by the epoch: that only stops what runs in the guest. So the host does not begin a
//! wait that goes beyond its bounds.

use std::time::{Duration, Instant, SystemTime};

use wasmtime::component::Resource;
use wasmtime_wasi::p2::DynPollable;
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::bindings::sync::io::poll;

use crate::capability::context::Context;
use crate::capability::meter::Stop;
use tidemill_core::limits;
use tidemill_core::model::outcome::Crash;

/// Where the monotonic clock of an instance begins. Not at 0: Go's runtime takes that for a broken clock.
const FIRST: Duration = Duration::from_secs(1);

/// What both clocks are said to be good for, in nanoseconds.
const RESOLUTION_NS: u32 = 1;

impl wall_clock::Host for Context {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        self.enter()?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(wall_clock::Datetime { seconds: now.as_secs(), nanoseconds: now.subsec_nanos() })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        self.enter()?;
        Ok(wall_clock::Datetime { seconds: 0, nanoseconds: RESOLUTION_NS })
    }
}

impl monotonic_clock::Host for Context {
    fn now(&mut self) -> wasmtime::Result<u64> {
        self.enter()?;
        let now = FIRST + self.wasi().began.elapsed();
        Ok(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        self.enter()?;
        Ok(RESOLUTION_NS.into())
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.enter()?;
        let since = Duration::from_nanos(when).saturating_sub(FIRST);
        let when = self.wasi().began.checked_add(since);
        self.pollable(when)
    }

    fn subscribe_duration(&mut self, duration: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.enter()?;
        self.pollable(Instant::now().checked_add(Duration::from_nanos(duration)))
    }
}

impl poll::Host for Context {
    fn poll(&mut self, list: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        self.enter()?;
        if list.is_empty() || list.len() > limits::WASI_HANDLES {
            let (found, max) = (list.len(), limits::WASI_HANDLES);
            let reason = format!("wasi:io/poll: a list of {found}; 1 to {max} (WASI_HANDLES) can be polled");
            return Err(Stop { crash: Crash::Handles, reason }.into());
        }
        let moments = list.iter().map(|pollable| self.moment(pollable)).collect::<wasmtime::Result<Vec<_>>>()?;
        self.wait(moments.iter().flatten().min().copied())?;
        let now = Instant::now();
        let ready = (0..).zip(&moments).filter(|(_, moment)| moment.is_some_and(|moment| moment <= now));
        Ok(ready.map(|(index, _)| index).collect())
    }
}

impl poll::HostPollable for Context {
    fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        self.enter()?;
        Ok(self.moment(&pollable)?.is_some_and(|moment| moment <= Instant::now()))
    }

    fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        self.enter()?;
        let moment = self.moment(&pollable)?;
        self.wait(moment)
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        self.enter()?;
        self.wasi().pollables.remove(&pollable.rep());
        Ok(())
    }
}

impl Context {
    /// A new pollable that is ready from this moment on; none: never.
    pub(super) fn pollable(&mut self, moment: Option<Instant>) -> wasmtime::Result<Resource<DynPollable>> {
        let wasi = self.wasi();
        wasi.room_for_a_handle()?;
        loop {
            wasi.last_pollable = wasi.last_pollable.wrapping_add(1);
            if let std::collections::btree_map::Entry::Vacant(place) = wasi.pollables.entry(wasi.last_pollable) {
                place.insert(moment);
                return Ok(Resource::new_own(wasi.last_pollable));
            }
        }
    }

    fn moment(&mut self, pollable: &Resource<DynPollable>) -> wasmtime::Result<Option<Instant>> {
        let found = self.wasi().pollables.get(&pollable.rep()).copied();
        found.ok_or_else(|| wasmtime::format_err!("wasi:io/poll: there is no such pollable"))
    }

    /// Waits until this moment, or ends the call at once if that is further away than the attempt may still wait.
    fn wait(&mut self, until: Option<Instant>) -> wasmtime::Result<()> {
        let begun = Instant::now();
        let wait = until.map_or(Duration::MAX, |until| until.saturating_duration_since(begun));
        if wait.is_zero() {
            return Ok(());
        }
        if wait > limits::WASI_WAIT.saturating_sub(self.attempt.waited) {
            let asked = if until.is_some() { format!("{wait:.1?}") } else { "for ever".to_owned() };
            let reason = format!(
                "wasi:io/poll: it would wait {asked}; an attempt may wait {:?} in all (WASI_WAIT)\n  hint: return a \
                 failure that may be retried, with after-ms",
                limits::WASI_WAIT
            );
            return Err(Stop { crash: Crash::WasiWait, reason }.into());
        }
        let end = self.attempt.ends.filter(|end| begun + wait >= *end);
        std::thread::sleep(end.map_or(wait, |end| end.saturating_duration_since(begun)));
        self.attempt.waited += begun.elapsed();
        if end.is_some() {
            let reason = "stopped after its deadline, while it waited in wasi:io/poll".to_owned();
            return Err(Stop { crash: Crash::Deadline, reason }.into());
        }
        Ok(())
    }
}
