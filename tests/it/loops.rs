//! Handlers that emit what they want themselves: the host counts the hops, and a bound ends them.

use serde_json::{Value, json};
use tidemill_testkit::world::{NO_RETRY, World, event};
use uuid::Uuid;

/// The handler may emit what it wants.
fn in_a_circle(world: &mut World, hops: u32) {
    let handler = world.config.handlers.get_mut("mischief").expect("the handler");
    handler.grants.emit.get_or_insert_default().push("Test.Thing.Asked".to_owned().into());
    handler.limits.hops = hops;
}

async fn world(url: &str, hops: u32) -> World {
    let mut world = World::new(url, NO_RETRY).await;
    in_a_circle(&mut world, hops);
    world
}

crate::on_both_backends! {
    /// Reaches `HOPS`.
    async fn an_emit_loop_ends_at_its_bound(url: &str) {
        let world = world(url, 5).await;
        world.ask(json!({ "do": "emit-again" })).await;
        world.run().await;
        let status = world.status().await;
        assert_eq!((status.published, status.committed, status.dead), (6, 5, 1), "{status:?}");
        let (letter, said) = world.only_dead().await;
        assert!(said.starts_with("looped: emit: Test.Thing.Asked.v1 would be hop 6"), "{said}");
        assert!(said.contains("at most 5 (limits.hops)"), "{said}");
        assert_eq!(letter.history.len(), 1, "it is run once");
    }

    async fn a_loop_that_fans_out_is_bounded_and_what_was_refused_has_no_effect(url: &str) {
        let world = world(url, 3).await;
        world.ask(json!({ "do": "emit-again", "count": 2, "stubborn": true })).await;
        world.run().await;
        let status = world.status().await;
        assert_eq!((status.published, status.committed, status.dead), (1 + 2 + 4 + 8, 7, 8), "{status:?}");
    }

    async fn the_hops_stand_in_the_envelope(url: &str) {
        let world = world(url, 64).await;
        world.ask(json!({ "do": "emit-many", "count": 1 })).await;
        world.run().await;
        let emitted = world.emitted().await;
        assert_eq!(emitted[0]["tidemill_hops"], json!(1));
    }

    async fn a_hop_count_from_outside_breaks_nothing(url: &str) {
        let world = world(url, 5).await;
        let with = |hops: Value| {
            let mut event = event(Uuid::new_v4(), json!({ "do": "emit-many", "count": 1 }));
            event["tidemill_hops"] = hops;
            event.to_string()
        };
        for wrong in [json!(-1), json!(u64::MAX), json!("3"), json!(1.5), json!(null), json!([]), json!({})] {
            world.put(with(wrong)).await;
        }
        world.put(with(json!(4))).await;
        world.put(with(json!(5))).await;
        world.run().await;
        let status = world.status().await;
        assert_eq!((status.committed, status.dead), (8, 1), "only one is a count, and too large: {status:?}");
        let hops: Vec<Value> = world.emitted().await.into_iter().map(|event| event["tidemill_hops"].clone()).collect();
        assert_eq!(hops, [1, 1, 1, 1, 1, 1, 1, 5].map(|hops| json!(hops)));
    }

    async fn timers_are_no_hops_and_hand_the_count_on(url: &str) {
        let world = world(url, 2).await;
        let chain = |then: Value| json!({ "do": "timer", "after_ms": 1, "then": then });
        let last = json!({ "do": "emit-many", "count": 1 });
        let mut data = last;
        for _ in 0..5 {
            data = chain(data);
        }
        let mut event = event(Uuid::new_v4(), data);
        event["tidemill_hops"] = json!(1);
        world.put(event.to_string()).await;
        world.run().await;
        let status = world.status().await;
        assert_eq!((status.timers, status.committed, status.dead), (5, 6, 0), "{status:?}");
        assert_eq!(world.emitted().await[0]["tidemill_hops"], json!(2));
    }
}
