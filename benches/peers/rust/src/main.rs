//! Peers written in Rust: `tidemill-peers PEER fill|drain URL EVENTS`. What the harness wants of them is in
//! `benches/peers/README.md`.

mod apalis_jobs;
mod event;
mod native;
mod sea;
mod span;

use anyhow::{Context, bail};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [peer, verb, url, events] = words.as_slice() else {
        bail!("say: tidemill-peers native|apalis|apalis-parallel|sea-streamer fill|drain URL EVENTS");
    };
    let events: u64 = events.parse().context("EVENTS is no number")?;
    match (peer.as_str(), verb.as_str()) {
        ("native", "fill") => native::fill(url, events).await,
        ("native", "drain") => native::drain(url, events).await,
        ("apalis" | "apalis-parallel", "fill") => apalis_jobs::fill(url, events).await,
        ("apalis", "drain") => apalis_jobs::drain(url, events, false).await,
        ("apalis-parallel", "drain") => apalis_jobs::drain(url, events, true).await,
        ("sea-streamer", "fill") => sea::fill(url, events).await,
        ("sea-streamer", "drain") => sea::drain(url, events).await,
        _ => bail!("there is no {peer} {verb}"),
    }
}
