//! What secrets are on the host's side: values that are never written anywhere.
//!
//! A secret of `[handlers.NAME.secrets]` may stand in the headers of that handler's requests. To be read by the plugin
//! it has to be granted as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use tidemill_core::limits::SECRET_BYTES;

/// Shorter values are not looked for in what a plugin writes: they would be found everywhere.
const REDACTED_BYTES_MIN: usize = 6;

/// The value of a secret. It has no `Display`, and its `Debug` says nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Where a value comes from.
#[derive(Debug, Clone)]
pub enum SecretSource {
    Env(String),
    File(PathBuf),
}

/// The secrets of a handler.
#[derive(Debug, Default)]
pub struct Secrets {
    values: BTreeMap<String, Secret>,
    /// Those that the plugin may read; none = it has no `secrets` at all.
    readable: Option<BTreeSet<String>>,
}

impl Secrets {
    pub fn new(values: BTreeMap<String, Secret>, readable: Option<BTreeSet<String>>) -> Self {
        Self { values, readable }
    }

    /// From now on nothing is read that is not among these.
    pub fn narrow(&mut self, names: &[String]) {
        if let Some(readable) = &mut self.readable {
            readable.retain(|name| names.contains(name));
        }
    }

    /// Whether the interface is granted.
    pub fn readable(&self) -> bool {
        self.readable.is_some()
    }

    /// For a placeholder in a request.
    pub fn find(&self, name: &str) -> Option<&Secret> {
        self.values.get(name)
    }

    pub(super) fn read(&self, name: &str) -> Option<&Secret> {
        self.find(name).filter(|_| self.readable.iter().flatten().any(|granted| granted == name))
    }

    /// A plugin may write what it has read into its log or its reasons. There the value's name takes its place.
    pub(crate) fn redact(&self, mut text: String) -> String {
        for (name, Secret(value)) in self.values.iter().filter(|(_, secret)| secret.0.len() >= REDACTED_BYTES_MIN) {
            if text.contains(value) {
                text = text.replace(value, &format!("{{{{secret:{name}}}}}"));
            }
        }
        text
    }
}

/// Reads a value. The error says what is wrong and what to do, and never shows the value.
pub fn load(place: &SecretSource) -> Result<Secret, (String, String)> {
    let (value, from) = match place {
        SecretSource::Env(variable) => {
            let variable = variable_name(variable)?;
            let set = format!("set {variable} for the host, or name a file with {{ file = \"..\" }}");
            match std::env::var(variable) {
                Ok(value) => (value, format!("the environment variable {variable}")),
                Err(std::env::VarError::NotPresent) => {
                    return Err((format!("the environment variable {variable} is not set"), set));
                }
                Err(std::env::VarError::NotUnicode(_)) => {
                    return Err((format!("the environment variable {variable} is not UTF-8"), set));
                }
            }
        }
        SecretSource::File(path) => (read_file(path)?, path.display().to_string()),
    };
    let value = value.strip_suffix('\n').map_or(value.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    let max = SECRET_BYTES.as_u64() as usize;
    if value.is_empty() || value.len() > max {
        return Err((format!("{from} holds {} bytes", value.len()), format!("a secret has 1 to {max} bytes")));
    }
    Ok(Secret(value.to_owned()))
}

/// What is no variable's name may be the value itself, in the wrong place.
fn variable_name(text: &str) -> Result<&str, (String, String)> {
    let good =
        text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !text.starts_with(|c: char| c.is_ascii_digit());
    let wrong = || {
        let hint =
            "name the variable that holds the value, such as { env = \"BANK_KEY\" }; what stands there is not shown";
        ("its `env` is not the name of an environment variable".to_owned(), hint.to_owned())
    };
    (good && !text.is_empty()).then_some(text).ok_or_else(wrong)
}

fn read_file(path: &Path) -> Result<String, (String, String)> {
    let hint = || "write the value into that file, readable by the host alone (chmod 600)".to_owned();
    let wrong = |error: std::io::Error| (format!("cannot read {}: {error}", path.display()), hint());
    let file = std::fs::File::open(path).map_err(wrong)?;
    let mut value = String::new();
    // Room for the newline, and one byte more to see that it is too long.
    file.take(SECRET_BYTES.as_u64() + 3).read_to_string(&mut value).map_err(wrong)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o007 != 0) {
            tracing::warn!(path = %path.display(), "a secret's file is open to every user of this machine (hint: chmod 600)");
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reaches `SECRET_BYTES`.
    #[test]
    fn a_value_is_read_without_its_last_newline_and_never_shown() {
        let folder = std::env::temp_dir().join(format!("tidemill-secret-{}", uuid::Uuid::new_v4()));
        std::fs::write(&folder, "hunter22\r\n").unwrap();
        let secret = load(&SecretSource::File(folder.clone())).unwrap();
        assert_eq!((secret.expose(), format!("{secret:?}").as_str()), ("hunter22", "Secret(..)"));
        for longest in ["x".repeat(65_536), "x".repeat(65_536) + "\n", "x".repeat(65_536) + "\r\n"] {
            std::fs::write(&folder, longest).unwrap();
            assert_eq!(load(&SecretSource::File(folder.clone())).unwrap().expose().len(), 65_536);
        }
        for (text, said) in [("", "holds 0 bytes"), ("\n", "holds 0 bytes"), (&"x".repeat(65_537), "holds 65537 bytes")]
        {
            std::fs::write(&folder, text).unwrap();
            let (what, _) = load(&SecretSource::File(folder.clone())).unwrap_err();
            assert!(what.contains(said) && !what.contains("xx"), "{what}");
        }
        std::fs::write(&folder, b"hunter\xff").unwrap();
        let (what, _) = load(&SecretSource::File(folder.clone())).unwrap_err();
        assert!(what.contains("cannot read") && !what.contains("hunter"), "{what}");
        std::fs::remove_file(&folder).unwrap();
        assert!(load(&SecretSource::File(folder)).unwrap_err().1.contains("chmod 600"));
        let (what, hint) = load(&SecretSource::Env("TIDEMILL_TEST_NO_SUCH".to_owned())).unwrap_err();
        assert!(what.contains("is not set") && hint.contains("set TIDEMILL_TEST_NO_SUCH"), "{what} {hint}");
    }

    /// Reaches `REDACTED_BYTES_MIN`.
    #[test]
    fn only_what_is_granted_is_read_and_nothing_is_written() {
        let value = |text: &str| Secret(text.to_owned());
        let values = [("a".to_owned(), value("hunter")), ("b".to_owned(), value("short"))];
        let secrets = Secrets::new(values.into(), Some(["b".to_owned(), "c".to_owned()].into()));
        assert!(secrets.read("a").is_none() && secrets.read("b").is_some() && secrets.read("c").is_none());
        assert!(secrets.find("a").is_some(), "in a request it may stand");
        assert_eq!(secrets.redact("it is hunter, hunter!".to_owned()), "it is {{secret:a}}, {{secret:a}}!");
        assert_eq!(secrets.redact("short".to_owned()), "short", "it would be found everywhere");
    }
}
