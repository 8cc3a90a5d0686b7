//! Which draft of JSON Schema a schema is written in. What says nothing is draft 7.

use jsonschema::Draft;
use serde_json::Value;

/// The drafts that are read, by what `$schema` has after the scheme and before a last `#`.
const DRAFTS: [(&str, Draft); 3] = [
    ("json-schema.org/draft-04/schema", Draft::Draft4),
    ("json-schema.org/draft-06/schema", Draft::Draft6),
    ("json-schema.org/draft-07/schema", Draft::Draft7),
];
/// Where a file holds schemas that it refers to.
const HELD: [&str; 2] = ["definitions", "$defs"];

/// The draft of a whole file. The error says where another one is named, and what to do.
pub(crate) fn draft_of(schema: &Value) -> Result<Draft, String> {
    let draft = named(schema).map_err(|named| refused("", &named))?.unwrap_or(Draft::Draft7);
    let held = HELD.iter().filter_map(|place| Some((place, schema.get(place)?.as_object()?)));
    for (place, (name, inner)) in held.flat_map(|(place, all)| all.iter().map(move |held| (place, held))) {
        let at = || format!("/{place}/{}", name.replace('~', "~0").replace('/', "~1"));
        match named(inner) {
            Ok(Some(other)) if other != draft => return Err(refused(&at(), &inner["$schema"].to_string())),
            Ok(_) => {}
            Err(named) => return Err(refused(&at(), &named)),
        }
    }
    Ok(draft)
}

/// The draft that `$schema` names, if it is there; the error is what it names instead.
fn named(schema: &Value) -> Result<Option<Draft>, String> {
    let Some(named) = schema.get("$schema") else { return Ok(None) };
    let known = |text: &str| {
        let text = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
        DRAFTS.iter().find(|(name, _)| *name == text.strip_suffix('#').unwrap_or(text)).map(|(_, draft)| *draft)
    };
    named.as_str().and_then(known).map(Some).ok_or_else(|| named.to_string())
}

fn refused(at: &str, named: &str) -> String {
    format!(
        "{at}/$schema: {named} is not read: a file is of one draft, 4, 6 or 7\n  hint: write the schema in draft 7 with \
         \"$schema\": \"http://json-schema.org/draft-07/schema#\", where $defs is definitions and prefixItems is items"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn drafts_go_by_their_names() {
        for (schema, draft) in [
            (json!({}), Draft::Draft7),
            (json!(true), Draft::Draft7),
            (json!({ "$schema": "http://json-schema.org/draft-07/schema#" }), Draft::Draft7),
            (json!({ "$schema": "https://json-schema.org/draft-07/schema" }), Draft::Draft7),
            (json!({ "$schema": "http://json-schema.org/draft-06/schema#" }), Draft::Draft6),
            (json!({ "$schema": "http://json-schema.org/draft-04/schema#" }), Draft::Draft4),
            (json!({ "properties": { "$schema": { "type": "string" } } }), Draft::Draft7),
        ] {
            assert_eq!(draft_of(&schema), Ok(draft), "{schema}");
        }
    }

    #[test]
    fn other_drafts_are_refused_where_they_are_named() {
        let newer = "https://json-schema.org/draft/2020-12/schema";
        for (schema, wanted) in [
            (json!({ "$schema": newer }), "/$schema: \"https://json-schema.org/draft/2020-12/schema\" is not read"),
            (json!({ "$schema": "https://json-schema.org/draft/2019-09/schema" }), "/$schema: "),
            (json!({ "$schema": "http://json-schema.org/draft-03/schema#" }), "/$schema: "),
            (json!({ "$schema": "http://json-schema.org/schema#" }), "/$schema: "),
            (json!({ "$schema": 7 }), "/$schema: 7 is not read"),
            (json!({ "definitions": { "a/b": { "$schema": newer } } }), "/definitions/a~1b/$schema: \"https:"),
            (
                json!({ "$defs": { "a": { "$schema": "http://json-schema.org/draft-04/schema#" } } }),
                "/$defs/a/$schema: \"http://json-schema.org/draft-04/schema#\" is not read: a file is of one draft",
            ),
        ] {
            let said = draft_of(&schema).unwrap_err();
            assert!(said.starts_with(wanted) && said.contains("\n  hint: "), "{said}");
        }
    }
}
