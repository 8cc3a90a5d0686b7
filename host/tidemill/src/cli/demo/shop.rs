//! A shop's day, made up: users, products, SKUs and orders, with the dirt of real life in known amounts. The same seed
//! makes the same events.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use tidemill_core::clock;

const COUNTRIES: [&str; 6] = ["United Kingdom", "Germany", "France", "Norway", "EIRE", "Japan"];
const WORDS: [&str; 12] =
    ["white", "metal", "lantern", "heart", "cream", "cupid", "hanger", "knitted", "union", "flag", "bottle", "set"];

/// Of a thousand events: invalid ones, repeated ones, and orders in trouble.
const INVALID_PER_MILLE: u32 = 10;
const REPEATED_PER_MILLE: u32 = 10;
const TROUBLED_PER_MILLE: u32 = 5;

/// What was made, kept apart from the host: the demo's own counters.
#[derive(Debug, Default, Clone)]
pub(crate) struct Truth {
    /// Entries on each of the three streams.
    pub users: u64,
    pub(crate) products: u64,
    pub(crate) orders: u64,
    /// Of those: valid and not a repetition.
    pub(crate) good_users: u64,
    pub(crate) good_products: u64,
    pub(crate) good_orders: u64,
    pub(crate) invalid_users: u64,
    pub(crate) invalid_products: u64,
    pub(crate) invalid_orders: u64,
    /// SKU events lie on the products' stream, and no handler takes them.
    pub(crate) skus: u64,
    pub(crate) archived_products: u64,
    pub repeated: u64,
    pub(crate) fail_once: u64,
    pub(crate) fail_always: u64,
    /// Distinct SKUs, summed over the good orders.
    pub(crate) reservations: u64,
}

pub(crate) struct Made {
    pub stream: &'static str,
    pub body: Bytes,
}

#[derive(Clone, Copy, PartialEq)]
enum Trouble {
    None,
    Once,
    Always,
}

pub(super) struct Shop {
    rng: StdRng,
    now: String,
    serial: u64,
    pub(crate) truth: Truth,
    /// Good events made before, to be repeated.
    last: Option<(&'static str, Bytes)>,
}

impl Shop {
    pub(super) fn new(seed: u64) -> Self {
        let now = clock::now_rfc3339().to_string();
        Self { rng: StdRng::seed_from_u64(seed), now, serial: 0, truth: Truth::default(), last: None }
    }

    /// The next event, as some producer would put it on its stream: it is not validated yet.
    pub(super) fn make(&mut self) -> Made {
        if self.one_in_thousand(REPEATED_PER_MILLE)
            && let Some((stream, body)) = self.last.clone()
        {
            self.truth.repeated += 1;
            self.count(stream);
            return Made { stream, body };
        }
        self.serial += 1;
        let invalid = self.one_in_thousand(INVALID_PER_MILLE);
        let (stream, body) = match self.rng.random_range(0..100) {
            0..30 => self.user(invalid),
            30..45 => self.product(invalid),
            45..55 => self.sku(),
            _ => self.order(invalid),
        };
        self.count(stream);
        let body = Bytes::from(body);
        // Not what fails: how often its copy fails too depends on which comes first.
        if !invalid && stream != "product-events" && !body.windows(8).any(|part| part == b"simulate") {
            self.last = Some((stream, body.clone()));
        }
        Made { stream, body }
    }

    fn count(&mut self, stream: &str) {
        match stream {
            "user-events" => self.truth.users += 1,
            "product-events" => self.truth.products += 1,
            _ => self.truth.orders += 1,
        }
    }

    fn one_in_thousand(&mut self, per_mille: u32) -> bool {
        self.rng.random_range(0..1000) < per_mille
    }

    fn envelope(&mut self, kind: &str, attributes: &str, data: &str) -> String {
        let id = Uuid::from_u128(self.rng.random()).to_string();
        let now = &self.now;
        format!(
            r#"{{"event_id":"{id}","event_type":"{kind}","version":"1","timestamp":"{now}","correlation_id":"{id}",{attributes}"data":{data}}}"#
        )
    }

    fn user(&mut self, invalid: bool) -> (&'static str, String) {
        let (id, now) = (self.serial, self.now.clone());
        let email = if invalid { "nobody".to_owned() } else { format!("user-{id}@example.com") };
        let kind = ["customer", "vendor", "admin"][self.rng.random_range(0..3)];
        let data = format!(
            r#"{{"user_id":{id},"username":"user-{id}","email":"{email}","created_at":"{now}","user_type":"{kind}"}}"#
        );
        self.truth.good_users += u64::from(!invalid);
        self.truth.invalid_users += u64::from(invalid);
        ("user-events", self.envelope("User.Created", "", &data))
    }

