//! Queues an e-mail for each new user and each new order, as `Notification.Email.Queued.v1`.
//!
//! It names the user, not the address: whoever sends the e-mail looks the address up, so that it is not copied around.

use tidemill_sdk::prelude::*;

handler!(handle);

#[derive(Deserialize)]
struct User {
    user_id: i64,
    username: String,
}

#[derive(Deserialize)]
struct Order {
    user_id: i64,
    order_number: String,
}

#[derive(Serialize)]
struct Email {
    template: &'static str,
    user_id: i64,
    reference: String,
}

fn handle(event: &Event) -> Result<(), Failure> {
    let email = match event.name().as_str() {
        "User.Created.v1" => {
            let User { user_id, username } = event.json()?;
            Email { template: "welcome", user_id, reference: username }
        }
        "Order.Created.v1" => {
            let Order { user_id, order_number } = event.json()?;
            Email { template: "order-confirmation", user_id, reference: order_number }
        }
        _ => return Err(event.unknown()),
    };
    emit("Notification.Email.Queued.v1", &email)?;
    Ok(())
}
