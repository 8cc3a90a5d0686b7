//! Where and with what it is measured; nothing that names the machine.

use tidemill_testkit::server::RedisServer;

use crate::model::Machine;

const KIB_PER_GIB: f64 = 1024.0 * 1024.0;

pub(crate) fn machine() -> Machine {
    let server = RedisServer::start(&["--save", ""]);
    let cpuinfo = read("/proc/cpuinfo");
    let meminfo = read("/proc/meminfo");
    let kib: f64 = field(&meminfo, "MemTotal").trim_end_matches("kB").trim().parse().unwrap_or_default();
    Machine {
        when: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        cpu: field(&cpuinfo, "model name").to_owned(),
        // Without what the one who built it has added.
        kernel: read("/proc/sys/kernel/osrelease").split('-').next().unwrap_or_default().trim().to_owned(),
        memory_gib: (kib / KIB_PER_GIB).round() as u64,
        redis: server.info("redis_version"),
        profile: if cfg!(debug_assertions) { "dev" } else { "release" }.to_owned(),
        tidemill: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Empty where the system has no such file.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
    found.unwrap_or_default().trim()
}
