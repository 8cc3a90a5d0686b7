//! Makes a document of search terms for each product, and tells so with `Search.Product.Indexed.v1`.
//!
//! State `document` = `{"name":"White Metal Lantern","status":"published","terms":["white","metal","lantern"]}`.
//! An archived product has none.

use tidemill_sdk::prelude::*;

handler!(handle);

/// Bounds, so that a long description makes neither a large state nor a slow handler.
const TERMS_MAX: usize = 64;
const TERM_CHARS_MIN: usize = 2;

#[derive(Deserialize)]
struct Product {
    product_id: i64,
    name: String,
    description: Option<String>,
    status: String,
}

#[derive(Serialize)]
struct Document {
    name: String,
    status: String,
    terms: Vec<String>,
}

fn handle(event: &Event) -> Result<(), Failure> {
    let Product { product_id, name, description, status } = event.json()?;
    if status == "archived" {
        state::delete("document");
        return Ok(());
    }
    let terms = terms(&name, description.as_deref().unwrap_or_default());
    let count = terms.len();
    state::set("document", &Document { name, status, terms })?;
    emit("Search.Product.Indexed.v1", &json!({ "product_id": product_id, "terms": count }))?;
    Ok(())
}

/// The words in lower case, each once, in the order in which they appear.
fn terms(name: &str, description: &str) -> Vec<String> {
    let mut terms = Vec::new();
    for word in [name, description].into_iter().flat_map(|text| text.split(|c: char| !c.is_alphanumeric())) {
        let term = word.to_lowercase();
        if term.chars().count() >= TERM_CHARS_MIN && !terms.contains(&term) {
            terms.push(term);
        }
        if terms.len() == TERMS_MAX {
            break;
        }
    }
    terms
}

#[cfg(test)]
mod tests {
    use super::{TERMS_MAX, terms};

    #[test]
    fn a_term_is_lower_case_unique_and_not_too_short() {
        assert_eq!(terms("White METAL Lantern", "a white lantern, 4x4"), ["white", "metal", "lantern", "4x4"]);
        assert_eq!(terms("CRÈME BRÛLÉE 茶杯", ""), ["crème", "brûlée", "茶杯"]);
        assert!(terms("", "a - b").is_empty());
    }

    #[test]
    fn terms_are_bounded() {
        let many = (0..1000).map(|n| format!("term{n} ")).collect::<String>();
        assert_eq!(terms("first", &many).len(), TERMS_MAX);
    }
}
