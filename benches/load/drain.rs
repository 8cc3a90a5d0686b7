//! One drain: a backlog is put somewhere, hosts are started on it, and the clock runs from the first deliveries that are
//! committed until the last one is. Then somebody else than the host says whether all is there.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use crate::bench::{Bench, Taken};
use crate::host::Host;
use crate::model::Sample;
use crate::setup::Setup;
use crate::store::Store;

/// How often the counters are asked. What it costs: a command for each handler.
const LOOK_EVERY: Duration = Duration::from_millis(3);
/// With no delivery committed for so long, something is wrong.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// What was read when the clock began.
struct Begun {
    at: Instant,
    committed: u64,
    hosts_s: f64,
    store_s: f64,
    mib: f64,
}

pub(crate) fn drain(bench: &Bench, store: &mut dyn Store, setup: &Setup) -> anyhow::Result<Taken> {
    store.fill(&setup.backlog)?;
    let start = |_| Host::start(setup, &store.url(), bench.folder.path());
    let mut hosts: Vec<Host> = (0..setup.hosts).map(start).collect::<Result<_, _>>()?;
    let mut taken = clock(store, setup, &mut hosts)?;
    let fenced = sum(&hosts, Host::fenced)?;
    for host in hosts {
        host.stop()?;
    }
    let doubled = store.check(setup)?;
    ensure!(doubled == 0, "{doubled} effects are there more than once");
    let share = |count: f64| count / (setup.backlog.events * setup.plugins.len() as u64) as f64;
    taken.extra.extend([("fenced_share", share(fenced)), ("doubled_share", share(doubled as f64))]);
    Ok(taken)
}

fn clock(store: &mut dyn Store, setup: &Setup, hosts: &mut [Host]) -> anyhow::Result<Taken> {
    let handlers = setup.handlers();
    let all = setup.backlog.events * handlers.len() as u64;
    until(store, hosts, &handlers, &mut |store, committed| {
        Ok(committed > 0 && (setup.hosts == 1 || store.readers(&handlers[0])? == setup.hosts))
    })?;
    let begun = begin(store, hosts, &handlers)?;
    until(store, hosts, &handlers, &mut |_, committed| Ok(committed >= begun.committed + (all - begun.committed) / 2))?;
    let mib_middle = sum(hosts, Host::mib)?;
    let committed = until(store, hosts, &handlers, &mut |_, committed| Ok(committed >= all))?;
    let took = begun.at.elapsed();
    ensure!(committed == all, "{committed} deliveries were committed, and there were {all}");
    ensure!(begun.committed < all, "drained before the clock began: too few events");
    // Of the stream: one that seven handlers have committed is one.
    let events = (all - begun.committed) as f64 / handlers.len() as f64;
    let sample = Sample {
        events_per_s: events / took.as_secs_f64(),
        client_us: (sum(hosts, Host::cpu_s)? - begun.hosts_s) * 1e6 / events,
        redis_us: (store.cpu_s()? - begun.store_s) * 1e6 / events,
        client_mib: sum(hosts, Host::peak_mib)?,
    };
    let mib_end = sum(hosts, Host::mib)?;
    let extra = vec![("mib_start", begun.mib), ("mib_middle", mib_middle), ("mib_end", mib_end)];
    Ok(Taken { extra, ..sample.into() })
}

fn begin(store: &mut dyn Store, hosts: &[Host], handlers: &[String]) -> anyhow::Result<Begun> {
    let (hosts_s, store_s, mib) = (sum(hosts, Host::cpu_s)?, store.cpu_s()?, sum(hosts, Host::mib)?);
    let committed = store.committed(handlers)?;
    Ok(Begun { at: Instant::now(), committed, hosts_s, store_s, mib })
}

/// Looks until it is so; answers how many are committed then.
fn until(
    store: &mut dyn Store,
    hosts: &mut [Host],
    handlers: &[String],
    is_so: &mut dyn FnMut(&mut dyn Store, u64) -> anyhow::Result<bool>,
) -> anyhow::Result<u64> {
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        let committed = store.committed(handlers)?;
        if is_so(store, committed)? {
            return Ok(committed);
        }
        if committed != last {
            (last, moved) = (committed, Instant::now());
        }
        if moved.elapsed() > STUCK_AFTER {
            bail!("{committed} deliveries are committed, and for {STUCK_AFTER:?} there was not one more");
        }
        for host in hosts.iter_mut() {
            host.lives()?;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn sum(hosts: &[Host], of: impl Fn(&Host) -> anyhow::Result<f64>) -> anyhow::Result<f64> {
    hosts.iter().map(of).sum()
}

/// The time from starting a host to the first delivery committed, of a backlog of one.
pub(crate) fn first(bench: &Bench, store: &mut dyn Store, setup: &Setup) -> anyhow::Result<Taken> {
    store.fill(&setup.backlog)?;
    let store_s = store.cpu_s()?;
    let begun = Instant::now();
    let mut hosts = [Host::start(setup, &store.url(), bench.folder.path())?];
    until(store, &mut hosts, &setup.handlers(), &mut |_, committed| Ok(committed > 0))?;
    let took = begun.elapsed().as_secs_f64();
    let [host] = hosts;
    let sample = Sample {
        events_per_s: 1.0 / took,
        client_us: host.cpu_s()? * 1e6,
        redis_us: (store.cpu_s()? - store_s) * 1e6,
        client_mib: host.peak_mib()?,
    };
    host.stop()?;
    store.check(setup)?;
    Ok(Taken { extra: vec![("ms", took * 1e3)], ..sample.into() })
}
