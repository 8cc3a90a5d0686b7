//! The section `latency`: from the moment an event is due to be published until its effect can be seen, at fixed rates.
//!
//! An open loop: events come when they are due, whether or not the ones before are done, and the clock of an event starts
//! when it is due, not when somebody found the time to send it. So a stall counts for all that wait behind it (nothing is
//! omitted in a coordinated way). The clock stops when a subscriber of the output stream has the event that its handler
//! emitted: the settlement makes that visible in the same step as the ack.

mod open_loop;
mod subjects;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use redis::Connection;
use tidemill_benches::user_created;

use crate::bench::{Bench, Plan, Taken};
use crate::drains::{INSTANCE_EVENTS, without_aof};
use crate::model::{Sample, Section};
use crate::on_redis::OnRedis;
use crate::setup::{OUT, STREAM};
use crate::store::Store;
use open_loop::{Seen, commands, observe, publish};
use subjects::{GROUP, Kind, Subject};

/// How often events come, and for how long.
struct Load {
    /// The position on the axis.
    events_per_s: f64,
    seconds: f64,
    /// Each gap is this much of the usual one at least, and as much longer at most: an idle host gets no regular beat.
    gap_least: f64,
}

/// The first is an idle host: one event each 50 to 100 ms.
const LOADS: [Load; 4] = [
    Load { events_per_s: 13.3, seconds: 8.0, gap_least: 0.667 },
    Load { events_per_s: 100.0, seconds: 12.0, gap_least: 1.0 },
    Load { events_per_s: 1000.0, seconds: 8.0, gap_least: 1.0 },
    Load { events_per_s: 10_000.0, seconds: 5.0, gap_least: 1.0 },
];

/// Events of this time at the beginning are not counted.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long the first event may take, which also waits until whatever reads has started.
const START_MAX: Duration = Duration::from_secs(60);
/// How long the last event may take.
const LAST_MAX: Duration = Duration::from_secs(60);
/// From everything is ready until the clock begins.
const BEFORE: Duration = Duration::from_millis(50);

const KINDS: [(&str, &str, Kind); 4] = [
    ("bare loop", "XREADGROUP BLOCK, then XADD and XACK in one round trip", Kind::BareLoop),
    ("bare settled", "fetch and settle of the host, one after the other", Kind::BareSettled),
    ("tidemill", "instance_events_max = 1", Kind::Tidemill { instance_events_max: 1 }),
    ("tidemill 64", "instance_events_max = 64", Kind::Tidemill { instance_events_max: INSTANCE_EVENTS }),
];

pub(crate) fn run(bench: &Bench) -> anyhow::Result<Section> {
    let server = without_aof();
    let url = server.url();
    let mut plans = Vec::new();
    for load in &LOADS {
        for (name, settings, kind) in KINDS {
            let url = &url;
            let plan = Plan::new(name, move || measure(bench, url, kind, load));
            plans.push(plan.at(load.events_per_s.round()).with(settings));
        }
    }
    let events = LOADS.iter().map(|load| load.due(bench.options.quick).len()).max().unwrap_or(0);
    bench.run("latency", events as u64, bench.rounds(3), plans)
}

impl Load {
    /// When each event is due, from the beginning.
    fn due(&self, quick: bool) -> Vec<Duration> {
        let seconds = if quick { self.seconds / 2.0 } else { self.seconds };
        let (count, gap) = ((self.events_per_s * seconds) as u64, 1.0 / self.events_per_s);
        let mut at = 0.0;
        let next = |number: u64| {
            // Even steps through the range in an order that has no beat: multiples of the golden ratio.
            let part = (number as f64 * 0.618_033_988_75).fract();
            at += gap * (self.gap_least + 2.0 * (1.0 - self.gap_least) * part);
            Duration::from_secs_f64(at)
        };
        (1..=count).map(next).collect()
    }
}

fn measure(bench: &Bench, url: &str, kind: Kind, load: &Load) -> anyhow::Result<Taken> {
    let due = load.due(bench.options.quick);
    let commands = commands(due.len());
    let mut redis = OnRedis::new(url.to_owned())?;
    redis::cmd("FLUSHALL").arg("SYNC").exec(redis.connection())?;
    redis::cmd("XGROUP").arg(&["CREATE", STREAM, GROUP, "0", "MKSTREAM"]).exec(redis.connection())?;
    let mut subject = Subject::start(kind, bench, url)?;
    wait_until_it_works(&mut subject, redis.connection(), due.len() as u64)?;

    let (cpu_s, redis_s, reads) = (subject.cpu_s()?, redis.cpu_s()?, subject.reads()?);
    let begin = Instant::now() + BEFORE;
    let give_up = begin + due.last().copied().unwrap_or_default() + LAST_MAX;
    let (seen, sent) = std::thread::scope(|scope| -> anyhow::Result<(Seen, Seen)> {
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let observer = thread("observe").spawn_scoped(scope, || observe(url, begin, due.len(), give_up))?;
        let publisher = thread("publish").spawn_scoped(scope, || publish(url, begin, &due, &commands))?;
        let broken = |_| anyhow::anyhow!("a thread of the open loop broke down");
        let sent = publisher.join().map_err(broken)??;
        Ok((observer.join().map_err(broken)??, sent))
    })?;
    let took = begin.elapsed();

    let events = due.len() as f64;
    let sample = Sample {
        events_per_s: events / took.as_secs_f64(),
        client_us: (subject.cpu_s()? - cpu_s) * 1e6 / events,
        redis_us: (redis.cpu_s()? - redis_s) * 1e6 / events,
        client_mib: subject.peak_mib()?,
    };
    let batch = events / (subject.reads()? - reads).max(1.0);
    subject.stop()?;
    // With the event that was put there to see whether it works.
    redis.check_acked(GROUP, due.len() as u64 + 1)?;
    let emitted: usize = redis::cmd("XLEN").arg(OUT).query(redis.connection())?;
    ensure!(emitted == due.len() + 1, "{} events have emitted {emitted}", due.len() + 1);
    let mut extra = quantiles(&due, &seen)?;
    let late = histogram(waits(&due, &sent))?.value_at_quantile(0.5) as f64 / 1e3;
    extra.extend([("batch", batch), ("late_us", late)]);
    Ok(Taken { sample, extra, settings: String::new() })
}

