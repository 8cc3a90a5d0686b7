//! Reading the store with raw Redis commands. The names of keys stand in `docs` and `delivery.md`; here they are
//! written once more, because the checker takes nothing from the host.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use redis::{Connection, RedisResult, Value, cmd, from_redis_value};

use super::{Counters, Dead, Found, Store, Waiting};

/// The consumer under whose name quarantined deliveries are pending. No host has a name like this.
const QUARANTINE: &str = "(quarantine)";
/// Read in one step.
const PAGE: usize = 1000;
/// A server that does not answer is an error, not a standstill.
const ANSWER_MAX: Duration = Duration::from_secs(10);

type Fields = HashMap<String, Vec<u8>>;

pub(super) fn read(store: &Store, url: &str) -> RedisResult<Found> {
    let mut server = connect(url)?;
    let Store { input, output, handler, .. } = store;
    let key = |what: &str| format!("{{{input}}}:tm:{what}:{handler}");
    let mut found = Found::default();
    for (_, mut fields) in range(&mut server, output, "-")? {
        found.emitted.extend(fields.remove("event"));
    }
    let (added, last) = group(&mut server, input, handler)?;
    for (entry, mut fields) in range(&mut server, input, &format!("({last}"))? {
        found.waiting.push(Waiting { place: "lag", entry, body: fields.remove("event") });
    }
    found.waiting.extend(pending(&mut server, input, handler)?);
    let redelivery = key("redelivery");
    let in_flight = pending(&mut server, &redelivery, handler)?;
    for (entry, mut fields) in range(&mut server, &redelivery, "-")? {
        if !in_flight.iter().any(|waiting| waiting.entry == entry) {
            found.waiting.push(Waiting { place: "redelivery", entry, body: fields.remove("event") });
        }
    }
    found.waiting.extend(in_flight);
    let due: BTreeMap<String, Vec<u8>> = cmd("HGETALL").arg(key("due") + ":body").query(&mut server)?;
    found.waiting.extend(due.into_iter().map(|(entry, body)| Waiting { place: "due", entry, body: Some(body) }));
    for (_, fields) in range(&mut server, &key("dead"), "-")? {
        found.dead.push(dead(&fields));
    }
    let keys: Vec<String> = cmd("ZRANGE").arg(key("keys")).arg(0).arg(-1).query(&mut server)?;
    for name in keys {
        let fields: Fields = cmd("HGETALL").arg(format!("{}:{name}", key("state"))).query(&mut server)?;
        found.state.insert(name, (number(&fields, "=count"), number(&fields, "=sum")));
    }
    let stats: Fields = cmd("HGETALL").arg(key("stats")).query(&mut server)?;
    let of = |name: &str| number(&stats, name);
    found.counters = Counters {
        published: added - of("base"),
        committed: of("committed"),
        skipped: of("skipped"),
        duplicates: of("duplicates"),
        retried: of("retried"),
        dropped: of("dropped"),
        strayed: of("strayed"),
        repeated: of("repeated"),
        torn: of("torn"),
    };
    Ok(found)
}

pub(super) fn pending_of(store: &Store, url: &str, consumer: &str) -> RedisResult<usize> {
    let mut server = connect(url)?;
    let redelivery = format!("{{{}}}:tm:redelivery:{}", store.input, store.handler);
    let mut count = 0;
    for key in [&store.input, &redelivery] {
        let mut ask = cmd("XPENDING");
        ask.arg(key).arg(&store.handler).arg("-").arg("+").arg(1_000_000).arg(consumer);
        count += ask.query::<Vec<Value>>(&mut server)?.len();
    }
    Ok(count)
}

fn connect(url: &str) -> RedisResult<Connection> {
    let server = redis::Client::open(url)?.get_connection_with_timeout(ANSWER_MAX)?;
    server.set_read_timeout(Some(ANSWER_MAX))?;
    Ok(server)
}

/// Entries ever added to a stream, and the last id that a group of it was given.
fn group(server: &mut Connection, stream: &str, group: &str) -> RedisResult<(u64, String)> {
    let about: HashMap<String, Value> = cmd("XINFO").arg("STREAM").arg(stream).query(server)?;
    let added = about.get("entries-added").cloned().map(from_redis_value).transpose()?.unwrap_or_default();
    let groups: Vec<HashMap<String, Value>> = cmd("XINFO").arg("GROUPS").arg(stream).query(server)?;
    for about in groups {
        let text = |name: &str| about.get(name).cloned().map_or_else(|| Ok(String::new()), from_redis_value);
        if text("name")? == group {
            return Ok((added, text("last-delivered-id")?));
        }
    }
    Ok((added, "0-0".to_owned()))
}

/// All entries from an id on, page by page.
fn range(server: &mut Connection, stream: &str, from: &str) -> RedisResult<Vec<(String, Fields)>> {
    let (mut all, mut from) = (Vec::new(), from.to_owned());
    loop {
        let page: Vec<(String, Fields)> =
            cmd("XRANGE").arg(stream).arg(&from).arg("+").arg("COUNT").arg(PAGE).query(server)?;
        let full = page.len() == PAGE;
        all.extend(page);
        match all.last() {
            Some((last, _)) if full => from = format!("({last}"),
            _ => return Ok(all),
        }
    }
}

fn pending(server: &mut Connection, stream: &str, group: &str) -> RedisResult<Vec<Waiting>> {
    let exists: bool = cmd("EXISTS").arg(stream).query(server)?;
    if !exists {
        return Ok(Vec::new());
    }
    let rows: Vec<(String, String, u64, u64)> =
        cmd("XPENDING").arg(stream).arg(group).arg("-").arg("+").arg(1_000_000).query(server)?;
    let mut found = Vec::with_capacity(rows.len());
    for (entry, consumer, _, _) in rows {
        let place = if consumer == QUARANTINE { "quarantined" } else { "pending" };
        let mut there: Vec<(String, Fields)> = cmd("XRANGE").arg(stream).arg(&entry).arg(&entry).query(server)?;
        found.push(Waiting { place, entry, body: there.pop().and_then(|(_, mut fields)| fields.remove("event")) });
    }
    Ok(found)
}

fn dead(fields: &Fields) -> Dead {
    let text = |name: &str| fields.get(name).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    Dead {
        class: text("class").unwrap_or_default(),
        text: text("text").unwrap_or_default(),
        body: fields.get("event").cloned().unwrap_or_default(),
        attempts: number(fields, "attempts"),
        crashes: number(fields, "crashes"),
    }
}

fn number<T: std::str::FromStr + Default>(fields: &Fields, name: &str) -> T {
    let text = fields.get(name).and_then(|bytes| std::str::from_utf8(bytes).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}
