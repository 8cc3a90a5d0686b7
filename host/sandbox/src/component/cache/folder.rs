//! Whether a folder is Tidemill's own, or holds foreign files too, which are left alone.

use std::fs;
use std::io::{Error, Result};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The file of the MAC's key. A folder that has one is a cache.
pub(crate) const KEY: &str = "key";
pub(crate) const KEY_BYTES: usize = 32;
pub(crate) const CODE: &str = "cwasm";
/// What a file is called that is not finished; `files::beside` makes the name.
const UNFINISHED: &str = "tmp";
/// Of the name of compiled code, and of the random part of the name of an unfinished file.
const NAME_DIGITS: usize = 64;
const RANDOM_DIGITS: usize = 32;

pub(super) fn own(what: &Path, metadata: &fs::Metadata) -> Result<()> {
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner == user {
        return Ok(());
    }
    Err(Error::other(format!("{} belongs to user {owner}, and this is user {user}", what.display())))
}

/// Makes the folder for this user alone, or takes one that is. A folder of others' files is refused and left as it is.
pub(crate) fn private_folder(folder: &Path) -> Result<()> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    if let Err(error) = fs::DirBuilder::new().mode(0o700).create(folder)
        && !folder.is_dir()
    {
        return Err(error);
    }
    // The link itself first, if it is one: changing the mode of what another user's link leads to would be his doing.
    own(folder, &fs::symlink_metadata(folder)?)?;
    let metadata = fs::metadata(folder)?;
    own(folder, &metadata)?;
    match judge(folder, &metadata) {
        Ok(true) => fs::set_permissions(folder, fs::Permissions::from_mode(0o700)),
        // Its mode is what somebody wants it to be.
        Ok(false) => Ok(()),
        Err(why) => Err(Error::other(format!("{}: {why}", folder.display()))),
    }
}

/// Why nothing can be kept in this folder, if it is there. Nothing is made or changed.
pub fn why_not(folder: &Path) -> Option<String> {
    let metadata = fs::metadata(folder).ok()?;
    let judged = own(folder, &metadata).map_err(|error| error.to_string()).and_then(|()| judge(folder, &metadata));
    judged.err()
}

/// Whether it is a cache or empty, and so to be closed to others; false if others' files have come into a cache.
fn judge(folder: &Path, metadata: &fs::Metadata) -> std::result::Result<bool, String> {
    if !metadata.is_dir() {
        return Err("it is not a folder".to_owned());
    }
    let Some(stranger) = stranger(folder).map_err(|error| error.to_string())? else { return Ok(true) };
    if !is_key(&folder.join(KEY)) {
        let name = stranger.display();
        return Err(format!("it holds what is not Tidemill's, such as {name}: name an empty or a new folder"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err("others may write into it: chmod go-w it".to_owned());
    }
    Ok(false)
}

/// Whether it can be the key of a cache: a file called so by chance is not one.
fn is_key(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|about| about.is_file() && about.len() == KEY_BYTES as u64)
}

/// The first file there that is none of a cache's.
fn stranger(folder: &Path) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let name = PathBuf::from(entry?.file_name());
        let is_ours = is_code(&name) || is_unfinished(&name) || (name == Path::new(KEY) && is_key(&folder.join(KEY)));
        if !is_ours {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// `<64 hex digits>.cwasm`
pub(crate) fn is_code(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.strip_suffix(CODE).and_then(|name| name.strip_suffix('.')).is_some_and(|name| is_hex(name, NAME_DIGITS))
}

/// `<64 hex digits>.<32 hex digits>.tmp`, `key.<32 hex digits>.tmp`
pub(crate) fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mut parts = name.split('.');
    let (Some(of), Some(random), Some(UNFINISHED), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    (of == KEY || is_hex(of, NAME_DIGITS)) && is_hex(random, RANDOM_DIGITS)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    fn folder(mode: u32) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("tidemill-cache-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
        folder
    }

    fn mode(folder: &Path) -> u32 {
        fs::metadata(folder).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_folder_of_others_files_is_refused_and_left_as_it_is() {
        for name in ["notes.txt", "old.tmp", "key", "x.cwasm", ".hidden"] {
            let folder = folder(0o755);
            fs::write(folder.join(name), "theirs").unwrap();
            let said = private_folder(&folder).unwrap_err().to_string();
            assert!(said.contains("not Tidemill's") && said.contains(name) && said.contains("a new folder"), "{said}");
            assert_eq!(mode(&folder), 0o755, "{name}");
            assert!(why_not(&folder).is_some_and(|why| why.contains(name)));
            fs::remove_dir_all(&folder).unwrap();
        }
    }

    #[test]
    fn an_empty_folder_and_a_cache_are_closed_to_others() {
        let folder = folder(0o777);
        assert_eq!(why_not(&folder), None);
        private_folder(&folder).unwrap();
        assert_eq!(mode(&folder), 0o700, "it was empty");
        fs::write(folder.join(KEY), [0; KEY_BYTES]).unwrap();
        fs::write(folder.join(format!("{}.cwasm", "a".repeat(64))), "code").unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        private_folder(&folder).unwrap();
        assert_eq!(mode(&folder), 0o700, "it is a cache");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn others_files_in_a_cache_keep_its_mode_unless_others_may_write() {
        let folder = folder(0o755);
        fs::write(folder.join(KEY), [0; KEY_BYTES]).unwrap();
        fs::write(folder.join("theirs"), "x").unwrap();
        private_folder(&folder).unwrap();
        assert_eq!((mode(&folder), why_not(&folder)), (0o755, None));
        fs::set_permissions(&folder, Permissions::from_mode(0o775)).unwrap();
        assert!(private_folder(&folder).unwrap_err().to_string().contains("others may write into it"));
        assert_eq!(mode(&folder), 0o775);
        fs::remove_dir_all(&folder).unwrap();
    }
}
