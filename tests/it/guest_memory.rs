//! What the SDK and the host promise of a guest's memory: it is used again, it suffices, and a stack that overflows traps.

use tidemill_core::model::outcome::{Crash, Outcome};
use tidemill_testkit::fuzz::effects::Puppet;

fn done(puppet: &mut Puppet, script: &str) {
    let event = puppet.event(script.as_bytes()).expect("a good script");
    let outcome = puppet.run(&event);
    assert!(matches!(outcome, Outcome::Done(_)), "{}: {outcome:?}", &script[..script.len().min(100)]);
}

/// A megabyte and more is allocated for each event, in pieces of all sizes; in all, a hundred times the memory there is.
#[test]
fn an_instance_that_lives_long_uses_its_memory_again() {
    let mut puppet = Puppet::new("instance_events_max = 1000\nlimits = { memory = \"8MiB\" }");
    for number in 0..1000 {
        let (small, large) = (1 + number % 500, 1000 * (1 + number % 400));
        let script = format!(
            r#"[{{"log":[0,"",["x",{small}]]}},{{"log":[0,"",["y",{large}]]}},{{"get":["z",{small}]}},{{"log":[0,["a",{small}],["b",{large}]]}}]"#
        );
        done(&mut puppet, &script);
    }
}

/// The bound is there: the same instance cannot hold more than it was given.
#[test]
fn more_than_the_memory_there_is_crashes_and_the_next_instance_works() {
    let mut puppet = Puppet::new("limits = { memory = \"2MiB\" }");
    let event = puppet.event(br#"[{"log":[0,"",["x",4000000]]}]"#).expect("a good script");
    let outcome = puppet.run(&event);
    assert!(matches!(outcome, Outcome::Crashed { crash: Crash::Memory, .. }), "{outcome:?}");
    done(&mut puppet, r#"[{"get":"n"}]"#);
}

#[test]
fn the_largest_event_fits_into_a_fresh_instance() {
    let mut puppet = Puppet::new("instance_events_max = 1");
    let script = format!(r#"[{{"log":[2,"","{}"]}}]"#, "x".repeat((1 << 20) - 500));
    done(&mut puppet, &script);
}

/// The guest's own stack lies below everything else in its memory, so that nothing is overwritten.
#[test]
fn a_stack_that_overflows_traps() {
    let mut puppet = Puppet::new("");
    done(&mut puppet, r#"[{"stack":60}]"#);
    let event = puppet.event(br#"[{"stack":5000}]"#).expect("a good script");
    let outcome = puppet.run(&event);
    let Outcome::Crashed { crash: Crash::Trap, reason, .. } = &outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("out of bounds memory access"), "{reason}");
    done(&mut puppet, r#"[{"stack":60}]"#);
}
