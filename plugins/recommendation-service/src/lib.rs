//! Gives each new user a profile with a first set of picks, by the type of user.
//!
//! State `profile` = `{"user_type":"vendor","since":"2010-12-01T08:26:00Z","picks":["packaging","bulk-offers"]}`.

use tidemill_sdk::prelude::*;

handler!(handle);

const PICKS: [(&str, &[&str]); 3] = [
    ("customer", &["bestsellers", "gifts", "new-arrivals"]),
    ("vendor", &["packaging", "bulk-offers"]),
    ("admin", &["reports"]),
];

#[derive(Deserialize)]
struct User {
    user_type: String,
    created_at: String,
}

#[derive(Serialize)]
struct Profile<'a> {
    user_type: &'a str,
    since: &'a str,
    picks: &'a [&'a str],
}

fn handle(event: &Event) -> Result<(), Failure> {
    let User { user_type, created_at } = event.json()?;
    // A type that was added later gets no picks, but it gets a profile.
    let picks = PICKS.iter().find(|(for_type, _)| *for_type == user_type).map_or(&[][..], |(_, picks)| picks);
    state::set("profile", &Profile { user_type: &user_type, since: &created_at, picks })
}
