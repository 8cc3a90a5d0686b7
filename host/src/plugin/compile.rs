//! Compiling components, with a cache of compiled code.
//!
//! Compiled code is native code: whoever can write a cache file can run anything in this process. So a file is loaded
//! only if (1) it lies in a folder of ours with mode 0700, (2) its name is the hash of the component, the engine's
//! settings and this host's version, and (3) it carries a MAC under a key that lies in that folder with mode 0600.
//! Compiled code is never accepted from anywhere else.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use super::Engine;

const MAC_BYTES: usize = 32;

/// The folder of compiled code, or none where it cannot be had: then everything is compiled each time.
pub struct Cache {
    place: Option<(PathBuf, [u8; 32])>,
}

impl Cache {
    /// Opens (makes) the cache in this folder.
    pub fn open(folder: &Path) -> Self {
        match private_folder(folder).and_then(|()| key(folder)) {
            Ok(key) => Self { place: Some((folder.to_owned(), key)) },
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "no cache for compiled plugins; they are compiled at each start");
                Self { place: None }
            }
        }
    }

    /// `$XDG_CACHE_HOME/tidemill`, else `~/.cache/tidemill`, else below the system's folder for temporary files.
    pub fn default_folder() -> PathBuf {
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
        base.unwrap_or_else(std::env::temp_dir).join("tidemill")
    }

    /// Compiles, or takes the code from the cache.
    pub fn component(&self, engine: &Engine, wasm: &[u8]) -> wasmtime::Result<Component> {
        let Some((folder, mac_key)) = &self.place else { return Component::new(engine.wasmtime(), wasm) };
        let path = folder.join(format!("{}.cwasm", cache_name(engine, wasm)));
        if let Some(code) = read_checked(&path, mac_key) {
            // SAFETY: `deserialize` runs what it is given. These bytes were written by this very function: they bear a
            // MAC under a key that only this user can read, and their name holds the hash of the component and of the
            // engine's settings.
            #[expect(unsafe_code, reason = "loading our own compiled code, see the module's text")]
            let component = unsafe { Component::deserialize(engine.wasmtime(), &code) };
            if let Ok(component) = component {
                return Ok(component);
            }
        }
        let component = Component::new(engine.wasmtime(), wasm)?;
        if let Err(error) =
            component.serialize().map_err(std::io::Error::other).and_then(|code| write_checked(&path, mac_key, &code))
        {
            tracing::warn!(path = %path.display(), %error, "cannot keep compiled code");
        }
        Ok(component)
    }
}

fn cache_name(engine: &Engine, wasm: &[u8]) -> String {
    use std::hash::{Hash, Hasher};
    let mut settings = std::hash::DefaultHasher::new();
    engine.wasmtime().precompile_compatibility_hash().hash(&mut settings);
    let mut digest = Sha256::new();
    digest.update(env!("CARGO_PKG_VERSION"));
    digest.update(settings.finish().to_le_bytes());
    digest.update(wasm);
    hex(&digest.finalize())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}

fn private_folder(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// The MAC key of the folder; made at first use.
fn key(folder: &Path) -> std::io::Result<[u8; 32]> {
    let path = folder.join("key");
    if !path.exists() {
        let mut key = [0u8; 32];
        for part in key.chunks_mut(16) {
            part.copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        }
        write_private(&path, &[&key])?;
    }
    let read = fs::read(&path)?;
    read.try_into().map_err(|_| std::io::Error::other(format!("{} is not a key; delete it", path.display())))
}

fn mac(key: &[u8; 32], path: &Path, code: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("an HMAC takes a key of any length");
    mac.update(path.file_name().unwrap_or_default().as_encoded_bytes());
    mac.update(code);
    mac
}

/// The code in the file, if its MAC holds.
fn read_checked(path: &Path, key: &[u8; 32]) -> Option<Vec<u8>> {
    let mut bytes = fs::read(path).ok()?;
    let code_len = bytes.len().checked_sub(MAC_BYTES)?;
    let (code, tag) = bytes.split_at(code_len);
    if mac(key, path, code).verify_slice(tag).is_err() {
        tracing::warn!(path = %path.display(), "compiled code in the cache was changed by somebody; compiling anew");
        return None;
    }
    bytes.truncate(code_len);
    Some(bytes)
}

fn write_checked(path: &Path, key: &[u8; 32], code: &[u8]) -> std::io::Result<()> {
    let tag = mac(key, path, code).finalize().into_bytes();
    write_private(path, &[code, &tag])
}

/// Writes beside the path and renames: a reader sees the whole file or none.
fn write_private(path: &Path, parts: &[&[u8]]) -> std::io::Result<()> {
    let beside = path.with_extension(format!("{}.tmp", uuid::Uuid::new_v4().simple()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(&beside)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_code_is_not_loaded() {
        let folder = std::env::temp_dir().join(format!("tidemill-cache-{}", uuid::Uuid::new_v4()));
        let cache = Cache::open(&folder);
        let (_, key) = cache.place.as_ref().unwrap();
        let path = folder.join("x.cwasm");
        write_checked(&path, key, b"code").unwrap();
        assert_eq!(read_checked(&path, key).as_deref(), Some(&b"code"[..]));
        assert_eq!(read_checked(&path, &[0; 32]), None, "another key");
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(read_checked(&path, key), None, "one bit flipped");
        fs::remove_dir_all(&folder).unwrap();
    }
}
