//! Each row of the hostile corpus is stopped where, and as what, its row says; and nothing that it asked for leaves.

use serde_json::Value;
use tidemill_testkit::hostile_guests::{HOSTILE_GUESTS, Stopped};
use tidemill_testkit::service::Service;
use tidemill_testkit::world::{NO_RETRY, World, refusal_of};

async fn meet(name: &str) {
    let guest = HOSTILE_GUESTS.iter().find(|guest| guest.name == name).expect("a row of the corpus");
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("hostile.wasm");
    std::fs::write(&plugin, (guest.plugin)()).unwrap();
    let service = Service::start();
    if let Stopped::AtLoad(words) = guest.stopped {
        let said = refusal_of(plugin, "emit = [\"Test.Thing.Done\"]\nstate = true\ntimer = true");
        return assert!(said.contains(words), "wanted {words}\n found {said}");
    }
    let mut world = World::of(&plugin, "sqlite::memory:", NO_RETRY, &guest.grants(&service)).await;
    world.config.host.http_private = guest.open().into_iter().map(Into::into).collect();
    world.ask(serde_json::from_str::<Value>(&guest.data(&service)).unwrap()).await;
    world.run().await;
    if let Stopped::InCall(class) = guest.stopped {
        let (letter, said) = world.only_dead().await;
        assert!(class.split('|').any(|one| letter.history[0].class == one), "{said}");
        assert_eq!(letter.history[0].log.len().min(10), letter.history[0].log.len(), "a record holds ten lines");
        assert!(said.len() < 10_000, "a reason is cut: {} bytes", said.len());
    } else {
        assert_eq!(world.status().await.committed, 1);
    }
    assert_eq!(world.emitted().await.len(), 0, "nothing leaves");
    assert!(service.asked().len() <= 1, "what it is told by a redirect is not followed: {:?}", service.asked());
}

macro_rules! rows {
    ($($test:ident $name:literal)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $test() { meet($name).await })*

        #[test]
        fn every_row_is_a_test() {
            let tests = [$($name),*];
            let missing: Vec<_> = HOSTILE_GUESTS.iter().map(|row| row.name).filter(|name| !tests.contains(name)).collect();
            assert!(missing.is_empty(), "add to `rows!`: {missing:?}");
        }
    };
}

rows! {
    an_endless_loop "endless-loop"
    // Reaches `START_MAX`.
    a_loop_in_start "loop-in-start"
    a_memory_bomb "memory-bomb"
    a_memory_bomb_in_start "memory-bomb-in-start"
    two_memories "two-memories"
    many_memories "many-memories"
    a_table_bomb "table-bomb"
    two_tables "two-tables"
    a_stack_bomb "stack-bomb"
    deep_recursion "deep-recursion"
    a_million_emits "million-emits"
    attributes_without_end "attributes-without-end"
    a_return_of_20_mb "20-mb-return"
    a_return_of_1_gb "1-gb-return"
    a_state_bomb "state-bomb"
    names_of_state "state-names"
    a_log_flood "log-flood"
    long_log_lines "log-lines-of-1-mib"
    a_host_call_storm "host-call-storm"
    a_hoard_of_handles "handles"
    bad_utf8_in_a_reason "bad-utf8-reason"
    bad_utf8_in_an_emit "bad-utf8-emit"
    huge_data "huge-data"
    a_wrong_world "wrong-world"
    a_wrong_version "wrong-version"
    an_ungranted_import "ungranted-import"
    a_core_module "core-module"
    a_compile_bomb "compile-bomb"
    a_blocking_poll "blocking-poll"
    a_sleep_in_http "sleep-in-http"
    ssrf_by_address "ssrf-by-address"
    ssrf_by_name "ssrf-by-name"
    ssrf_by_redirect "ssrf-by-redirect"
}
