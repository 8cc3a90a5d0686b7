//! The one integration binary: rules told as stories, on real backends, with compiled guests.

mod backup;
mod bad_inputs;
mod bounds;
mod byte_bombs;
mod canary;
mod checks;
mod cli;
mod clocks;
mod compiling;
mod conformance;
mod dead;
mod doctor;
mod fuzzes;
mod guest_memory;
mod hostile;
mod http;
mod io_pool;
mod kills;
mod letters;
mod lives;
mod loopback;
mod loops;
mod metrics;
mod model;
mod people;
mod plugins;
mod proxy;
mod publishing;
mod redis_faults;
mod refusals;
mod reloads;
mod rollouts;
mod sandbox;
mod schemas;
mod secrets;
mod shadow;
mod site;
mod soaks;
mod stories;
mod tidy;
mod timers;
mod wasi;

/// Tells each story twice: on SQLite in memory, and on a real Redis.
macro_rules! on_both_backends {
    ($($(#[$doc:meta])* async fn $name:ident($url:ident: &str) $body:block)*) => {
        $($(#[$doc])* async fn $name($url: &str) $body)*
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() { super::$name("sqlite::memory:").await })*
        }
        mod on_redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() {
                super::$name(&tidemill_testkit::server::RedisServer::shared().url()).await
            })*
        }
    };
}
pub(crate) use on_both_backends;