/// One event goes all the way, so that everything is started, compiled and connected.
fn wait_until_it_works(subject: &mut Subject, connection: &mut Connection, number: u64) -> anyhow::Result<()> {
    redis::cmd("XADD").arg(&[STREAM, "*", "event", &user_created(number)]).exec(connection)?;
    let give_up = Instant::now() + START_MAX;
    while redis::cmd("XLEN").arg(OUT).query::<u64>(connection)? == 0 {
        subject.lives()?;
        ensure!(Instant::now() < give_up, "nothing is emitted {START_MAX:?} after the start");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// From when each event was due until this happened to it, without the warm-up.
fn waits(due: &[Duration], happened: &[Duration]) -> impl Iterator<Item = Duration> {
    let counted = due.iter().zip(happened).filter(|(due, _)| **due >= WARM_UP);
    counted.map(|(due, happened)| happened.saturating_sub(*due))
}

/// From due to seen, in microseconds. A quantile beyond which not even one event lies is the greatest by another name, and
/// left out.
fn quantiles(due: &[Duration], seen: &Seen) -> anyhow::Result<Vec<(&'static str, f64)>> {
    let histogram = histogram(waits(due, seen))?;
    let us = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    let says = |quantile: f64| quantile == 1.0 || (1.0 - quantile) * histogram.len() as f64 >= 1.0;
    Ok(QUANTILES.iter().filter(|(_, it)| says(*it)).map(|(name, quantile)| (*name, us(*quantile))).collect())
}

const QUANTILES: [(&str, f64); 4] = [("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999), ("max_us", 1.0)];

/// In nanoseconds.
fn histogram(times: impl Iterator<Item = Duration>) -> anyhow::Result<Histogram<u64>> {
    let mut histogram = Histogram::new(3)?;
    for time in times {
        histogram.record(u64::try_from(time.as_nanos()).context("a time of centuries")?)?;
    }
    Ok(histogram)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_host_gets_an_event_each_50_to_100_ms() {
        let due = LOADS[0].due(false);
        let gaps: Vec<Duration> = due.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let ms = |gap: &Duration| gap.as_secs_f64() * 1e3;
        assert!(gaps.iter().all(|gap| (50.0..=100.3).contains(&ms(gap))), "{gaps:?}");
        let mean = gaps.iter().map(ms).sum::<f64>() / gaps.len() as f64;
        assert!((73.0..=77.0).contains(&mean), "{mean}");
    }

    #[test]
    fn the_clock_starts_when_an_event_is_due_and_the_warm_up_does_not_count() {
        let due: Vec<Duration> = (0..3000).map(Duration::from_millis).collect();
        // A second of silence at two seconds: all that was due in it is seen at its end, and waits show.
        let stalled = |due: &Duration| match due.as_millis() {
            0..1000 => *due + Duration::from_secs(9),
            2000..3000 => Duration::from_secs(3),
            _ => *due + Duration::from_micros(100),
        };
        let seen: Seen = due.iter().map(stalled).collect();
        let found = quantiles(&due, &seen).expect("quantiles");
        let of = |name| found.iter().find(|(found, _)| *found == name).map(|(_, us)| us.round()).expect("a quantile");
        assert!((of("p50_us") - 100.0).abs() <= 1.0, "half of them saw nothing of it: {found:?}");
        assert!((of("p99_us") - 980_000.0).abs() < 2_000.0, "{found:?}");
        assert!((of("max_us") - 1_000_000.0).abs() < 2_000.0, "{found:?}");
    }

    #[test]
    fn a_quantile_needs_an_event_beyond_it() {
        let names = |events: u64| {
            let due: Vec<Duration> = (0..events).map(|number| WARM_UP + Duration::from_millis(number)).collect();
            let found = quantiles(&due, &due).expect("quantiles");
            found.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names(90), ["p50_us", "max_us"]);
        assert_eq!(names(500), ["p50_us", "p99_us", "max_us"]);
        assert_eq!(names(1001), ["p50_us", "p99_us", "p999_us", "max_us"]);
    }
}
