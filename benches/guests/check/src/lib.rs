//! The stateless handler of the benches: reads the event's data, checks one member, asks for nothing.

use tidemill_sdk::prelude::*;

handler!(handle);

#[derive(Deserialize)]
struct User<'a> {
    email: &'a str,
}

fn handle(event: &Event) -> Result<(), Failure> {
    let user: User = event.json()?;
    if user.email.contains('@') { Ok(()) } else { Err(Failure::reject("an address without @")) }
}
