//! The folder of compiled code, which several hosts may share.
//!
//! Compiled code is native code: whoever can write a file here can run anything in this process. So a file is taken only
//! if (1) folder and file are this user's and written by nobody else, and neither is somebody's symbolic link, (2) its
//! name is the hash of the component, the engine's settings and this host's version, and (3) it carries a MAC under a key
//! that lies in that folder with mode 0600. Compiled code is never accepted from anywhere else.
//!
//! Of the folder's files only those that bear such names are touched. A folder of somebody else's files does not become a
//! cache: it would have to be closed to others.

mod folder;

use std::fs::{self, File, OpenOptions};
use std::io::{Error, Read, Result};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

pub use super::cache::folder::why_not;
use super::cache::folder::{CODE, KEY, KEY_BYTES, is_code, is_unfinished, own, private_folder};
use tidemill_core::limits;
use tidemill_process::files::{link_once, write_beside};

const MAC_BYTES: usize = 32;

/// After this long, an unfinished file is one that a dead process left.
const UNFINISHED_MAX: Duration = Duration::from_secs(3600);

/// The folder of compiled code, or none where it cannot be had: then everything is compiled each time.
pub(crate) struct Cache {
    place: Option<CacheSlot>,
    bytes_max: u64,
}

struct CacheSlot {
    folder: PathBuf,
    key: [u8; KEY_BYTES],
}

impl Cache {
    /// Opens (makes) the cache in this folder; it is held to so many bytes.
    pub(crate) fn open(folder: &Path, bytes_max: u64) -> Self {
        let place =
            private_folder(folder).and_then(|()| key(folder)).map(|key| CacheSlot { folder: folder.to_owned(), key });
        let place = place.map_err(|error| {
            tracing::warn!(folder = %folder.display(), %error, "no cache for compiled plugins; they are compiled at each start");
        });
        Self { place: place.ok(), bytes_max }
    }

    pub(crate) fn none() -> Self {
        Self { place: None, bytes_max: 0 }
    }

    /// The code of this name, if it is there and ours.
    pub(crate) fn get(&self, name: &str) -> Option<Vec<u8>> {
        let place = self.place.as_ref()?;
        read_checked(&place.path(name), &place.key)
    }

    /// Keeps the code, and evicts the least recently used. What cannot be kept is compiled again next time.
    pub(crate) fn put(&self, name: &str, code: &[u8]) {
        let Some(place) = &self.place else { return };
        if code.len() as u64 > self.bytes_max {
            return;
        }
        let path = place.path(name);
        if let Err(error) = write_checked(&path, &place.key, code).and_then(|()| sweep(&place.folder, self.bytes_max)) {
            tracing::warn!(path = %path.display(), %error, "cannot keep compiled code");
        }
    }
}

impl CacheSlot {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.{CODE}"))
    }
}

