//! Reading the file: TOML, then environment variables over it (`TIDEMILL__BACKEND__URL`), then the structs. An error
//! says which line, which key, and what the nearest known key is.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use super::Config;

/// The prefix of environment variables that stand for keys; segments are parted by two underscores.
pub const ENV_PREFIX: &str = "TIDEMILL__";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}: {cause}\n  hint: `tidemill init` makes a ready project; --config names another file", path.display())]
    Unreadable { path: PathBuf, cause: std::io::Error },
    #[error("{place}: {what}")]
    Wrong { place: String, what: String },
}

/// Reads the configuration of this file and of this process's environment.
pub fn read(path: &Path) -> Result<Config, Error> {
    let text = std::fs::read_to_string(path).map_err(|cause| Error::Unreadable { path: path.to_owned(), cause })?;
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    // Other variables are ignored, and need not be UTF-8.
    let text_of = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let variables: Vec<_> =
        std::env::vars_os().filter_map(text_of).filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect();
    parse(&text, path, folder, &variables)
}

pub fn parse(text: &str, path: &Path, folder: PathBuf, variables: &[(String, String)]) -> Result<Config, Error> {
    // The file by itself first: only its own text knows about lines.
    let mut config: Config = toml::from_str(text).map_err(|error| in_file(text, path, &error))?;
    if !variables.is_empty() {
        config = overlaid(text, path, variables)?;
    }
    config.folder = folder;
    config.file = path.to_owned();
    Ok(config)
}

fn in_file(text: &str, path: &Path, error: &toml::de::Error) -> Error {
    let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let place = line.map_or_else(|| path.display().to_string(), |line| format!("{}:{line}", path.display()));
    Error::Wrong { place, what: with_nearest(error.message()) }
}

/// Puts the variables over the file, one at a time, so that an error names the variable it comes from.
fn overlaid(text: &str, path: &Path, variables: &[(String, String)]) -> Result<Config, Error> {
    let mut table: Table = text.parse().map_err(|error| in_file(text, path, &error))?;
    let mut config = None;
    for (name, value) in variables {
        let wrong = |what: String| Error::Wrong { place: format!("environment variable {name}"), what };
        let keys: Vec<String> = name[ENV_PREFIX.len()..].split("__").map(str::to_lowercase).collect();
        put(&mut table, &keys, value_of(value, &keys)).map_err(wrong)?;
        config = Some(Config::deserialize(table.clone()).map_err(|error| wrong(with_nearest(error.message())))?);
    }
    config.map_or_else(|| toml::from_str(text).map_err(|error| in_file(text, path, &error)), Ok)
}

fn put(table: &mut Table, keys: &[String], value: Value) -> Result<(), String> {
    let Some((first, rest)) = keys.split_first() else { return Err("it names no key".to_owned()) };
    // Names of streams and handlers may hold dashes, which a variable's name cannot: `_` finds them too.
    let alike = |name: &&String| name.to_lowercase().replace('-', "_") == *first;
    let key = table.keys().find(alike).cloned().unwrap_or_else(|| first.clone());
    if rest.is_empty() {
        table.insert(key, value);
        return Ok(());
    }
    match table.entry(key).or_insert_with(|| Value::Table(Table::new())) {
        Value::Table(inner) => put(inner, rest, value),
        _ => Err(format!("\"{first}\" is a value, not a table")),
    }
}

/// `5`, `true` and `["a"]` as TOML reads them; everything else is text. What a plugin is handed is text in the end, and
/// so it is text from the beginning: `1.10` is no number there.
fn value_of(text: &str, keys: &[String]) -> Value {
    if let [first, _, third, ..] = keys
        && first == "handlers"
        && third == "config"
    {
        return text.into();
    }
    // Within brackets there is no room for a comment or a second key. A comma would be one more value.
    let read = format!("x = [{text}]").parse::<Table>().ok().and_then(|mut table| table.remove("x"));
    match read {
        Some(Value::Array(mut values)) if values.len() == 1 && !text.trim_end().ends_with(',') => values.remove(0),
        _ => text.into(),
    }
}