    fn product(&mut self, invalid: bool) -> (&'static str, String) {
        let (id, now) = (self.serial, self.now.clone());
        let status = if invalid { "lost" } else { ["draft", "published", "archived"][self.rng.random_range(0..3)] };
        let name: Vec<&str> = (0..4).map(|_| WORDS[self.rng.random_range(0..WORDS.len())]).collect();
        let data = format!(
            r#"{{"product_id":{id},"name":"{}","category_id":7,"status":"{status}","created_by":1,"created_at":"{now}"}}"#,
            name.join(" ")
        );
        self.truth.good_products += u64::from(!invalid);
        self.truth.invalid_products += u64::from(invalid);
        self.truth.archived_products += u64::from(status == "archived");
        ("product-events", self.envelope("Product.Created", "", &data))
    }

    fn sku(&mut self) -> (&'static str, String) {
        let (id, now) = (self.serial, self.now.clone());
        let data = format!(
            r#"{{"sku_id":{id},"product_id":1,"sku_code":"S{id}","name":"sku","price":2.55,"is_active":true,"created_by":1,"created_at":"{now}"}}"#
        );
        self.truth.skus += 1;
        ("product-events", self.envelope("SKU.Created", "", &data))
    }

    fn order(&mut self, invalid: bool) -> (&'static str, String) {
        let (id, now) = (self.serial, self.now.clone());
        let lines = self.rng.random_range(1..5u64);
        let first_sku = self.rng.random_range(0..500u64);
        let mut cents = 0;
        let items: Vec<String> = (0..lines)
            .map(|line| {
                let (sku, quantity, price) = (first_sku + line, self.rng.random_range(1..9u64), self.rng.random_range(99..2000u64));
                cents += quantity * price;
                let quantity_written = if invalid { -1 } else { quantity as i64 };
                let (unit, subtotal) = (money(price), money(quantity * price));
                format!(
                    r#"{{"product_id":{sku},"sku_id":{sku},"sku_code":"S{sku}","product_name":"p","sku_name":"s","quantity":{quantity_written},"unit_price":{unit},"subtotal":{subtotal}}}"#
                )
            })
            .collect();
        let country = COUNTRIES[self.rng.random_range(0..COUNTRIES.len())];
        let trouble = self.trouble(invalid);
        if invalid {
            self.truth.invalid_orders += 1;
        } else {
            self.truth.good_orders += 1;
            self.truth.reservations += lines;
        }
        let attributes = match trouble {
            Trouble::None => "",
            Trouble::Once => r#""attributes":{"simulate":"fail-once"},"#,
            Trouble::Always => r#""attributes":{"simulate":"fail-always"},"#,
        };
        let data = format!(
            r#"{{"order_id":{id},"order_number":"{id}","user_id":{id},"total_amount":{},"status":"confirmed","items":[{}],"shipping_address":{{"recipient":"r","phone":"","address":"a","city":"c","province":"{country}"}},"created_at":"{now}"}}"#,
            money(cents),
            items.join(",")
        );
        ("order-events", self.envelope("Order.Created", attributes, &data))
    }

    /// A payment that fails once, or always. Orders are under half of all events, so their share is doubled.
    fn trouble(&mut self, invalid: bool) -> Trouble {
        if invalid || !self.one_in_thousand(TROUBLED_PER_MILLE * 2) {
            return Trouble::None;
        }
        if self.rng.random_bool(0.7) {
            self.truth.fail_once += 1;
            Trouble::Once
        } else {
            self.truth.fail_always += 1;
            Trouble::Always
        }
    }
}

/// 1234 cents -> 12.34
fn money(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_shop_again() {
        let truth = |seed| {
            let mut shop = Shop::new(seed);
            (0..2000).for_each(|_| drop(shop.make()));
            format!("{:?}", shop.truth)
        };
        assert_eq!(truth(1), truth(1));
        assert_ne!(truth(1), truth(2));
    }

    #[test]
    fn what_is_made_is_json() {
        let mut shop = Shop::new(3);
        for _ in 0..500 {
            let made = shop.make();
            serde_json::from_slice::<serde_json::Value>(&made.body).unwrap();
        }
    }
}