/// Opens a plain file of this user's; a link is not followed.
fn open(path: &Path) -> Result<(File, fs::Metadata)> {
    let no_follow = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(no_follow.bits().cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    own(path, &metadata)?;
    if !metadata.is_file() || metadata.mode() & 0o022 != 0 {
        return Err(Error::other(format!("{} is not a file that only this user can write", path.display())));
    }
    Ok((file, metadata))
}

/// The MAC key of the folder; made at first use. Of hosts that make it at the same time one comes first.
fn key(folder: &Path) -> Result<[u8; KEY_BYTES]> {
    let path = folder.join(KEY);
    if !path.exists() {
        let mut key = [0u8; KEY_BYTES];
        for part in key.chunks_mut(16) {
            part.copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        }
        link_once(&write_beside(&path, &[&key])?, &path)?;
    }
    let mut read = Vec::new();
    open(&path)?.0.take(64).read_to_end(&mut read)?;
    read.try_into().map_err(|_| Error::other(format!("{} is not a key; delete it", path.display())))
}

/// The names all have one length, so name and code cannot run into each other.
fn mac(key: &[u8; KEY_BYTES], path: &Path, code: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("an HMAC takes a key of any length");
    mac.update(path.file_name().unwrap_or_default().as_encoded_bytes());
    mac.update(code);
    mac
}

/// The code in the file, if the file is ours and its MAC holds.
fn read_checked(path: &Path, key: &[u8; KEY_BYTES]) -> Option<Vec<u8>> {
    let (mut file, metadata) = match open(path) {
        Ok(opened) => opened,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "compiled code in the cache is not trusted; recompiling");
            return None;
        }
    };
    let mut bytes = Vec::new();
    if metadata.len() > limits::COMPILED_BYTES.as_u64() + MAC_BYTES as u64 || file.read_to_end(&mut bytes).is_err() {
        return None;
    }
    let code_len = bytes.len().checked_sub(MAC_BYTES)?;
    let (code, tag) = bytes.split_at(code_len);
    if mac(key, path, code).verify_slice(tag).is_err() {
        tracing::warn!(path = %path.display(), "compiled code in the cache fails its MAC check; recompiling");
        return None;
    }
    // When it was used last; if that cannot be noted, it only goes earlier.
    let _ = file.set_modified(SystemTime::now());
    bytes.truncate(code_len);
    Some(bytes)
}

fn write_checked(path: &Path, key: &[u8; KEY_BYTES], code: &[u8]) -> Result<()> {
    let tag = mac(key, path, code).finalize().into_bytes();
    // Renamed into its place: a reader sees the whole file or none.
    write_beside(path, &[code, &tag]).and_then(|beside| fs::rename(beside, path))
}

