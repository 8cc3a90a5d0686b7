//! Files of the configuration that the machine's other users may read, and should not; and a folder that is not ours to use.
//! Nothing here stops a host: it is said, and a person decides.

use std::path::Path;

use toml::Table;

use super::loading;
use super::token::{Error, Token};
use tidemill_config::check::ConfigFinding;
use tidemill_config::{Config, SecretFrom};
use tidemill_process::files::open_mode;
use tidemill_sandbox::component::cache;

pub(crate) fn findings(config: &Config) -> Vec<ConfigFinding> {
    let mut found = Vec::new();
    found.extend(password(&config.file));
    for (name, handler) in &config.handlers {
        for (secret, from) in &handler.secrets {
            let SecretFrom::File(path) = from else { continue };
            if let Some(mode) = open_mode(&config.path(path)) {
                let what = format!("anybody on this machine may read or write {} (mode {mode})", path.display());
                found.push(warning(format!("handlers.{name}.secrets.{secret}"), what, "chmod o= it"));
            }
        }
    }
    if config.http.is_some() {
        match Token::read(&config.token_file()) {
            // The host makes it.
            Ok(_) | Err(Error::Missing(_)) => {}
            Err(error) => {
                let text = error.to_string();
                let (what, hint) = text.split_once("\n  hint: ").unwrap_or((&text, ""));
                found.push(warning(
                    "http.token_file",
                    format!("{what}, so the API takes no requests that need it"),
                    hint,
                ));
            }
        }
    }
    if let Some(why) = cache::why_not(&loading::cache(config)) {
        let folder = loading::cache(config);
        let what = format!("{} is not used, and plugins are compiled at each start: {why}", folder.display());
        found.push(warning("host.cache", what, "name an empty or a new folder of this user's"));
    }
    found
}

fn warning(key: impl Into<String>, what: impl Into<String>, hint: impl Into<String>) -> ConfigFinding {
    ConfigFinding { key: key.into(), what: what.into(), hint: hint.into(), warning: true }
}

/// A password that stands in the file itself; one of a variable is not anybody's to read.
fn password(file: &Path) -> Option<ConfigFinding> {
    let mode = open_mode(file)?;
    let table: Table = std::fs::read_to_string(file).ok()?.parse().ok()?;
    let url = table.get("backend")?.get("url")?.as_str()?;
    bears_password(url).then(|| {
        warning(
            "backend.url",
            format!("it bears a password, and anybody on this machine may read the file (mode {mode})"),
            "chmod o= the file, or take the url out of it and set TIDEMILL__BACKEND__URL for the host",
        )
    })
}

/// `redis://user:password@host`, also where somebody forgot to encode a slash.
fn bears_password(url: &str) -> bool {
    let user = url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@'));
    user.and_then(|(user, _)| user.split_once(':')).is_some_and(|(_, password)| !password.is_empty())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use tidemill_config::read;

    #[test]
    fn a_password_is_found_where_it_is() {
        for (url, wanted) in [
            ("redis://:secret@h:1", true),
            ("redis://user:s/e@cret@h:1/0", true),
            ("redis://user@h", false),
            ("redis://user:@h", false),
            ("redis://h:1/0", false),
            ("sqlite:a:b@c.db", false),
        ] {
            assert_eq!(bears_password(url), wanted, "{url}");
        }
    }

    #[test]
    fn what_others_may_read_is_said_at_its_key() {
        let folder = std::env::temp_dir().join(format!("tidemill-exposed-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&folder).unwrap();
        let text = "[backend]\nurl = \"redis://:hunter2@h:1\"\n[http]\nlisten = \"127.0.0.1:1\"\n[host]\ncache = \"new\"\n\
                    [handlers.a]\nplugin = \"a\"\n[handlers.a.secrets]\nk = { file = \"k\" }\n";
        let (file, secret, token) = (folder.join("t.toml"), folder.join("k"), folder.join("tidemill.token"));
        fs::write(&file, text).unwrap();
        fs::write(&secret, "v").unwrap();
        let keys = |mode: u32| {
            for path in [&file, &secret, &token].into_iter().filter(|path| path.exists()) {
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            }
            let config = read::parse(text, &file, folder.clone(), &[]).unwrap();
            let found = findings(&config);
            assert!(
                found.iter().all(|finding| finding.warning && !finding.to_string().contains("hunter2")),
                "{found:?}"
            );
            found.into_iter().map(|finding| finding.key).collect::<Vec<_>>()
        };
        assert_eq!(keys(0o644), ["backend.url", "handlers.a.secrets.k"]);
        fs::write(&token, "0123456789abcdef").unwrap();
        assert_eq!(keys(0o644), ["backend.url", "handlers.a.secrets.k", "http.token_file"]);
        assert_eq!(keys(0o640), [""; 0]);
        fs::create_dir(folder.join("new")).unwrap();
        fs::write(folder.join("new/theirs"), "x").unwrap();
        assert_eq!(keys(0o600), ["host.cache"]);
        fs::remove_dir_all(&folder).unwrap();
    }
}
