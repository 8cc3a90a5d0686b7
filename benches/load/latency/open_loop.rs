//! The two ends of the open loop: who publishes when it is time, and who sees what comes out.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use redis::streams::StreamReadReply;
use tidemill_benches::user_created;
use uuid::Uuid;

use crate::setup::{OUT, STREAM};

/// For each event, when it was seen, from the beginning.
pub(super) type Seen = Vec<Duration>;

/// Sleeping ends some 50 µs late. With gaps that are longer than this, the end of each is waited out awake, so that an
/// event is sent when it is due; with shorter ones that would take a core from those who are measured.
const AWAKE: Duration = Duration::from_micros(100);
const AWAKE_FOR_GAPS_OF: Duration = Duration::from_millis(1);
/// How long one look of the observer waits, and how many entries it takes.
const LOOK_MS: u64 = 200;
const LOOK_ENTRIES: usize = 1000;

/// The events, ready to be sent.
pub(super) fn commands(events: usize) -> Vec<Vec<u8>> {
    let command = |number| redis::cmd("XADD").arg(&[STREAM, "*", "event", &user_created(number)]).get_packed_command();
    (0..events as u64).map(command).collect()
}

/// Publishes each event when it is due, and never waits for an answer. Answers when each was sent, from the beginning.
pub(super) fn publish(
    url: &str,
    begin: Instant,
    due: &[Duration],
    commands: &[Vec<u8>],
) -> anyhow::Result<Vec<Duration>> {
    let address = url.trim_start_matches("redis://");
    let mut stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
    stream.set_nodelay(true)?;
    // Answers would only wake us. Whether all of it was published, the observer sees.
    stream.write_all(&redis::cmd("CLIENT").arg("REPLY").arg("OFF").get_packed_command())?;
    sleep_exactly();

    let gap = due.last().map_or(Duration::ZERO, |last| *last / due.len() as u32);
    let awake = if gap >= AWAKE_FOR_GAPS_OF { AWAKE } else { Duration::ZERO };
    let (mut sent, mut parcel) = (Vec::with_capacity(due.len()), Vec::new());
    while sent.len() < due.len() {
        let now = begin.elapsed();
        let ready = due[sent.len()..].iter().take_while(|due| **due <= now).count();
        if ready == 0 {
            match (due[sent.len()] - now).checked_sub(awake) {
                Some(time) => std::thread::sleep(time),
                None => std::hint::spin_loop(),
            }
            continue;
        }
        parcel.clear();
        commands[sent.len()..sent.len() + ready].iter().for_each(|command| parcel.extend_from_slice(command));
        stream.write_all(&parcel)?;
        sent.extend(std::iter::repeat_n(begin.elapsed(), ready));
    }
    Ok(sent)
}

/// Linux lets sleeps of a thread end up to 50 µs late, so that it can wake several at once. Where this cannot be changed,
/// events are sent a little later, which the row says (`late_us`).
fn sleep_exactly() {
    if let Ok(thread) = std::fs::read_link("/proc/thread-self")
        && let Some(thread) = thread.file_name()
    {
        let _ = std::fs::write(Path::new("/proc").join(thread).join("timerslack_ns"), "1");
    }
}

/// Sees the emitted events of all that are due; in its own thread, until the last one.
pub(super) fn observe(url: &str, begin: Instant, events: usize, give_up: Instant) -> anyhow::Result<Seen> {
    let mut connection = redis::Client::open(url)?.get_connection()?;
    let (mut seen, mut left, mut after) = (vec![None; events], events, "0".to_owned());
    while left > 0 {
        ensure!(Instant::now() < give_up, "{left} of {events} events have emitted nothing");
        let mut look = redis::cmd("XREAD");
        look.arg("BLOCK").arg(LOOK_MS).arg("COUNT").arg(LOOK_ENTRIES).arg("STREAMS").arg(OUT).arg(&after);
        let reply: Option<StreamReadReply> = look.query(&mut connection)?;
        let now = begin.elapsed();
        for entry in reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids) {
            let event: Vec<u8> = entry.get("event").context("an emitted entry without an event")?;
            let number = number(&event, CAUSE).context("an emitted event without a cause")?;
            after = entry.id;
            // Beyond the last one is the event that was there before the clock began.
            let Some(seen) = seen.get_mut(number) else { continue };
            ensure!(seen.replace(now).is_none(), "event {number} has emitted twice");
            left -= 1;
        }
    }
    Ok(seen.into_iter().flatten().collect())
}

/// The member of the envelope that says which event it is, and which event it follows from.
pub(super) const ID: &str = r#""event_id":""#;
const CAUSE: &str = r#""causation_id":""#;

/// The id in this member of an envelope. It is looked for as text, which costs the least while others are measured.
pub(super) fn id(event: &[u8], member: &str) -> Option<Uuid> {
    let at = event.windows(member.len()).position(|part| part == member.as_bytes())? + member.len();
    Uuid::try_parse_ascii(event.get(at..at + 36)?).ok()
}

/// Events of the bench are numbered in the lower half of their ids, below its highest bit.
fn number(event: &[u8], member: &str) -> Option<usize> {
    let (_, low) = id(event, member)?.as_u64_pair();
    usize::try_from(low & (u64::MAX >> 1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_an_event_is_in_its_id() {
        assert_eq!(number(user_created(4711).as_bytes(), ID), Some(4711));
        assert_eq!(number(b"{}", CAUSE), None);
    }
}
