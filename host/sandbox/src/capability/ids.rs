//! The ids of what a plugin asks for: events and timers. One delivery gives the same ids whenever and wherever it is tried
//! again, and no one else can predict them: a producer on the target could take one first, and what is really emitted
//! would be a duplicate.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::{Builder, Uuid};

/// Makes ids out of a secret that lies with the data ([`Membership::ids_key`](Membership::ids_key)).
#[derive(Clone, Copy, Default)]
pub struct Ids {
    key: [u8; 32],
}

impl Ids {
    /// By this secret. Without one (the default) they are good where nothing leaves the host.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// The id of one thing that a handler asks for on an event: a UUID of version 8 (RFC 9562), the first 128 bits of an
    /// HMAC-SHA256. `place` tells what it is, and its index.
    pub fn of(&self, event: Uuid, handler: &str, place: &str) -> Uuid {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("an HMAC takes a key of any length");
        mac.update(event.as_bytes());
        // No place has a slash in it, so handler and place cannot run into each other.
        [handler, "/", place].iter().for_each(|part| mac.update(part.as_bytes()));
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        Builder::from_custom_bytes(bytes).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_that_of_its_event_handler_place_and_secret() {
        let (ids, event) = (Ids::new([7; 32]), Uuid::from_u128(1));
        let id = ids.of(event, "shop", "0");
        assert_eq!(id, Ids::new([7; 32]).of(event, "shop", "0"), "on whatever host");
        assert_eq!(id.get_version_num(), 8);
        let others = [
            Ids::new([8; 32]).of(event, "shop", "0"),
            ids.of(Uuid::from_u128(2), "shop", "0"),
            ids.of(event, "shop", "1"),
            ids.of(event, "shop", "timer-0"),
            ids.of(event, "shop/0", "0"),
            ids.of(event, "sho", "0"),
        ];
        assert!(others.iter().all(|other| *other != id), "{others:?}");
    }
}