/// serde says: unknown field `retrry`, expected one of `plugin`, `events`. We say which one was meant. The same for a
/// value that is one of a few words.
fn with_nearest(message: &str) -> String {
    let message = message.trim_end();
    // A value in the wrong place may be a password: it is not repeated.
    for wrong in ["invalid type: string", "invalid value: string"] {
        if let Some((_, wanted)) = message.strip_prefix(wrong).and_then(|rest| rest.rsplit_once(", expected ")) {
            return format!("{wrong}, expected {wanted}");
        }
    }
    let of = |prefix: &str, what| message.strip_prefix(prefix).map(|rest| (what, rest));
    let Some((what, rest)) = of("unknown field ", "key").or_else(|| of("unknown variant ", "value")) else {
        return message.to_owned();
    };
    let mut quoted = rest.split('`').skip(1).step_by(2);
    let Some(unknown) = quoted.next() else { return message.to_owned() };
    let known: Vec<&str> = quoted.collect();
    match nearest(unknown, known.iter().copied()) {
        Some(near) => format!("unknown {what} \"{unknown}\"\n  hint: did you mean \"{near}\"?"),
        None => format!("unknown {what} \"{unknown}\"\n  hint: known here: {}", known.join(", ")),
    }
}

/// The known word that is closest, if it is close at all: the same beginning, or a slip of the fingers.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let close = |a: &str, b: &str| strsim::jaro_winkler(a, b).max(0.2 + strsim::normalized_damerau_levenshtein(a, b));
    let scored = known.map(|candidate| (close(word, candidate), candidate));
    scored.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let variables: Vec<_> = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        parse(text, Path::new("tidemill.toml"), PathBuf::new(), &variables).map_err(|error| error.to_string())
    }

    #[test]
    fn an_unknown_key_names_its_line_and_the_nearest_known_one() {
        let said =
            parsed("[backend]\nurl = \"sqlite::memory:\"\n\n[handlers.a]\nplugin = \"a.wasm\"\nevnts = []\n", &[])
                .unwrap_err();
        assert_eq!(said, "tidemill.toml:6: unknown key \"evnts\"\n  hint: did you mean \"events\"?");
        let said = parsed("[backnd]\n", &[]).unwrap_err();
        assert_eq!(said, "tidemill.toml:1: unknown key \"backnd\"\n  hint: did you mean \"backend\"?");
    }

    #[test]
    fn an_unknown_word_names_the_nearest_known_one() {
        let grants = |wasi: &str| {
            let text = format!("[handlers.a]\nplugin = \"a.wasm\"\n[handlers.a.grants]\nwasi = {wasi}\n");
            parsed(&text, &[]).map(|config| config.handlers["a"].grants.wasi.clone())
        };
        assert_eq!(grants("[\"clocks\", \"stdio\"]").unwrap(), [crate::WasiGrant::Clocks, crate::WasiGrant::Stdio]);
        let said = grants("[\"clock\"]").unwrap_err();
        assert_eq!(said, "tidemill.toml:4: unknown value \"clock\"\n  hint: did you mean \"clocks\"?");
        let said = grants("[\"sockets\"]").unwrap_err();
        assert_eq!(said, "tidemill.toml:4: unknown value \"sockets\"\n  hint: known here: clocks, random, stdio");
    }

    #[test]
    fn a_wrong_value_names_its_line() {
        let said = parsed("[handlers.a]\nplugin = \"a.wasm\"\ndeadline = \"soon\"\n", &[]).unwrap_err();
        assert!(said.starts_with("tidemill.toml:3: \"soon\" is not a duration"), "{said}");
        assert!(parsed("[host]\nworkers = -1\n", &[]).unwrap_err().starts_with("tidemill.toml:2"));
    }

    #[test]
    fn variables_lie_over_the_file() {
        let text = "[backend]\nurl = \"sqlite:a.db\"\n[handlers.payment-service]\nplugin = \"a.wasm\"\n";
        let variables =
            [("TIDEMILL__BACKEND__URL", "redis://h:1"), ("TIDEMILL__HANDLERS__PAYMENT_SERVICE__RETRY__MAX", "7")];
        let config = parsed(text, &variables).unwrap();
        assert_eq!((config.backend.url.expose(), config.handlers["payment-service"].retry.max), ("redis://h:1", 7));
        let said = parsed(text, &[("TIDEMILL__BACKEND__URLL", "x")]).unwrap_err();
        assert_eq!(
            said,
            "environment variable TIDEMILL__BACKEND__URLL: unknown key \"urll\"\n  hint: did you mean \"url\"?"
        );
    }
}