/// Evicts the least recently used, until the rest fits. Another host may do the same at the same time, or hold
/// open what goes: it keeps reading it.
fn sweep(folder: &Path, bytes_max: u64) -> Result<()> {
    let now = SystemTime::now();
    let (mut codes, mut bytes) = (Vec::new(), 0);
    for entry in fs::read_dir(folder)?.flatten() {
        // Of the entry itself: a link is neither followed nor removed.
        let Ok(metadata) = entry.metadata() else { continue };
        let used = metadata.modified().unwrap_or(now);
        let path = entry.path();
        if !metadata.is_file() {
            continue;
        }
        if is_code(&path) {
            bytes += metadata.len();
            codes.push((used, metadata.len(), path));
        } else if is_unfinished(&path) && now.duration_since(used).is_ok_and(|age| age > UNFINISHED_MAX) {
            drop(fs::remove_file(path));
        }
    }
    codes.sort();
    for (_, size, path) in codes {
        if bytes <= bytes_max {
            break;
        }
        // What cannot be removed may be gone already.
        let _ = fs::remove_file(path);
        bytes -= size;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn cache(bytes_max: u64) -> (PathBuf, Cache) {
        let folder = std::env::temp_dir().join(format!("tidemill-cache-{}", uuid::Uuid::new_v4()));
        let cache = Cache::open(&folder, bytes_max);
        assert!(cache.place.is_some());
        (folder, cache)
    }

    #[test]
    fn changed_code_is_not_loaded() {
        let (folder, cache) = cache(1000);
        cache.put("x", b"code");
        assert_eq!(cache.get("x").as_deref(), Some(&b"code"[..]));
        fs::rename(folder.join("x.cwasm"), folder.join("y.cwasm")).unwrap();
        assert_eq!(cache.get("y"), None, "another name");
        let path = folder.join("x.cwasm");
        cache.put("x", b"code");
        assert_eq!(read_checked(&path, &[0; KEY_BYTES]), None, "another key");
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(cache.get("x"), None, "one bit flipped");
        fs::write(&path, b"short").unwrap();
        assert_eq!(cache.get("x"), None, "cut off");
        fs::remove_dir_all(&folder).unwrap();
    }

    /// Reaches `CACHE_BYTES`.
    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let (folder, cache) = cache(3 * (100 + MAC_BYTES as u64));
        let long = |name: &str| name.repeat(64);
        let age = |name: &str, secs: u64| {
            let file = File::options().write(true).open(folder.join(format!("{}.cwasm", long(name)))).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(secs)).unwrap();
        };
        for (name, secs) in [("a", 300), ("b", 200), ("c", 100)] {
            cache.put(&long(name), &[0; 100]);
            age(name, secs);
        }
        assert!(cache.get(&long("a")).is_some(), "used just now");
        cache.put(&long("d"), &[0; 100]);
        let there = |name: &str| folder.join(format!("{}.cwasm", long(name))).exists();
        assert_eq!(["a", "b", "c", "d"].map(there), [true, false, true, true]);
        cache.put(&long("e"), &[0; 1000]);
        assert_eq!(["a", "c", "d", "e"].map(there), [true, true, true, false], "larger than the whole cache");
        fs::remove_dir_all(&folder).unwrap();
    }

    /// Reaches `UNFINISHED_MAX`.
    #[test]
    fn what_a_dead_host_left_unfinished_goes_and_everything_else_stays() {
        let (folder, cache) = cache(1000);
        let (code, random) = ("c".repeat(64), "d".repeat(32));
        let rows = [
            (format!("{code}.{random}.tmp"), 2, false),
            (format!("key.{random}.tmp"), 2, false),
            (format!("{code}.{}.tmp", "e".repeat(32)), 0, true),
            // Somebody else's, however old.
            ("old.tmp".to_owned(), 2, true),
            (format!("report.{random}.tmp"), 2, true),
            (format!("{code}.{random}.x.tmp"), 2, true),
            ("key.txt".to_owned(), 2, true),
            ("theirs.cwasm".to_owned(), 2, true),
        ];
        for (name, hours, _) in &rows {
            let file = File::create(folder.join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
        }
        fs::write(folder.join("theirs.cwasm"), [0; 2000]).unwrap();
        cache.put(&code, b"code");
        for (name, _, stays) in rows {
            assert_eq!(folder.join(&name).exists(), stays, "{name}");
        }
        assert!(folder.join("key").exists() && folder.join(format!("{code}.cwasm")).exists());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_link_and_what_others_can_write_are_not_read() {
        let (folder, cache) = cache(1000);
        cache.put("x", b"code");
        let path = folder.join("x.cwasm");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(cache.get("x"), None, "anybody could have written it");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(cache.get("x").is_some());
        fs::rename(&path, folder.join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(folder.join("elsewhere"), &path).unwrap();
        assert_eq!(cache.get("x"), None, "a link");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_belongs_to_another_user_is_not_read() {
        let (folder, cache) = cache(1000);
        cache.put("x", b"code");
        let path = folder.join("x.cwasm");
        // Only root can give a file away; everybody else can look at root's.
        let others = match std::os::unix::fs::chown(&path, Some(12345), None) {
            Ok(()) => {
                assert_eq!(cache.get("x"), None);
                path
            }
            Err(_) => "/".into(),
        };
        assert!(own(&others, &fs::metadata(&others).unwrap()).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_folder_that_is_no_folder_means_no_cache() {
        let path = std::env::temp_dir().join(format!("tidemill-cache-{}", uuid::Uuid::new_v4()));
        fs::write(&path, "a file").unwrap();
        let cache = Cache::open(&path, 1000);
        cache.put("x", b"code");
        assert_eq!((cache.place.is_none(), cache.get("x")), (true, None));
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn hosts_that_start_together_agree_on_the_key() {
        let folder = std::env::temp_dir().join(format!("tidemill-cache-{}", uuid::Uuid::new_v4()));
        let open = || Cache::open(&folder, 1000).place.map(|place| place.key);
        let keys: Vec<_> = std::thread::scope(|scope| {
            let hosts: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            hosts.into_iter().map(|host| host.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| key.is_some() && *key == keys[0]), "{keys:?}");
        fs::remove_dir_all(&folder).unwrap();
    }
}
