//! The section `peers`: what people use today, beside raw Redis and beside us, in the same rounds.

use std::cell::RefCell;

use tidemill_benches::Case;

use crate::bench::{Bench, Plan, Taken};
use crate::drains::{of_case, without_aof};
use crate::model::Section;
use crate::on_redis::OnRedis;
use crate::peers::{self, PEERS, Peer};
use crate::{clients, drains};

/// Our own rows in it: the default, and what is compared with peers that do not start anew for each event.
const OURS: [(Case, u32); 3] = [(Case::Stateless, 1), (Case::Stateless, drains::INSTANCE_EVENTS), (Case::Emit, 1)];

pub(crate) fn run(bench: &Bench) -> anyhow::Result<Section> {
    peers::prepare(&tidemill_testkit::root())?;
    let server = without_aof();
    let redis = RefCell::new(OnRedis::new(server.url())?);
    let events = bench.events(50_000);
    let url = server.url();
    let raw = || clients::raw(bench, &mut redis.borrow_mut(), events);
    let mut plans = vec![Plan::new("raw", raw).with("XREADGROUP and XACK, 100 at a time")];
    plans.extend(OURS.map(|(case, instance_events_max)| of_case(bench, &redis, case, instance_events_max, events)));
    plans.extend(PEERS.iter().map(|peer| Plan::new(peer.name, || drain(bench, peer, events, &url)).with(peer.gives)));
    bench.run("peers", events, bench.rounds(3), plans)
}

fn drain(bench: &Bench, peer: &Peer, events: u64, url: &str) -> anyhow::Result<Taken> {
    let (sample, settings) = bench.runtime.block_on(async {
        let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
        peers::drain(peer, events, url, &mut connection).await
    })?;
    let settings = format!("{}: {settings}; {} events at most; {}", peer.language, peer.events_max, peer.gives);
    Ok(Taken { settings, ..sample.into() })
}
